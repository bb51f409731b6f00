"""Depth cuts: residual blocks as units. A worker without a block passes its input on."""

from __future__ import annotations

import itertools
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import fx

from isthmus.nets.axes import terms
from isthmus.nets.axes.policy import Residual
from isthmus.nets.axes.records import Propagation
from isthmus.nets.axes.terms import Atom
from isthmus.nets.graph.exported import ExportedGraph, module_path
from isthmus.nets.graph.writes import writes


@dataclass(frozen=True)
class Removal:
    """What leaves a graph with a block: ``node`` becomes ``skip`` and ``dead`` nodes go."""

    node: fx.Node
    skip: fx.Node
    dead: frozenset[fx.Node]


@dataclass(frozen=True)
class Block:
    """A residual block: the parameters and buffers only it uses, and how to remove it from each graph."""

    name: str
    state: frozenset[str]
    stream: Atom
    removals: Mapping[str, Removal]


def find_blocks(
    exports: Mapping[str, ExportedGraph],
    propagations: Mapping[str, Propagation],
    residuals: Mapping[str, Sequence[Residual]],
) -> list[Block]:
    """Return the residual blocks that all graphs have in common and that do not contain another one."""
    everywhere = set.intersection(*(exported.used for exported in exports.values()))
    found: dict[frozenset[str], dict[str, Removal]] = {}
    states: dict[frozenset[str], set[str]] = {}
    streams: dict[frozenset[str], Atom] = {}
    names: dict[frozenset[str], str] = {}
    for mode, exported in exports.items():
        survey = _Survey.of(exported)
        for residual in residuals[mode]:
            if residual.graph is not exported.module.graph:
                continue
            removal, state = _removal(survey, residual)
            stream = _stream(propagations[mode], residual)
            key = state & everywhere  # counters of batches are seen in training only
            if key and stream is not None:
                found.setdefault(key, {})[mode] = removal
                states.setdefault(key, set()).update(state)
                streams[key] = stream
                names[key] = _common_name(key) or module_path(residual.branch) or min(key)
    common = {key: removals for key, removals in found.items() if set(removals) == set(exports)}
    inner = [key for key in common if not any(other < key for other in common)]
    return [Block(names[key], frozenset(states[key]), streams[key], common[key]) for key in inner]


def hidden_residuals(exports: Mapping[str, ExportedGraph], residuals: Mapping[str, Sequence[Residual]]) -> int:
    """Return how many residual additions lie inside a region (autocast, no_grad), where blocks are not looked for."""
    graphs = {mode: exported.module.graph for mode, exported in exports.items()}
    return max(sum(r.graph is not graph for r in residuals[mode]) for mode, graph in graphs.items())


def _stream(propagation: Propagation, residual: Residual) -> Atom | None:
    leaves = [leaf for term in propagation.dims[residual.node] for leaf in terms.leaves(term)]
    return next((leaf for leaf in leaves if "stream" in leaf.tags and not _is_open(leaf)), None)


def _is_open(atom: Atom) -> bool:
    return terms.OPEN in atom.reasons


@dataclass(frozen=True)
class _Survey:
    """What the removals of all blocks of a graph look up.

    Attributes:
        exported, output: the graph, and the node of its results.
        written: what each operator that writes writes to.
        effects: operators that are there for what they do, not for a result.
        before: all nodes that are needed.
        inputs, names, named: the placeholders of inputs; what state each other takes; and those of each name.
    """

    exported: ExportedGraph
    output: fx.Node
    written: Mapping[fx.Node, list[fx.Node]]
    effects: Mapping[fx.Node, None]
    before: set[fx.Node]
    inputs: frozenset[fx.Node]
    names: Mapping[fx.Node, str]
    named: Mapping[str, list[fx.Node]]

    @classmethod
    def of(cls, exported: ExportedGraph) -> _Survey:
        """Look through a graph once."""
        nodes = list(exported.module.graph.nodes)
        written: dict[fx.Node, list[fx.Node]] = {}
        for writer, origin in writes(exported.module):
            written.setdefault(writer, []).append(origin)
        idle = [n for n in nodes if n.op == "call_function" and not n.users and n.all_input_nodes]
        effects = dict.fromkeys([*idle, *(n for n in nodes if n in written)])
        before = _reached([nodes[-1], *effects], {})
        named: dict[str, list[fx.Node]] = {}
        for node, name in exported.state_nodes.items():
            named.setdefault(name, []).append(node)
        inputs, names = frozenset(exported.input_nodes), exported.state_nodes
        return cls(exported, nodes[-1], written, effects, before, inputs, names, named)


def _removal(survey: _Survey, residual: Residual) -> tuple[Removal, frozenset[str]]:
    dead = set(_dead(survey, residual) if survey.effects else _unneeded(residual, survey.before))
    dead -= survey.inputs  # the call keeps its inputs, needed or not
    lost = {survey.names[node] for node in dead if node in survey.names}
    lost = {name for name in lost if all(node in dead or node not in survey.before for node in survey.named[name])}
    named = frozenset(name for name in lost if name not in survey.exported.constants)
    return Removal(residual.node, residual.skip, frozenset(dead - {residual.node})), named


def _unneeded(residual: Residual, before: Container[fx.Node]) -> set[fx.Node]:
    """Return the nodes that only the branch needed, from the branch up; for graphs without operators that write."""
    dead: set[fx.Node] = set()
    stack = [node for node in residual.node.all_input_nodes if node is not residual.skip]
    while stack:
        node = stack.pop()
        needed = (user for user in node.users if user is not residual.node or node is residual.skip)
        if node not in dead and not any(user in before and user not in dead for user in needed):
            dead.add(node)
            stack.extend(node.all_input_nodes)
    return dead


def _dead(survey: _Survey, residual: Residual) -> set[fx.Node]:
    """Return the nodes that are not needed without the branch."""
    output, written, effects = survey.output, survey.written, survey.effects
    instead = {residual.node: [residual.skip]}
    live = _reached([output], instead)
    branch = _reached([residual.node], {}) - live
    paths = {module_path(n) for n in branch if n.op == "call_function"}
    paths -= {module_path(n) for n in live if n.op == "call_function"}

    def stays(effect: fx.Node) -> bool:
        """Whether an operator that is there for what it does, not for its result, is not the removed block's own."""
        made = [origin for origin in written.get(effect, []) if origin.op == "call_function"]
        if made:  # it fills in a tensor: needed where that is
            return any(origin in live for origin in made)
        return module_path(effect) not in paths and not _reached([effect], instead) & branch

    waiting = list(effects)
    while staying := [effect for effect in waiting if stays(effect)]:  # what one needs, another may fill in
        live |= _reached(staying, instead)
        waiting = [effect for effect in waiting if effect not in live]
    return survey.before - live


def _reached(roots: Iterable[fx.Node], instead: Mapping[fx.Node, list[fx.Node]]) -> set[fx.Node]:
    stack, seen = list(roots), set(roots)
    while stack:
        node = stack.pop()
        for source in instead.get(node, node.all_input_nodes):
            if source not in seen:
                seen.add(source)
                stack.append(source)
    return seen


def _common_name(state: Iterable[str]) -> str:
    paths = [name.split(".")[:-1] for name in state]
    level = zip(*paths, strict=False)
    prefix = [parts[0] for parts in itertools.takewhile(lambda parts: len(set(parts)) == 1, level)]
    return ".".join(prefix)
