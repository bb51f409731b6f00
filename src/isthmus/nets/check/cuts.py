"""Whether a cut is the masked whole: results, gradients and buffers, for numbers that are moved a little."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from isthmus.errors import InvalidInput
from isthmus.nets.axes.structure import Structure, written
from isthmus.nets.check.outcome import Outcome, compared, gradients, nudged
from isthmus.nets.check.reference import masked_whole, run_mode, wide
from isthmus.nets.check.verdict import Check, Unjudged
from isthmus.nets.pieces.laws import partition
from isthmus.nets.pieces.subnetwork import Subnetwork, build
from isthmus.partitions import law_of


@dataclass(frozen=True)
class NetworkCall:
    """A call of the network in one mode, and what to say of its sizes."""

    mode: str
    inputs: Sequence[Tensor]
    sizes: str = ""

    @property
    def label(self) -> str:
        """What messages call it."""
        return self.mode + self.sizes


def compare_cuts(
    coupling: Structure,
    state: Mapping[str, Tensor],
    seed: int,
    workers: int,
    calls: Sequence[NetworkCall],
    tolerance: float,
) -> list[Check]:
    """Compare one cut with the masked whole, in all calls."""
    held = partition(coupling, workers, seed, 0, law_of("overlapping")).of(seed % workers)
    state = {name: wide(tensor) for name, tensor in _moved(coupling, state, seed).items()}
    try:
        sub = build(state, coupling, held)
    except (InvalidInput, RuntimeError, IndexError) as failure:
        return [broken(f"cut {seed}", failure)]
    checks = []
    for call in calls:
        label = f"{call.mode}, cut {seed}{call.sizes}"
        checks += _compare_cut(coupling, state, sub, call.mode, list(map(wide, call.inputs)), label, tolerance)
    return checks


def _compare_cut(
    coupling: Structure,
    state: Mapping[str, Tensor],
    sub: Subnetwork,
    mode: str,
    inputs: Sequence[Tensor],
    label: str,
    tolerance: float,
) -> list[Check]:
    def reference(state: Mapping[str, Tensor], inputs: Sequence[Tensor]) -> Outcome:
        leaves = _leaves(coupling, state)
        whole = _outcome(*masked_whole(coupling, leaves, sub.held, mode, inputs), leaves)
        sides = (whole.gradients, whole.buffers)
        mine = ({n: sub.slice(n, tensor) for n, tensor in side.items() if n in sub.indices} for side in sides)
        return Outcome(whole.outputs, *mine)

    try:
        expected = reference(state, inputs)
    except RuntimeError as failure:
        raise Unjudged(f"the whole cannot be computed in float64 ({label}; {said(failure)})") from failure
    if not any(output.numel() and bool(output.isfinite().any()) for output in expected.outputs):
        raise Unjudged(f"it returns no finite number in float64 ({label}): there is nothing to compare")
    leaves = _leaves(coupling, sub.state())
    try:
        found = _outcome(*run_mode(sub.module, mode, leaves, inputs), leaves)
    except (RuntimeError, TypeError, ValueError, IndexError) as failure:
        return [broken(label, failure)]
    if [tuple(each.shape) for each in found.outputs] != [tuple(each.shape) for each in expected.outputs]:
        return [Check(f"outputs' shapes ({label})", math.inf, False)]

    def again() -> Outcome:
        generator = torch.Generator().manual_seed(0)
        moved = dict(zip(state, nudged(list(state.values()), generator), strict=True))
        return reference(moved, nudged(inputs, generator))

    limits = {"outputs": tolerance, "gradients": 10 * tolerance, "buffers": tolerance}
    return compared(found, expected, limits, lambda part: f"{part} ({label})", again)


def _moved(coupling: Structure, state: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Return the state of a network that has been trained a little: no zeros, and no two numbers alike.

    Signs stay, and buffers that no forward pass writes to: they may be masks or positions.
    """
    generator = torch.Generator().manual_seed(seed)
    changing = written(coupling)
    aliases = {alias: entry.name for entry in coupling.entries.values() for alias in entry.aliases}
    moved: dict[str, Tensor] = {}
    for name, tensor in state.items():
        entry = coupling.entries.get(name)
        if entry is None:
            moved[name] = moved[aliases[name]]
        elif (entry.is_parameter or name in changing) and (tensor.is_floating_point() or tensor.is_complex()):
            share = torch.rand(tensor.shape, generator=generator, dtype=torch.float64).to(tensor.device)
            value = wide(tensor)
            moved[name] = torch.where(value == 0, (0.02 + 0.05 * share).to(value.dtype), value * (1 + 0.2 * share))
        else:
            moved[name] = tensor
    return moved


def _leaves(coupling: Structure, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return copies of a state that gradients are taken of."""
    copies = {name: tensor.detach().clone() for name, tensor in state.items() if name in coupling.entries}
    for name, tensor in copies.items():
        continuous = tensor.is_floating_point() or tensor.is_complex()
        tensor.requires_grad_(coupling.entries[name].is_parameter and continuous)
    return copies


def _outcome(results: Sequence[Any], changed: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> Outcome:
    """Return what a run has given, its buffers those of the state or those it has assigned."""
    outputs = [result for result in results if isinstance(result, Tensor)]
    found = gradients(outputs, state)
    buffers = {name: tensor for name, tensor in state.items() if not tensor.is_leaf or not tensor.requires_grad}
    return Outcome([output.detach() for output in outputs], found, buffers | dict(changed))


def broken(label: str, failure: Exception) -> Check:
    """Return a failed check: a piece that cannot be built or run."""
    return Check(f"a piece cannot be run ({label}; {said(failure)})", math.inf, False)


def said(failure: Exception) -> str:
    return f"{type(failure).__name__}: {' '.join(str(failure).split())[:120]}"
