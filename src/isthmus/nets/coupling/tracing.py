"""From a module and an example call to its coupling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from isthmus.errors import InvalidInput
from isthmus.nets import rules
from isthmus.nets.axes import terms
from isthmus.nets.axes.batch import batch_problem, check_batch
from isthmus.nets.axes.blocks import find_blocks
from isthmus.nets.axes.last_layer import find_last_layer
from isthmus.nets.axes.naming import build_axes
from isthmus.nets.axes.propagation import propagate
from isthmus.nets.axes.records import Dims, Propagation
from isthmus.nets.axes.residuals import find_residuals, tag_streams
from isthmus.nets.axes.structure import Axis
from isthmus.nets.axes.units import own_parameters
from isthmus.nets.coupling.coupling import Coupling
from isthmus.nets.graph.example import Example, example_of
from isthmus.nets.graph.export import export_graph
from isthmus.nets.graph.exported import MODES, ExportedGraph, Pinned, places_of
from isthmus.nets.graph.flow import flow_of
from isthmus.nets.graph.state import StateEntry, read_state
from isthmus.nets.pieces.shells import module_classes

assert rules.RULES  # the rules register themselves when they are imported

_LARGE_GRAPH = 20_000


def trace(
    model: nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    cut: Sequence[str | Axis] | None = None,
    verify: bool = False,
) -> Coupling:
    """Return which dimensions of which parameters of a network share the same units.

    The network is exported once in training and once in evaluation mode; on the meta device nothing is allocated.
    The model is not changed.

    Args:
        model: any ``nn.Module`` whose forward does not branch on values.
        args, kwargs: an example call; sizes of batch, sequence and image stay open where the model allows.
        cut: axes to cut instead of the default: kinds, names, patterns, axes.
        verify: also verify the trace, one cut and merging on two samples, and refuse if anything differs.

    Raises:
        InvalidInput: the network cannot be traced, the example is a single sample, ``cut`` matches
            nothing, or ``verify`` found a difference.

    >>> import torch
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> [(axis.name, axis.size, axis.kind) for axis in trace(net, (torch.zeros(3, 4),)).axes]
    [('0', 8, 'hidden')]
    """
    if not isinstance(model, nn.Module):
        raise InvalidInput(f"`model` must be a torch.nn.Module, got {type(model).__name__}")
    example = example_of(model, tuple(args), kwargs)
    entries = read_state(model)
    exports, dims, propagations = _read(model, example, entries)
    check_batch(exports["train"], propagations["train"], example)
    constants = {name: tensor for exported in exports.values() for name, tensor in exported.constants.items()}
    flows = {mode: flow_of(exported.module) for mode, exported in exports.items()}
    residuals = {mode: find_residuals(flows[mode], propagations[mode]) for mode in exports}
    for mode, found in residuals.items():
        tag_streams(found, propagations[mode])
    own = own_parameters(exports, propagations, entries)
    picks = [pick for propagation in propagations.values() for pick in propagation.picks]
    axes, whole = build_axes(entries, dims, find_blocks(exports, propagations, flows, residuals), picks, own)
    coupling = Coupling(
        axes=axes,
        whole=whole,
        entries=entries,
        dims=dims,
        constants=constants,
        exports=exports,
        propagations=propagations,
        example=example,
        classes=module_classes(model),
        fixed_inputs=_fixed_inputs(exports, propagations, dims),
        problems=_problems(exports, propagations),
        last=find_last_layer(entries, dims, exports, propagations, [axis.name for axis in axes]),
    )
    coupling = coupling if cut is None else coupling.select(cut)
    if verify:
        verdict = coupling.verify(model, args, kwargs, quick=True)
        if not verdict.passed:
            raise InvalidInput(f"`model` is not cut correctly: {verdict.summary()}")
    return coupling


def _to_close(exports: Mapping[str, ExportedGraph], propagations: Mapping[str, Propagation]) -> Pinned:
    places = (places_of(exports[mode], propagations[mode].pinned) for mode in exports)
    return frozenset[tuple[int, int]]().union(*places)


def _read(
    model: nn.Module, example: Example, entries: Mapping[str, StateEntry], closed: Pinned = frozenset()
) -> tuple[dict[str, ExportedGraph], dict[str, Dims], dict[str, Propagation]]:
    """Export both modes and analyse them over one set of dimensions; once more where open sizes have to be one number.

    Evaluation goes first, and is looked at alone: it costs less, and training need not find out again what to close.
    """
    canonical = {alias: entry.name for entry in entries.values() for alias in (entry.name, *entry.aliases)}
    exports: dict[str, ExportedGraph] = {}
    for mode in reversed(MODES):
        exports[mode] = _own_constants(export_graph(model, example, mode, canonical, closed), mode)
        closed |= exports[mode].given_up  # it would be no other in the other mode
        if pinned := _to_close({mode: exports[mode]}, _analysed({mode: exports[mode]}, entries)[1]):
            return _read(model, example, entries, closed | pinned)
    exports = {mode: exports[mode] for mode in MODES}
    dims, propagations = _analysed(exports, entries)
    if pinned := _to_close(exports, propagations):
        return _read(model, example, entries, closed | pinned)
    return exports, dims, propagations


def _analysed(
    exports: Mapping[str, ExportedGraph], entries: Mapping[str, StateEntry]
) -> tuple[dict[str, Dims], dict[str, Propagation]]:
    dims = _fresh_dims(entries, exports)
    return dims, {mode: propagate(exported, dims) for mode, exported in exports.items()}


def _own_constants(exported: ExportedGraph, mode: str) -> ExportedGraph:
    """Two graphs may give different constants the same name."""
    renamed = {name: f"{mode}:{name}" for name in exported.constants}
    constants = {renamed[name]: tensor for name, tensor in exported.constants.items()}
    return replace(exported, state=[renamed.get(name, name) for name in exported.state], constants=constants)


def _fresh_dims(entries: Mapping[str, StateEntry], exports: Mapping[str, ExportedGraph]) -> dict[str, Dims]:
    used = {name for exported in exports.values() for name in (*exported.used, *exported.mutated)}
    dims: dict[str, Dims] = {}
    for name, entry in entries.items():
        reason = None if name in used else "not used by the network's forward"
        if entry.shares_memory is not None:
            reason = f"shares memory with {entry.shares_memory}"
        if entry.sparse:
            reason = "a sparse tensor"
        if 0 in entry.shape:
            reason = "empty"
        dims[name] = tuple(terms.fresh(size, reason) for size in entry.shape)
    for exported in exports.values():
        dims |= {name: tuple(terms.fresh(size) for size in t.shape) for name, t in exported.constants.items()}
    return dims


def _fixed_inputs(
    exports: Mapping[str, ExportedGraph], propagations: Mapping[str, Propagation], dims: Mapping[str, Dims]
) -> tuple[str, ...]:
    """Say which sizes of the inputs a subnetwork is bound to, beside those that parameters have (input features)."""
    state = {leaf for entry in dims.values() for term in entry for leaf in terms.leaves(term)}
    found: dict[str, None] = {}
    for mode, exported in exports.items():
        inputs = exported.input_nodes
        for (i, d), size in exported.fixed.items():
            leaves = terms.leaves(propagations[mode].dims[inputs[i]][d])
            if leaves and not any(leaf in state for leaf in leaves):
                found[f"size fixed at tracing: input {i}, dimension {d}: {size}"] = None
    return tuple(found)


def _problems(exports: Mapping[str, ExportedGraph], propagations: Mapping[str, Propagation]) -> tuple[str, ...]:
    lines = dict.fromkeys(f"kept whole: {problem}" for a in propagations.values() for problem in a.problems)
    for name in dict.fromkeys(name for exported in exports.values() for name in exported.dropped):
        lines[f"result {name} is not made of tensors: a subnetwork returns None for it"] = None
    lines |= dict.fromkeys(note for exported in exports.values() for note in exported.notes)
    unbatched = batch_problem(exports["train"])
    if unbatched is not None:
        lines[unbatched] = None
    count = max(len(exported.module.graph.nodes) for exported in exports.values())
    if count > _LARGE_GRAPH:
        lines[f"the graph has {count} operators (a long loop unrolled?): every step will be slow"] = None
    return tuple(lines)
