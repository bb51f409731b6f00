"""Whether merging gives back what was cut, and the mean of what has changed: held against plain sums."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from isthmus.nets.axes.structure import Structure
from isthmus.nets.check.verdict import relative_error
from isthmus.nets.pieces.laws import NetPartition
from isthmus.nets.pieces.merge import merge
from isthmus.nets.pieces.ownership import Held, laid_out
from isthmus.nets.pieces.subnetwork import Subnetwork, build

_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_DIGITS = 8.0  # units in the last place by which a mean may be off
_COUNTED = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
_REAL = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128)


def merging_errors(
    coupling: Structure, state: Mapping[str, Tensor], partition: NetPartition
) -> Iterator[tuple[str, float]]:
    """Yield what was compared and its error, 0 where it is right: every parameter and buffer, of all workers.

    Where nothing was trained, merging must give back every bit. Where pieces have changed, it must give the mean over
    those that hold an entry; where one holds it, the bits of that one; where none does, those that were there.

    Args:
        coupling: of the network.
        state: its parameters and buffers.
        partition: of its units.
    """
    whole = build(state, coupling, {})
    parts = [build(state, coupling, partition.of(worker), worker) for worker in range(partition.workers)]
    merge(whole.module, parts)
    merged = whole.state()
    wrong = [name for name in whole.indices if not same_bits(merged[name], state[name])]
    yield f"merging what was not trained{_of(wrong)}", math.inf if wrong else 0.0
    expected = {name: _changed(name, state[name], parts) for name in whole.indices}
    merge(whole.module, parts)
    merged = whole.state()
    errors = {name: _error(merged[name], mean, alone) for name, (mean, alone) in expected.items()}
    wrong = [name for name, error in errors.items() if error]
    yield f"merging what was trained{_of(wrong)}", max(errors.values(), default=0.0)


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are equal bit by bit."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.is_complex():
        a, b = torch.view_as_real(a.resolve_conj()), torch.view_as_real(b.resolve_conj())
    (places, a), (others, b) = laid_out(a), laid_out(b)
    if len(places) != len(others) or not all(map(torch.equal, places, others)) or a.shape != b.shape:
        return False
    integers = _BITS[a.element_size()]
    return torch.equal(a.contiguous().view(integers), b.contiguous().view(integers))


def _of(names: Sequence[str]) -> str:
    return f" ({', '.join(names[:3])})" if names else ""


def _changed(name: str, before: Tensor, parts: Sequence[Subnetwork]) -> tuple[Tensor, Tensor]:
    """Change one tensor in all pieces; return its mean over those, and where no more than one counts."""
    before = laid_out(before)[1]
    count = torch.zeros(before.shape, dtype=torch.int64, device=before.device)
    first, values = before.clone(), []
    holders = [part for part in parts if name in part.indices]
    if before.dtype not in (*_COUNTED, *_REAL):
        return first, count == 0  # torch does not add it up, and of truth values the first counts: left as it is
    for number, part in enumerate(holders):
        places, tensor = laid_out(part.state()[name])
        held = (None,) * tensor.dim() if places else part.indices[name]  # a sparse one is held whole
        place = _place(before, held)
        tensor.copy_(_other(tensor, number, len(holders)))
        count[place] += 1
        values.append((place, tensor))
    for place, tensor in reversed(values):
        first[place] = tensor
    base = first.to(_wide(first.dtype))
    drift = torch.zeros_like(base)
    for place, tensor in values:
        value, begun = tensor.to(base.dtype), base[place]
        drift[place] += torch.where((value == begun) | (value != value), torch.zeros_like(value), value - begun)
    many = count.clamp(min=1)
    mean = base + (drift // many if drift.dtype == torch.int64 else drift / many)
    return torch.where(count < 2, first, mean.to(first.dtype)), count < 2


def _place(tensor: Tensor, held: Held) -> tuple[Tensor, ...]:
    """Return an index set as an index: numbers along every dimension."""
    sizes = enumerate(zip(tensor.shape, held, strict=True))
    sets = [(dim, torch.arange(size) if units is None else torch.as_tensor(units)) for dim, (size, units) in sizes]
    return tuple(units.reshape([-1 if d == dim else 1 for d in range(tensor.dim())]) for dim, units in sets)


def _other(tensor: Tensor, number: int, holders: int) -> Tensor:
    """Return other values, each worker's and each entry's own, whose means over any of so many workers are exact."""
    if tensor.dtype in _COUNTED:
        step = number * math.lcm(*range(1, holders + 1))
        far = tensor > torch.iinfo(tensor.dtype).max // 2
        return torch.where(far, tensor - step, tensor + step)
    share = torch.linspace(0.02, 0.05, max(1, tensor.numel()), dtype=torch.float64, device=tensor.device)
    share = (number + 1) * share[: tensor.numel()].reshape(tensor.shape)
    value = tensor.to(_wide(tensor.dtype))
    return torch.where(value == 0, share.to(value.dtype), value * (1 - share)).to(tensor.dtype)


def _error(merged: Tensor, mean: Tensor, alone: Tensor) -> float:
    merged = laid_out(merged)[1]
    if merged.shape != mean.shape or not same_bits(merged[alone], mean[alone]):
        return math.inf
    if not (mean.is_floating_point() or mean.is_complex()):
        return relative_error(merged, mean)
    wide = _wide(mean.dtype)
    found, wanted = merged[~alone].to(wide), mean[~alone].to(wide)
    same = (found == wanted) | ((found != found) & (wanted != wanted))
    near = (found - wanted).abs() <= _DIGITS * torch.finfo(mean.dtype).eps * wanted.abs()
    return 0.0 if bool((same | near).all()) else relative_error(found, wanted)


def _wide(dtype: torch.dtype) -> torch.dtype:
    if dtype in _COUNTED:
        return torch.int64
    return torch.complex128 if dtype.is_complex else torch.float64
