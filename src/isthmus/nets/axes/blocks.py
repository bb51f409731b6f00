"""Depth cuts: residual blocks as units. A worker without a block passes its input on."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from torch import fx

from isthmus.nets.axes import terms
from isthmus.nets.axes.records import Propagation
from isthmus.nets.axes.residuals import Residual, stacks
from isthmus.nets.axes.terms import Atom
from isthmus.nets.graph.exported import ExportedGraph, module_path
from isthmus.nets.graph.flow import Flow
from isthmus.nets.graph.writes import writes


@dataclass(frozen=True)
class Removal:
    """What leaves a graph with a block: ``node`` becomes ``skip`` and ``dead`` nodes go.

    ``branch`` computes what was added, in a region if that is where it comes from.
    """

    node: fx.Node
    skip: fx.Node
    branch: fx.Node
    dead: frozenset[fx.Node]


@dataclass(frozen=True)
class Block:
    """A residual block.

    Attributes:
        name: the submodule it is.
        state: the parameters and buffers only it uses.
        stream, stack: the axis its additions run along, and the number of the chain of blocks it is one of.
        removals: how to remove it from each graph.
        shortcut: the submodule of the projection that stays where the block goes; "" if nothing stays.
    """

    name: str
    state: frozenset[str]
    stream: Atom
    stack: int
    removals: Mapping[str, Removal]
    shortcut: str = ""


@dataclass
class _Candidate:
    """A block as far as it is found: what :class:`Block` says of it, by state that all graphs use."""

    residual: Residual
    stream: Atom
    stack: int
    shortcut: str
    state: set[str] = field(default_factory=set)
    removals: dict[str, Removal] = field(default_factory=dict)


def find_blocks(
    exports: Mapping[str, ExportedGraph],
    propagations: Mapping[str, Propagation],
    flows: Mapping[str, Flow],
    residuals: Mapping[str, Sequence[Residual]],
) -> list[Block]:
    """Return the residual blocks that all graphs have in common and that do not contain another one.

    A block whose shortcut is a projection leaves that behind. It is one only where it lies in no other.
    """
    everywhere = set.intersection(*(exported.used for exported in exports.values()))
    found: dict[frozenset[str], _Candidate] = {}
    for mode, exported in exports.items():
        survey, stack = _Survey.of(exported, flows[mode]), stacks(flows[mode], propagations[mode], residuals[mode])
        for residual in residuals[mode]:
            stream = _stream(propagations[mode], residual)
            removal, state = _removal(survey, residual) if stream is not None else (None, frozenset[str]())
            key = state & everywhere  # counters of batches are seen in training only
            if key and stream is not None and removal is not None:
                new = _Candidate(residual, stream, stack[residual.node], _shortcut(survey, residual))
                candidate = found.setdefault(key, new)
                candidate.removals[mode] = removal
                candidate.state |= state
    common = {key: each for key, each in found.items() if set(each.removals) == set(exports)}
    plain = [key for key, each in common.items() if not each.residual.projected]
    inner = [key for key, each in common.items() if not any(_within(each, key, other) for other in plain)]
    return [_block(key, common[key]) for key in inner]


def _within(candidate: _Candidate, key: frozenset[str], other: frozenset[str]) -> bool:
    """Whether another block is the one to count: a smaller one, or any that shares state with one with a projection."""
    return bool(other & key) if candidate.residual.projected else other < key


def _block(key: frozenset[str], found: _Candidate) -> Block:
    name = _common_name(key) or module_path(found.residual.branch) or min(key)
    return Block(name, frozenset(found.state), found.stream, found.stack, found.removals, found.shortcut)


def _shortcut(survey: _Survey, residual: Residual) -> str:
    """Return the submodule of a projection."""
    if not residual.projected:
        return ""
    way = _reached(survey.flow.sources, [residual.skip], {residual.source: []})
    names = [survey.names[node] for node in way if node in survey.names]
    return _common_name(names) or module_path(residual.skip) or min(names)


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
        paths: the submodule in which each operator was called.
    """

    exported: ExportedGraph
    flow: Flow
    output: fx.Node
    written: Mapping[fx.Node, list[fx.Node]]
    effects: Mapping[fx.Node, None]
    before: set[fx.Node]
    inputs: frozenset[fx.Node]
    names: Mapping[fx.Node, str]
    named: Mapping[str, list[fx.Node]]
    paths: Mapping[fx.Node, str]

    @classmethod
    def of(cls, exported: ExportedGraph, flow: Flow) -> _Survey:
        """Look through a graph once."""
        nodes = flow.nodes
        written: dict[fx.Node, list[fx.Node]] = {}
        for writer, origin in writes(exported.module):
            written.setdefault(writer, []).append(origin)
        idle = [n for n in nodes if n.op == "call_function" and not flow.users[n] and n.all_input_nodes]
        effects = dict.fromkeys([*idle, *(n for n in nodes if n in written)])
        before = _reached(flow.sources, [nodes[-1], *effects])
        named: dict[str, list[fx.Node]] = {}
        for node, name in exported.state_nodes.items():
            named.setdefault(name, []).append(node)
        inputs, names = frozenset(exported.input_nodes), exported.state_nodes
        paths = {node: module_path(node) for node in nodes if node.op == "call_function"}
        return cls(exported, flow, nodes[-1], written, effects, before, inputs, names, named, paths)


