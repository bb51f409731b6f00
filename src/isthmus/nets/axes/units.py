"""Experts that a network computes one by one: what of a graph belongs to which of them.

A node that takes one place of an axis by number (``scores[:, 3]``, ``chosen == 3``) belongs to that unit, and so does
all that is computed from it, up to where it is added to what does not belong to it. Of a unit that a worker lacks
nothing is left: not its nodes, not what only they use, not its parameters; what it was added to goes on without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import fx

from isthmus.nets.axes import terms
from isthmus.nets.axes.call import operator_name
from isthmus.nets.axes.records import Place, Propagation
from isthmus.nets.axes.residuals import same_shape
from isthmus.nets.axes.terms import Atom, Indices
from isthmus.nets.graph.exported import ExportedGraph
from isthmus.nets.graph.state import StateEntry
from isthmus.nets.graph.writes import writes

Marks = dict[Atom, frozenset[int]]
_INTO = {"index_add": 1, "index_put": 1, "scatter_add": 1}  # what they write into comes first
_MEET = "its units are not added up one by one"
_WRITTEN = "one unit of it is written to in place"


@dataclass
class Belongings:
    """What of one graph belongs to one unit of an axis.

    Attributes:
        marks: for each node the units it is computed from, by axis.
        owned: for each node that is used for one unit alone the axis and the unit.
        links: for two axes the pairs of units that are used together.
    """

    marks: dict[fx.Node, Marks] = field(default_factory=dict)
    owned: dict[fx.Node, tuple[Atom, int]] = field(default_factory=dict)
    links: dict[tuple[Atom, Atom], set[tuple[int, int]]] = field(default_factory=dict)


def own_parameters(
    exports: Mapping[str, ExportedGraph], propagations: Mapping[str, Propagation], entries: Mapping[str, StateEntry]
) -> dict[Atom, tuple[frozenset[str], ...]]:
    """Return for each axis computed unit by unit the parameters and buffers of each unit alone.

    Axes whose units meet otherwise than in a sum are kept whole. Axes that are always used at the same places are one.
    """
    for propagation in propagations.values():
        for place in propagation.places:
            if place.unit is None:
                terms.freeze(place.term, "selected by position")
    while any(_link(_belongings(exports[mode], propagations[mode])) for mode in exports):
        pass
    found: dict[Atom, list[set[str]]] = {}
    shared: set[str] = set()
    for mode, exported in exports.items():
        owned = _belongings(exported, propagations[mode]).owned
        for node, name in exported.state_nodes.items():
            if node in owned and name in entries:
                atom, unit = owned[node]
                found.setdefault(atom, [set() for _ in range(int(atom.size))])[unit].add(name)
            elif node.users:
                shared.add(name)
    result = {}
    for atom, units in found.items():
        mine = tuple(frozenset(names - shared) for names in units)
        result[atom] = mine
        if all(any(entries[name].is_parameter and len(entries[name].shape) > 1 for name in names) for names in mine):
            atom.tags.add("matrices")
    return result


def lacking(
    graph: fx.Graph, places: Sequence[Place], kept: Mapping[Atom, Indices]
) -> tuple[set[fx.Node], dict[fx.Node, fx.Node]]:
    """Return the nodes that go with the units that are not kept, and for those that stand for another node that one."""
    missing = {place.node for place in places if place.number(kept) is None}
    dead: set[fx.Node] = set()
    instead: dict[fx.Node, fx.Node] = {}
    if not missing:
        return dead, instead
    for node in graph.nodes:
        if node.op != "call_function":
            continue
        gone = [each for each in node.all_input_nodes if each in dead]
        rest = _added_to(node, gone)
        if node in missing or (gone and rest is None):
            dead.add(node)
        elif rest is not None:
            instead[node] = rest
    for node in reversed(list(graph.nodes)):
        users = [user for user in node.users if user not in dead and instead.get(user, node) is node]
        if node.op in ("call_function", "placeholder") and node.users and not users and node not in dead:
            dead.add(node)
    return dead, {node: other for node, other in instead.items() if node not in dead}


def _added_to(node: fx.Node, gone: Sequence[fx.Node]) -> fx.Node | None:
    """Return what is left of a sum without some of its operands; None if it is no sum, if all of it is gone, or if the
    rest has another shape or type than the sum: then it is what is added, as a bias is."""
    rest = _rest(node, gone) if gone else None
    if rest is None or rest in gone or not same_shape(rest, node):
        return None
    return rest if rest.meta["val"].dtype == node.meta["val"].dtype else None


def _rest(node: fx.Node, gone: Sequence[fx.Node]) -> fx.Node | None:
    name = operator_name(node).removeprefix("aten.").rstrip("_")
    into = node.args[0] if node.args else None
    if name in _INTO:
        return into if isinstance(into, fx.Node) else None
    if name == "where" and len(node.args) == 3:
        other = node.args[2]
        return other if isinstance(other, fx.Node) and node.args[0] in gone else None
    rest = [each for each in node.all_input_nodes if each not in gone] if name == "add" else []
    return rest[0] if len(rest) == 1 else None


def _belongings(exported: ExportedGraph, propagation: Propagation) -> Belongings:
    found = Belongings()
    taken: dict[fx.Node, list[Place]] = {}
    for place in propagation.places:
        taken.setdefault(place.node, []).append(place)
    written: dict[fx.Node, list[fx.Node]] = {}
    for writer, origin in writes(exported.module):
        written.setdefault(writer, []).append(origin)
    for node in exported.module.graph.nodes:
        if node.op == "output":
            for each in node.all_input_nodes:
                _freeze(found.marks.get(each, {}), "one unit of it is returned by the network")
            break
        marks = found.marks[node] = _marks(node, found)
        for place in taken.get(node, ()):
            if place.unit is not None and not place.unit[0].reasons:
                atom, unit = place.unit
                marks[atom] = frozenset((unit,)) | marks.get(atom, frozenset())
        for origin in written.get(node, ()):  # of one unit, into what others read too
            _freeze({atom: units for atom, units in marks.items() if atom not in found.marks.get(origin, {})}, _WRITTEN)
        for atom, units in list(marks.items()):
            if atom.reasons:
                del marks[atom]
            for other, others in marks.items():
                if len(units) == len(others) == 1 and other is not atom and atom in marks:
                    found.links.setdefault((atom, other), set()).add((min(units), min(others)))
    for node in reversed(list(exported.module.graph.nodes)):
        owners = {_owner(user, found) for user in node.users}
        if len(owners) == 1 and None not in owners and not found.marks.get(node):
            found.owned[node] = owners.pop()  # type: ignore[assignment]
    return found


def _owner(node: fx.Node, found: Belongings) -> tuple[Atom, int] | None:
    single = [(atom, *units) for atom, units in found.marks.get(node, {}).items() if len(units) == 1]
    return single[0] if single else found.owned.get(node)  # type: ignore[return-value]


def _marks(node: fx.Node, found: Belongings) -> Marks:
    """Return the units that a node is computed from."""
    marks: Marks = {}
    inputs = [found.marks.get(each, {}) for each in node.all_input_nodes]
    for atom in {atom for each in inputs for atom in each}:
        marked = [each for each in node.all_input_nodes if atom in found.marks.get(each, {})]
        sets = {found.marks[each][atom] for each in marked}
        together = frozenset().union(*sets)
        if _added_to(node, marked) is not None:  # added to what is there in any case
            continue
        if len(sets) == 1 and len(together) == 1:
            marks[atom] = together
        elif operator_name(node) in ("aten.add", "aten.add_") and len(marked) == len(node.all_input_nodes):
            if len(together) < int(atom.size):
                marks[atom] = together
        else:
            _freeze({atom: together}, f"{_MEET} ({operator_name(node)})")
    return marks


def _freeze(marks: Marks, reason: str) -> None:
    for atom in marks:
        atom.reasons[reason] = None


def _link(found: Belongings) -> bool:
    """Make two axes one if their units are used in pairs of the same number; return whether there were such."""
    for (one, other), pairs in found.links.items():
        alike = pairs == {(unit, unit) for unit in range(int(one.size))}
        if alike and one.size == other.size and ("routed" in one.tags) != ("routed" in other.tags):
            terms.unify(one, other)
            return True
    return False
