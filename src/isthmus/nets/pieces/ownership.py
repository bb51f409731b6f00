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
_PIECE = 1 << 18
_HALF = 1 << 32
MOVABLE = {  # what torch takes and puts at index sets; other types go as integers of the same size
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16, torch.bfloat16,
    torch.float32, torch.float64, torch.complex64, torch.complex128,
}  # fmt: skip
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_ROWS_AT_ONCE = 1 << 22  # bytes of a tensor that are merged at once, where copies are made


def slice_tensor(tensor: Tensor, held: Sequence[Indices | Tensor | None]) -> Tensor:
    """Return ``tensor[held[0]][:, held[1]]...``, fresh; one index_select a dimension, faster than fancy indexing."""
    part = view_slice(tensor, held)
    return part.clone() if part is tensor else part


def view_slice(tensor: Tensor, held: Sequence[Indices | Tensor | None]) -> Tensor:
    """Return what :func:`slice_tensor` returns, but the tensor itself where all of it is held."""
    part = tensor
    for dim, indices in enumerate(held):
        if indices is not None:
            if isinstance(indices, Tensor) and indices.device == tensor.device:  # as is the case for most of a cut
                places = indices
            else:
                places = _placed(indices, tensor.device)
            if tensor.dtype in MOVABLE:
                part = part.index_select(dim, places)
            else:
                part = _movable(part).index_select(dim, places).view(tensor.dtype)
    return part


def as_tensor(indices: Indices | Tensor) -> Tensor:
    """Return an index set as a tensor, which may share its memory."""
    if isinstance(indices, Tensor):
        return indices
    plain = np.asarray(indices, np.int64)
    return torch.from_numpy(plain if plain.flags.writeable else plain.copy())  # torch warns of what is read only


def write_slice(tensor: Tensor, held: Held, values: Tensor) -> None:
    """Put ``values`` at the held indices of ``tensor``, in place."""
    _write(tensor, held, values)


def merge_into(whole: Tensor, holders: Sequence[tuple[Tensor, Held]]) -> None:
    """Merge the parts of one tensor into it, in place.

    An entry that one part holds is copied; one that several hold becomes the mean over its holders (not over all
    parts), as :func:`mean_of` has it; one that none holds keeps its value. Equal values stay equal bit for bit,
    whatever the number of holders.

    Args:
        whole: what the parts were cut from.
        holders: (part, index set per dimension) of each worker, in the order of the workers, which fixes that of sums.

    Raises:
        InvalidInput: a part that does not fit its index set.
    """
    for part, held in holders:
        _check_fits(whole, part, held)
    if whole.layout != torch.strided:
        _merge_sparse(whole, [part for part, _ in holders])
        return
    for rows, parts in _by_rows(whole, holders):
        _merge(rows, parts)


def _merge_sparse(whole: Tensor, parts: Sequence[Tensor]) -> None:
    """Merge sparse tensors, which every part has whole: the entries that they all name."""
    (places, values), *others = map(laid_out, (whole, *parts))
    for theirs, _ in others:
        if len(theirs) != len(places) or not all(map(torch.equal, theirs, places)):
            raise InvalidInput("a sparse tensor whose parts name other entries than it cannot be merged")
    values.copy_(mean_of([theirs for _, theirs in others]))


def laid_out(tensor: Tensor) -> tuple[list[Tensor], Tensor]:
    """Return the tensors that name the entries of a sparse tensor, none of a dense one, and the entries, in place."""
    if tensor.layout == torch.strided:
        return [], tensor
    if tensor.layout == torch.sparse_coo:
        return [tensor._indices()], tensor._values()
    rows = tensor.layout in (torch.sparse_csr, torch.sparse_bsr)
    places = (tensor.crow_indices(), tensor.col_indices()) if rows else (tensor.ccol_indices(), tensor.row_indices())
    return list(places), tensor.values()


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
    elif all(indices is None for _, held in holders for indices in held):
        mean_into(whole, [part for part, _ in holders])
    else:
        first = whole.clone()
        for part, held in reversed(holders):  # the first holder has the last word
            _write(first, held, part)
        whole.copy_(_mean(first, holders))


def mean_into(whole: Tensor, parts: Sequence[Tensor]) -> None:
    """Write :func:`mean_of` some tensors into one, which may be one of them; on a CPU piece by piece: what is summed up
    stays in its cache."""
    if whole.device.type not in ("cpu", "meta") or not all(tensor.is_contiguous() for tensor in (whole, *parts)):
        whole.copy_(mean_of(parts))
        return
    flat, flats = whole.view(-1), [part.view(-1) for part in parts]
    for start in range(0, flat.numel(), _PIECE):
        pieces = [part[start : start + _PIECE] for part in flats]
        flat[start : start + _PIECE] = _mean(pieces[0], [(piece, (None,)) for piece in pieces])


def mean_of(tensors: Sequence[Tensor]) -> Tensor:
    """Return the mean of tensors of one shape and type, in the given order.

    Real and complex numbers are summed up as first - sum(first - x) / n, those shorter than float32 in float32;
    integers are averaged exactly, and rounded half to even; of truth values the first counts. Where all agree, the mean
    has their very bits, infinities and nan too.
    """
    return _mean(tensors[0].clone(), [(tensor, (None,) * tensor.dim()) for tensor in tensors])