def _removal(survey: _Survey, residual: Residual) -> tuple[Removal | None, frozenset[str]]:
    dead = set(_dead(survey, residual) if survey.effects else _unneeded(survey, residual))
    dead -= survey.inputs  # the call keeps its inputs, needed or not
    sources = survey.flow.sources
    if residual.projected and not any(residual.source in sources[node] for node in dead):
        return None, frozenset()  # the branch comes from something else, which comes from that
    lost = {survey.names[node] for node in dead if node in survey.names}
    lost = {name for name in lost if all(node in dead or node not in survey.before for node in survey.named[name])}
    named = frozenset(name for name in lost if name not in survey.exported.constants)
    branch = residual.branch
    while len(branch.users) == 1 and (inside := survey.flow.same(branch)) is not None:
        branch = inside
    return Removal(residual.node, residual.skip, branch, frozenset(dead - {residual.node})), named


def _unneeded(survey: _Survey, residual: Residual) -> set[fx.Node]:
    """Return the nodes that only the branch needed, from the branch up; for graphs without operators that write."""
    flow, before = survey.flow, survey.before
    dead: set[fx.Node] = set()
    stack = [node for node in flow.sources[residual.node] if node is not residual.skip]
    while stack:
        node = stack.pop()
        needed = (user for user in flow.users[node] if user is not residual.node or node is residual.skip)
        if node not in dead and not any(user in before and user not in dead for user in needed):
            dead.add(node)
            stack.extend(flow.sources[node])
    return dead


def _dead(survey: _Survey, residual: Residual) -> set[fx.Node]:
    """Return the nodes that are not needed without the branch."""
    written, flow, paths = survey.written, survey.flow, survey.paths
    instead = {residual.node: [residual.skip]}
    live = _reached(flow.sources, [survey.output], instead)
    branch = _reached(flow.sources, [residual.node]) - live
    own = {paths[n] for n in branch if n in paths} - {paths[n] for n in live if n in paths}
    after = _reached(flow.users, branch, {n: [u for u in flow.users[n] if u is not residual.node] for n in branch})

    def stays(effect: fx.Node) -> bool:
        """Whether an operator that is there for what it does, not for its result, is not the removed block's own."""
        made = [origin for origin in written.get(effect, []) if origin.op == "call_function"]
        if made:  # it fills in a tensor: needed where that is
            return any(origin in live for origin in made)
        return paths[effect] not in own and effect not in after

    waiting = list(survey.effects)
    while staying := [effect for effect in waiting if stays(effect)]:  # what one needs, another may fill in
        live = _reached(flow.sources, staying, instead, live)
        waiting = [effect for effect in waiting if effect not in live]
    return survey.before - live


def _reached(
    edges: Mapping[fx.Node, Sequence[fx.Node]],
    roots: Iterable[fx.Node],
    instead: Mapping[fx.Node, Sequence[fx.Node]] = MappingProxyType({}),
    known: Iterable[fx.Node] = (),
) -> set[fx.Node]:
    """Return the roots and what edges lead to from them, with other edges of some nodes, and what is known already."""
    stack, seen = list(roots), {*roots, *known}
    while stack:
        node = stack.pop()
        for other in instead.get(node, edges[node]):
            if other not in seen:
                seen.add(other)
                stack.append(other)
    return seen


def _common_name(state: Iterable[str]) -> str:
    paths = [name.split(".")[:-1] for name in state]
    level = zip(*paths, strict=False)
    prefix = [parts[0] for parts in itertools.takewhile(lambda parts: len(set(parts)) == 1, level)]
    return ".".join(prefix)
