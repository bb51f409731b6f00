"""The last layer of a network: whether its rows can be cut by class, and if not, why."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import chain, count
from typing import Any

from torch import Tensor, fx

from isthmus.nets.axes import terms
from isthmus.nets.axes.naming import member_of
from isthmus.nets.axes.records import Dims, Propagation
from isthmus.nets.axes.structure import Axis, LastLayer
from isthmus.nets.axes.terms import Atom, Term
from isthmus.nets.graph.exported import ExportedGraph
from isthmus.nets.graph.state import StateEntry

_RETURNED = "returned by the network"
_WHY = "class-cut alone"


def find_last_layer(
    entries: Mapping[str, StateEntry],
    dims: Mapping[str, Dims],
    exports: Mapping[str, ExportedGraph],
    propagations: Mapping[str, Propagation],
    taken: Collection[str] = (),
) -> LastLayer:
    """Return the last layer of a network: units of parameters that are its scores, one by one, and nothing else.

    Args:
        entries, dims: parameters and buffers, and the term of every dimension of each.
        exports, propagations: of both modes.
        taken: names of other axes.
    """
    found = {mode: _scores(exported, propagations[mode]) for mode, exported in exports.items()}
    atoms = {terms.resolve(term) for term in found.values() if term is not None}
    if None in found.values():
        return LastLayer(None, "its first result is no tensor of scores, [samples, ..., classes]")
    atom = atoms.pop()
    if atoms:
        return LastLayer(None, "its scores are not the rows of one layer")
    if not isinstance(atom, Atom):
        return LastLayer(None, "its scores are put together from several layers")
    other = next((reason for reason in atom.reasons if not reason.startswith(_RETURNED)), None)
    if other is not None:
        return LastLayer(None, f"its scores are {other}")
    places = [(name, dim) for name in entries for dim, term in enumerate(dims[name]) if atom in terms.leaves(term)]
    if not any(entries[name].is_parameter and dim == 0 for name, dim in places):
        return LastLayer(None, "its scores are rows of no parameter")
    if any(terms.resolve(dims[name][dim]) is not atom for name, dim in places):
        return LastLayer(None, "its scores are only a part of a parameter's rows")
    members = tuple(member_of(name, dim, dims[name][dim], atom) for name, dim in places)
    parameter = next(member.name for member in members if entries[member.name].is_parameter and member.dim == 0)
    base = parameter.rpartition(".")[0] or parameter
    candidates = chain((base, f"{base}.class"), (f"{base}.class{i}" for i in count(2)))
    name = next(name for name in candidates if name not in taken)
    return LastLayer(Axis(name, int(atom.size), "class", members, False, _WHY, atom=atom))


def _scores(exported: ExportedGraph, propagation: Propagation) -> Term | None:
    """Return the last dimension of what is returned first."""
    output = next(node for node in exported.module.graph.nodes if node.op == "output")
    results: list[Any] = list(output.args[0])[len(exported.mutated) :]
    first = results[0] if results else None
    value = first.meta.get("val") if isinstance(first, fx.Node) else None
    if not isinstance(value, Tensor) or value.dim() < 2 or not value.is_floating_point():
        return None
    dims = propagation.dims.get(first)  # type: ignore[arg-type]
    return dims[-1] if isinstance(dims, tuple) and isinstance(terms.size(dims[-1]), int) else None