def _mean(first: Tensor, holders: Sequence[tuple[Tensor, Held]]) -> Tensor:
    """Return the mean of every entry over its holders.

    Args:
        first: what the first holder of each entry has; of an entry without one, the mean.
        holders: (part, index set per dimension) of each.
    """
    if first.dtype == torch.bool or len(holders) < 2:
        return first
    everywhere = all(indices is None for _, held in holders for indices in held)
    count: Tensor | int = len(holders) if everywhere else _counted(first, holders)
    if not (first.is_floating_point() or first.is_complex()):
        return _integer_mean(first, holders, count)
    base = _wide(first)
    if isinstance(count, int):  # the first drifts from itself by 0
        drift = base - _wide(holders[1][0])
        for part, _ in holders[2:]:
            drift += base - _wide(part)
    else:
        drift = torch.zeros_like(base)
        for part, held in holders:
            _add(drift, held, view_slice(base, held) - _wide(part))
        count = count.clamp(min=1)
    mean = drift.div_(-count).add_(base)  # what drifts by 0 is kept: -0 + -0 is -0, where -0 + 0 would be 0
    if mean.is_meta or bool(mean.sum().isfinite()):  # a sum is the quickest way to see that all are finite
        return mean.to(first.dtype)
    finite = mean.isfinite()
    agreed, other = _odd_mean(base, holders, count)
    return torch.where(agreed & ~finite, first, torch.where(finite, mean, other).to(first.dtype))


def _odd_mean(
    base: Tensor, holders: Sequence[tuple[Tensor, Held]], count: Tensor | int
) -> tuple[Tensor, Tensor]:
    """Return where all agree, and the mean where a drift is no number: of infinities, of nan, of what is further apart
    than can be said."""
    agreed, total = torch.ones_like(base, dtype=torch.bool), torch.zeros_like(base)
    for part, held in holders:
        value, begun = _wide(part), view_slice(base, held)
        same = (value == begun) | (value.isnan() & begun.isnan())
        _write(agreed, held, view_slice(agreed, held) & same)
        _add(total, held, value / (count if isinstance(count, int) else view_slice(count, held)))
    return agreed, total


def _integer_mean(first: Tensor, holders: Sequence[tuple[Tensor, Held]], count: Tensor | int) -> Tensor:
    """Return the mean of integers, from the sums of the halves of their 64 bits: that of all may be too large."""
    high, low = (torch.zeros(first.shape, dtype=torch.int64, device=first.device) for _ in range(2))
    signed = first.dtype != torch.uint64
    for part, held in holders:
        value = part.to(torch.int64) if signed else part.view(torch.int64)
        _add(high, held, value >> 32 if signed else (value >> 32) & (_HALF - 1))
        _add(low, held, value & (_HALF - 1))
    number = count if isinstance(count, int) else count.clamp(min=1)
    low += high.remainder(number) * _HALF
    mean = high.div(number, rounding_mode="floor") * _HALF + low.div(number, rounding_mode="floor")
    twice = 2 * low.remainder(number)
    mean += (twice > number) | ((twice == number) & (mean.remainder(2) == 1))
    found = mean.to(first.dtype) if signed else mean.view(first.dtype)
    return found if isinstance(count, int) else torch.where(count > 0, found, first)


def _counted(like: Tensor, holders: Sequence[tuple[Tensor, Held]]) -> Tensor:
    """Return how many hold each entry."""
    count = torch.zeros(like.shape, dtype=torch.int64, device=like.device)
    for part, held in holders:
        _add(count, held, torch.ones(part.shape, dtype=torch.int64, device=part.device))
    return count


def _wide(tensor: Tensor) -> Tensor:
    """Return floating-point numbers in a type that has room for their sums."""
    if tensor.dtype == torch.complex32:
        return tensor.to(torch.complex64)
    return tensor.float() if tensor.is_floating_point() and tensor.element_size() < 4 else tensor


def _add(target: Tensor, held: Held, values: Tensor) -> None:
    """Add ``values`` to the held entries of ``target``, in place."""
    if all(indices is None for indices in held):
        target += values
    else:
        _write(target, held, view_slice(target, held) + values)


def _write(target: Tensor, held: Held, values: Tensor) -> None:
    """Put ``values`` at the held indices of ``target``, in place."""
    cut = [dim for dim, indices in enumerate(held) if indices is not None]
    if not cut:
        target.copy_(values)
    elif len(cut) == 1:
        _movable(target).index_copy_(cut[0], _placed(held[cut[0]], target.device), _movable(values))
    else:
        _movable(target)[_mesh(target, held, cut[0], cut[-1])] = _movable(values)


def _movable(tensor: Tensor) -> Tensor:
    """Return the tensor's memory as numbers of a type that torch takes and puts at index sets."""
    return tensor if tensor.dtype in MOVABLE else tensor.view(_BITS[tensor.element_size()])


def _mesh(target: Tensor, held: Held, first: int, last: int) -> tuple[Tensor | slice, ...]:
    """Return what indexes a product of index sets; between two cut dimensions there may be no slice."""
    sets = [
        torch.arange(target.shape[dim], device=target.device) if held[dim] is None else
        _placed(held[dim], target.device)
        for dim in range(first, last + 1)
    ]  # fmt: skip
    spread = [each.view([-1 if d == dim else 1 for d in range(len(sets))]) for dim, each in enumerate(sets)]
    return (*[slice(None)] * first, *spread)


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


def _placed(indices: Indices | Tensor | None, device: torch.device) -> Tensor:
    assert indices is not None
    return as_tensor(indices).to(device)
