"""Slice tensors by index sets, and merge slices back by who holds what.

An *index map* says, for every parameter and buffer by name, which indices of each dimension a worker holds: a sorted
int64 array, or None for all of that dimension. It is the only thing that decides ownership: values are never compared.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from isthmus.errors import InvalidInput
from isthmus.partitions import Indices

Held = tuple[Indices | Tensor | None, ...]  # tensors on the CPU: the same sets, converted already
IndexMap = Mapping[str, Held]
_PIECE = 1 << 16
_ROWS_AT_ONCE = 1 << 22  # bytes of a tensor that are merged at once, where copies are made


def slice_tensor(tensor: Tensor, held: Held) -> Tensor:
    """Return ``tensor[held[0]][:, held[1]]...``, fresh; one index_select a dimension, faster than fancy indexing."""
    part = view_slice(tensor, held)
    return part.clone() if part is tensor else part


def view_slice(tensor: Tensor, held: Held) -> Tensor:
    """Return what :func:`slice_tensor` returns, but the tensor itself where all of it is held."""
    part = tensor
    for dim, indices in enumerate(held):
        if indices is not None:
            part = part.index_select(dim, _as_tensor(indices, tensor.device))
    return part


def write_slice(tensor: Tensor, held: Held, values: Tensor) -> None:
    """Put ``values`` at the held indices of ``tensor``, in place."""
    _write(tensor, held, values)


def merge_into(whole: Tensor, holders: Sequence[tuple[Tensor, Held]]) -> None:
    """Merge the parts of one tensor into it, in place.

    An entry that one part holds is copied; one that several hold becomes the mean over its holders (not over all
    parts); one that none holds keeps its value. Equal values stay equal bit for bit, whatever the number of holders.
    Integer tensors keep their type (the mean is rounded).

    Args:
        whole: what the parts were cut from.
        holders: (part, index set per dimension) of each worker, in the order of the workers, which fixes that of sums.

    Raises:
        InvalidInput: a part that does not fit its index set.
    """
    for part, held in holders:
        _check_fits(whole, part, held)
    for rows, parts in _by_rows(whole, holders):
        _merge(rows, parts)


def _by_rows(
    whole: Tensor, holders: Sequence[tuple[Tensor, Held]]
) -> Iterator[tuple[Tensor, Sequence[tuple[Tensor, Held]]]]:
    """Yield a tensor and the parts of it, or some rows at a time of one so large that copies of it would take room."""
    count = math.ceil(whole.numel() * whole.element_size() / _ROWS_AT_ONCE)
    cut = any(indices is not None for _, held in holders for indices in held)
    if count < 2 or not cut or any(held[0] is not None and not _is_sorted(held[0]) for _, held in holders):
        yield whole, holders
        return
    ends = [len(whole) * block // count for block in range(count + 1)]
    for start, stop in pairwise(ends):
        parts = []
        for part, (rows, *rest) in holders:
            first, last = (start, stop) if rows is None else np.searchsorted(np.asarray(rows), (start, stop))
            if first < last:
                parts.append((part[first:last], (None if rows is None else rows[first:last] - start, *rest)))
        if parts:
            yield whole[start:stop], parts


def _is_sorted(indices: Indices | Tensor) -> bool:
    return bool((indices[1:] > indices[:-1]).all())


def _merge(whole: Tensor, holders: Sequence[tuple[Tensor, Held]]) -> None:
    """Merge all parts at once."""
    if len(holders) < 2 or _disjoint([held for _, held in holders], whole.shape):
        for part, held in holders:
            _write(whole, held, part)
    elif _is_exact(whole) and all(indices is None for _, held in holders for indices in held):
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
    exact = base if _is_exact(whole) else base.double()
    drift, count = torch.zeros_like(exact), torch.zeros_like(exact.real)
    for part, held in holders:
        here = slice_tensor(drift, held)
        _write(drift, held, here + (part - slice_tensor(exact, held)))
        _write(count, held, slice_tensor(count, held) + 1)
    mean = exact + drift / count.clamp(min=1)
    return mean if _is_exact(whole) else mean.round().to(whole.dtype)


def _write(target: Tensor, held: Held, values: Tensor) -> None:
    """Put ``values`` at the held indices of ``target``, in place."""
    cut = [dim for dim, indices in enumerate(held) if indices is not None]
    if not cut:
        target.copy_(values)
    elif len(cut) == 1:
        target.index_copy_(cut[0], _as_tensor(held[cut[0]], target.device), values)
    else:
        target[_mesh(target, held, cut[0], cut[-1])] = values


def _mesh(target: Tensor, held: Held, first: int, last: int) -> tuple[Tensor | slice, ...]:
    """Return what indexes a product of index sets; between two cut dimensions there may be no slice."""
    sets = [
        torch.arange(target.shape[dim], device=target.device) if held[dim] is None else
        _as_tensor(held[dim], target.device)
        for dim in range(first, last + 1)
    ]  # fmt: skip
    spread = [each.view([-1 if d == dim else 1 for d in range(len(sets))]) for dim, each in enumerate(sets)]
    return (*[slice(None)] * first, *spread)


def _is_exact(tensor: Tensor) -> bool:
    """Whether a mean can be taken in the tensor's own type: real or complex numbers, not integers."""
    return tensor.is_floating_point() or tensor.is_complex()


def _disjoint(maps: Sequence[Held], shape: Sequence[int]) -> bool:
    """Whether some dimension alone keeps all holders apart (enough for the laws in use; if not, the mean is right)."""
    for dim, size in enumerate(shape):
        sets = [held[dim] for held in maps]
        if any(indices is None for indices in sets):
            continue
        together = np.concatenate([np.asarray(s) for s in sets if s is not None])
        if np.bincount(together, minlength=size).max(initial=0) <= 1:
            return True
    return False


def _check_fits(whole: Tensor, part: Tensor, held: Held) -> None:
    sizes = zip(whole.shape, held, strict=True)
    expected = tuple(size if indices is None else len(indices) for size, indices in sizes)
    if tuple(part.shape) != expected:
        raise InvalidInput(f"a part must have shape {expected}, got {tuple(part.shape)}")


def _as_tensor(indices: Indices | Tensor | None, device: torch.device) -> Tensor:
    if isinstance(indices, Tensor):
        return indices.to(device)
    return torch.tensor(indices, dtype=torch.int64, device=device)
