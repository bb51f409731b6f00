"""Slice a state by index sets, and merge slices back by who holds what.

An *index map* says, for every parameter and buffer by name, which indices of each dimension a worker holds: a sorted
int64 array, or None for all of that dimension. It is the only thing that decides ownership: values are never compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from isthmus.errors import InvalidInput
from isthmus.partitions import Indices

Held = tuple[Indices | None, ...]
IndexMap = Mapping[str, Held]
State = Mapping[str, Tensor]
_PIECE = 1 << 16


def slice_state(state: State, index_map: IndexMap) -> dict[str, Tensor]:
    """Return the entries of every tensor that the index map holds, as fresh dense tensors.

    Raises:
        InvalidInput: a tensor that the map does not name, or names with another number of dimensions.
    """
    return {name: slice_tensor(tensor, _held(name, tensor, index_map)) for name, tensor in state.items()}


def slice_tensor(tensor: Tensor, held: Held) -> Tensor:
    """Return ``tensor[held[0]][:, held[1]]...``, fresh; one index_select a dimension, faster than fancy indexing."""
    part = tensor
    for dim, indices in enumerate(held):
        if indices is not None:
            part = part.index_select(dim, _as_tensor(indices, tensor.device))
    return part.clone() if part is tensor else part


def merge_states(whole: State, parts: Sequence[tuple[State, IndexMap]]) -> dict[str, Tensor]:
    """Return the whole state after every part was put back in its place.

    An entry that one part holds is copied; one that several hold becomes the mean over its holders (not over all
    parts); one that none holds keeps its value. Equal values stay equal bit for bit, whatever the number of holders.
    Integer tensors keep their type (the mean is rounded); a name that no part brings keeps its value.

    Args:
        whole: the state the parts were cut from; not changed.
        parts: (state, index map) of each worker, in the order of the workers, which fixes the order of the sums.

    Raises:
        InvalidInput: a part that does not fit its index map.
    """
    merged = {}
    for name, tensor in whole.items():
        holders = [(state[name], _held(name, tensor, index_map)) for state, index_map in parts if name in state]
        for part, held in holders:
            _check_fits(name, tensor, part, held)
        merged[name] = _merge_tensor(tensor, holders)
    return merged


def merge_into(whole: Tensor, holders: Sequence[tuple[Tensor, Held]]) -> None:
    """Merge the parts of one tensor into it, in place: as :func:`merge_states`, with fewer copies.

    Raises:
        InvalidInput: a part that does not fit its index set.
    """
    for part, held in holders:
        _check_fits("", whole, part, held)
    if len(holders) < 2 or _disjoint([held for _, held in holders], whole.shape):
        for part, held in holders:
            _write(whole, held, part)
    elif whole.is_floating_point() and all(indices is None for _, held in holders for indices in held):
        _mean_into(whole, [part for part, _ in holders])
    else:
        whole.copy_(_merge_tensor(whole, holders))


def _mean_into(whole: Tensor, parts: Sequence[Tensor]) -> None:
    """Write the mean piece by piece: what is summed up stays in the processor's cache."""
    if not all(tensor.is_contiguous() for tensor in (whole, *parts)):
        whole.copy_(mean_of(parts))
        return
    flat, flats = whole.view(-1), [part.view(-1) for part in parts]
    for start in range(0, flat.numel(), _PIECE):
        flat[start : start + _PIECE] = mean_of([part[start : start + _PIECE] for part in flats])


def mean_of(tensors: Sequence[Tensor]) -> Tensor:
    """Return the mean in the given order, as first + sum(x - first) / n: equal tensors give back their very bits."""
    first, *others = tensors
    if not others:
        return first.clone()
    drift = torch.zeros_like(first)
    for tensor in others:
        drift += tensor - first
    return first + drift / len(tensors)


def _merge_tensor(whole: Tensor, holders: Sequence[tuple[Tensor, Held]]) -> Tensor:
    base = whole.clone()
    for part, held in reversed(holders):  # the first holder has the last word: it is the base the others drift from
        _write(base, held, part)
    if len(holders) < 2 or whole.dtype == torch.bool or _disjoint([held for _, held in holders], whole.shape):
        return base
    exact = base if whole.is_floating_point() else base.double()
    drift, count = torch.zeros_like(exact), torch.zeros_like(exact)
    for part, held in holders:
        here = slice_tensor(drift, held)
        _write(drift, held, here + (part - slice_tensor(exact, held)))
        _write(count, held, slice_tensor(count, held) + 1)
    mean = exact + drift / count.clamp(min=1)
    return mean if whole.is_floating_point() else mean.round().to(whole.dtype)


def _write(target: Tensor, held: Held, values: Tensor) -> None:
    """Put ``values`` at the held indices of ``target``, in place; one index_copy a dimension."""
    cut = [dim for dim, indices in enumerate(held) if indices is not None]
    if not cut:
        target.copy_(values)
        return
    dim = cut[0]
    indices = _as_tensor(held[dim], target.device)
    if len(cut) > 1:
        rest = tuple(None if d == dim else other for d, other in enumerate(held))
        rows = target.index_select(dim, indices)
        _write(rows, rest, values)
        values = rows
    target.index_copy_(dim, indices, values)


def _disjoint(maps: Sequence[Held], shape: Sequence[int]) -> bool:
    """Whether some dimension alone keeps all holders apart (enough for the laws in use; if not, the mean is right)."""
    for dim, size in enumerate(shape):
        sets = [held[dim] for held in maps]
        if any(indices is None for indices in sets):
            continue
        if np.bincount(np.concatenate([s for s in sets if s is not None]), minlength=size).max(initial=0) <= 1:
            return True
    return False


def _held(name: str, tensor: Tensor, index_map: IndexMap) -> Held:
    if name not in index_map:
        raise InvalidInput(f"`index_map` must name every tensor, it has no {name!r}")
    held = index_map[name]
    if len(held) != tensor.dim():
        raise InvalidInput(f"`index_map[{name!r}]` must have {tensor.dim()} dimensions, got {len(held)}")
    return held


def _check_fits(name: str, whole: Tensor, part: Tensor, held: Held) -> None:
    sizes = zip(whole.shape, held, strict=True)
    expected = tuple(size if indices is None else len(indices) for size, indices in sizes)
    if tuple(part.shape) != expected:
        raise InvalidInput(f"the part of {name!r} must have shape {expected}, got {tuple(part.shape)}")


def _as_tensor(indices: Indices | None, device: torch.device) -> Tensor:
    return torch.tensor(indices, dtype=torch.int64, device=device)
