"""Whether a traced network does what the network itself does: results of any form, gradients, buffers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor, nn
from torch.func import functional_call

from isthmus.nets.axes.structure import Structure
from isthmus.nets.check.outcome import Outcome, compared, gradients, nudged
from isthmus.nets.check.verdict import Check, Unjudged
from isthmus.nets.graph.results import opened
from isthmus.nets.graph.traceable import all_run
from isthmus.nets.pieces.subnetwork import build

# The same operators in the same order give the same bits, but for kernels that torch chooses by the hour.
_TOLERANCES = {"outputs": 1e-4, "gradients": 1e-3, "buffers": 1e-4}
_PLAIN = (int, float, bool, str, type(None))


class NotRun(Exception):
    """A call that a network does not take, and what it says."""


class NotTraced(NotRun):
    """A call that the network takes and the traced one refuses, and what it says."""


class _NoBackward(NotRun):
    """A call that can be made and not differentiated."""


def against_model(
    coupling: Structure,
    model: nn.Module,
    state: Mapping[str, Tensor],
    mode: str,
    inputs: Sequence[Tensor],
    label: str,
) -> list[Check]:
    """Compare the traced whole with the network itself, in numbers of their own type.

    Args:
        coupling, model: the traced network, and the network.
        state: its parameters and buffers.
        mode: train or eval.
        inputs: tensors of the call.
        label: of the call, for messages.

    Raises:
        NotRun: the network does not take such a call.
        NotTraced: it does, and the traced one does not.
        Unjudged: it returns nothing that can be compared, or not the same when it is called again.
    """

    def traced(state: Mapping[str, Tensor], inputs: Sequence[Tensor]) -> tuple[Outcome, list[Any], Any]:
        piece = build(state, coupling, {}).module
        return _called(piece, coupling, mode, inputs, lambda: {n: b for n, b in piece.named_buffers() if n in names})

    def itself() -> tuple[Outcome, list[Any], Any]:
        changing = {name: buffer.clone() for name, buffer in model.named_buffers()}  # forward may write to them
        with all_run(model):  # as the trace does, and says
            return _called(model, coupling, mode, inputs, lambda: {n: changing[n] for n in names}, changing)

    names = [name for name, entry in coupling.entries.items() if not entry.is_parameter]
    try:
        theirs, leaves, form = itself()
    except _NoBackward as failure:  # it keeps results of an earlier call, whose graph is gone
        return [Check(f"the network itself cannot be run and differentiated twice ({failure})", float("inf"), False)]
    if not any(output.numel() and bool(output.isfinite().any()) for output in theirs.outputs):
        raise Unjudged(f"it returns no tensor with a finite number ({label}): there is nothing to compare")
    try:
        mine, own_leaves, own_form = traced(state, inputs)
    except NotRun as failure:
        raise NotTraced(str(failure)) from failure
    if not (form == own_form and all(map(_same_leaf, own_leaves, leaves))):
        return [Check(f"the traced network against the model, what it returns ({label})", float("inf"), False)]

    def again() -> Outcome:
        twice = itself()[0].errors(theirs)
        if any(twice[part] > limit for part, limit in _TOLERANCES.items()):
            raise Unjudged(f"it does not give the same when it is called again ({label}), torch's generator set anew")
        generator = torch.Generator().manual_seed(0)
        moved = dict(zip(state, nudged(list(state.values()), generator), strict=True))
        return traced(moved, nudged(inputs, generator))[0]

    what = "the traced network against the model, {} ({})"
    return compared(mine, theirs, _TOLERANCES, lambda part: what.format(part, label), again)


def unseen(coupling: Structure) -> tuple[str, ...]:
    """Return what of a network's results a piece does not have, so that nobody can compare it."""
    return tuple(dict.fromkeys(f"result {name}" for each in coupling.exports.values() for name in each.dropped))


def _called(
    module: nn.Module,
    coupling: Structure,
    mode: str,
    inputs: Sequence[Tensor],
    buffers: Callable[[], Mapping[str, Tensor]],
    changing: dict[str, Tensor] | None = None,
) -> tuple[Outcome, list[Any], Any]:
    """Call a network; return what it gives, and the leaves and the form of its result."""
    args, kwargs = coupling.example.call(inputs)
    parameters = {n: p for n, p in module.named_parameters(remove_duplicate=False) if n in coupling.entries}
    with _in_mode(module, mode), torch.random.fork_rng(devices=()), torch.enable_grad():
        torch.manual_seed(0)  # all draw the same random numbers
        try:
            result = functional_call(module, {} if changing is None else changing, args, kwargs)
        except Exception as failure:  # whatever a user's forward may raise
            raise NotRun(_said(failure)) from failure
        leaves, form = pytree.tree_flatten(opened(result))
        outputs = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        try:
            found = gradients(outputs, parameters)
        except RuntimeError as failure:
            raise _NoBackward(_said(failure)) from failure
    return Outcome([output.detach() for output in outputs], found, buffers()), leaves, form


def _said(failure: Exception) -> str:
    return f"{type(failure).__name__}: {' '.join(str(failure).split())[:120]}".split(". ")[0]


def _same_leaf(mine: Any, theirs: Any) -> bool:
    """Whether a leaf of the traced network's result is that of the network's; tensors are compared by themselves."""
    if isinstance(mine, Tensor) or isinstance(theirs, Tensor):
        return isinstance(mine, Tensor) and isinstance(theirs, Tensor)
    if not isinstance(theirs, _PLAIN):
        return mine is None  # nothing a graph can return: the trace says so
    return bool(mine == theirs)


@contextmanager
def _in_mode(module: nn.Module, mode: str) -> Iterator[None]:
    flags = {each: each.training for each in module.modules()}
    try:
        module.train(mode == "train")
        yield
    finally:
        for each, flag in flags.items():
            each.training = flag
