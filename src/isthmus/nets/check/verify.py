"""Check a trace, random cuts and merging: everything that a run relies on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from isthmus.errors import InvalidInput
from isthmus.nets.axes.structure import Structure
from isthmus.nets.check.cuts import NetworkCall, broken, compare_cuts
from isthmus.nets.check.faithful import NotRun, NotTraced, against_model, unseen
from isthmus.nets.check.merging import merging_errors
from isthmus.nets.check.sizings import with_batch, with_sides
from isthmus.nets.check.verdict import Check, Unjudged, Verdict
from isthmus.nets.graph.exported import MODES
from isthmus.nets.pieces.laws import partition
from isthmus.nets.pieces.runnable import GraphNetwork
from isthmus.nets.pieces.subnetwork import build, named_state
from isthmus.partitions import law_of

_FEW = 2  # samples of a quick verification


def verify(
    coupling: Structure,
    model: nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    seeds: Sequence[int] = (0, 1),
    workers: int = 2,
    tolerance: float = 1e-5,
    quick: bool = False,
) -> Verdict:
    """Compare the traced whole with the network, random cuts with the masked whole, and merging with plain means.

    Compared are results of any form, gradients and all buffers, in training and evaluation, at the sizes of the call
    and at others that are open. Cuts are compared in float64, without dropout, with numbers that are moved a little, so
    that no zeros hide anything. The model is not changed, nor torch's random numbers.

    Args:
        coupling, model: the network.
        args, kwargs: a call of it.
        seeds: of the cuts that are compared.
        workers: how many share the network in them.
        tolerance: relative error of results that rounding does not move.
        quick: two samples and one cut.

    Raises:
        InvalidInput: a call that differs from the traced one in more than its tensors and open sizes.
        Unjudged: nothing can be said: the network is on the meta device, does not take the call, returns no numbers, or
            rounding moves its results too much.
    """
    state = {name: tensor.detach() for name, tensor in named_state(model)}
    if any(tensor.device.type == "meta" for tensor in state.values()):
        raise Unjudged("it is on the meta device and has no values")
    inputs = coupling.example.tensors_of(tuple(args), dict(kwargs or {}))
    whole = build(state, coupling, {}).module
    for mode in MODES:
        whole.mode(mode)[0].check(inputs)
    if quick:
        inputs = _few(coupling, whole, inputs)
    cuda = {tensor.device for tensor in state.values() if tensor.device.type == "cuda"}
    with torch.random.fork_rng(devices=sorted(cuda, key=str)):
        calls, checks, unjudged = _against_model(coupling, model, state, inputs, quick)
        if not all(check.passed for check in checks):  # what follows takes the trace for the network
            return Verdict(tuple(checks), (*unjudged, "cuts"))
        for seed in (seeds[:1] if quick else seeds) if coupling.cut_axes else ():
            checks += compare_cuts(coupling, state, seed, workers, calls, tolerance)
        if coupling.cut_axes:
            checks += _compare_merging(coupling, state, seeds[0] if seeds else 0)
    return Verdict(tuple(checks), (*unjudged, *unseen(coupling)))


def _against_model(
    coupling: Structure, model: nn.Module, state: Mapping[str, Tensor], inputs: Sequence[Tensor], quick: bool
) -> tuple[list[NetworkCall], list[Check], list[str]]:
    """Compare the traced whole with the network; return too the calls that the network takes, and what it does not."""
    taken: list[NetworkCall] = []
    checks: list[Check] = []
    refused: list[str] = []

    def attempt(*calls: NetworkCall) -> bool:
        """Compare in calls, unless the network does not take one: other sizes may be none for it."""
        try:
            found = [check for c in calls for check in against_model(coupling, model, state, c.mode, c.inputs, c.label)]
        except NotRun as failure:
            if isinstance(failure, NotTraced) and not calls[0].sizes:
                checks.append(Check(f"the traced network cannot be run ({calls[0].label}; {failure})", math.inf, False))
            else:  # what refuses a size is not wrong
                refused.append(f"{calls[0].label}, in which the network does not take this call ({failure})")
            return False
        checks.extend(found)
        taken.extend(calls)
        return True

    if quick:
        attempt(NetworkCall("train", inputs))
        others = [NetworkCall("eval", other, " at other sizes") for other in _others(coupling, inputs)]
        any(attempt(call) for call in (*others, NetworkCall("eval", inputs)))
    else:
        for mode in MODES:
            attempt(NetworkCall(mode, inputs))
    modes = list(dict.fromkeys(call.mode for call in taken))
    if not modes and not checks:
        raise Unjudged(f"in {refused[-1]}")
    unjudged = [each for each in refused if each.split(",")[0] in MODES]
    batch = None if quick or not modes or not inputs[0].dim() else with_batch(coupling, inputs, inputs[0].shape[0] + 1)
    if batch is not None:
        attempt(*(NetworkCall(mode, batch, " at another batch size") for mode in modes))
    sides = () if quick or not modes else with_sides(coupling, inputs)
    any(attempt(*(NetworkCall(mode, other, " at other sizes") for mode in modes)) for other in sides)
    return taken, checks, unjudged


def _few(coupling: Structure, whole: GraphNetwork, inputs: list[Tensor]) -> list[Tensor]:
    """Return the inputs with few samples, if the network takes so few."""
    fewer = with_batch(coupling, inputs, _FEW)
    if fewer is None:
        return inputs
    try:
        for mode in MODES:
            whole.mode(mode)[0].check(fewer)
    except InvalidInput:
        return inputs
    return fewer


def _others(coupling: Structure, inputs: Sequence[Tensor]) -> Iterator[Sequence[Tensor]]:
    """Yield calls in which all open sizes are others, then those in which the batch alone is."""
    more = with_batch(coupling, inputs, inputs[0].shape[0] + 1) if inputs[0].dim() else None
    yield from with_sides(coupling, more or inputs)
    if more is not None:
        yield more


def _compare_merging(coupling: Structure, state: Mapping[str, Tensor], seed: int) -> list[Check]:
    """Compare what merging gives of three workers, who share a part of every axis."""
    found = []
    try:
        shared = partition(coupling, 3, seed, 0, law_of("overlapping", core=0.25))
        for what, error in merging_errors(coupling, state, shared):
            found.append(Check(what, error, error == 0.0))
    except (InvalidInput, RuntimeError, IndexError) as failure:
        found.append(broken("merging", failure))
    return found
