"""Depth cuts: residual blocks as units. A worker without a block passes its input on."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import fx

from isthmus.nets import terms
from isthmus.nets.exported import ExportedGraph, module_path
from isthmus.nets.policy import Residual
from isthmus.nets.propagation import Propagation
from isthmus.nets.terms import Atom
from isthmus.nets.writes import writes


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
        for residual in residuals[mode]:
            if residual.graph is not exported.module.graph:
                continue
            removal, state = _removal(exported, residual)
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


def _removal(exported: ExportedGraph, residual: Residual) -> tuple[Removal, frozenset[str]]:
    graph = exported.module.graph
    nodes = list(graph.nodes)
    output = nodes[-1]
    written: dict[fx.Node, list[fx.Node]] = {}
    for writer, origin in writes(exported.module):
        written.setdefault(writer, []).append(origin)
    idle = [n for n in nodes if n.op == "call_function" and not n.users and n.all_input_nodes]
    effects = dict.fromkeys([*idle, *(n for n in nodes if n in written)])
    before = _reached([output, *effects], {})
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
    dead = before - live
    dead -= set(exported.input_nodes)  # the call keeps its inputs, needed or not
    users = exported.state_nodes
    lost = {name for node, name in users.items() if node in dead} - {n for node, n in users.items() if node in live}
    named = frozenset(name for name in lost if name not in exported.constants)
    return Removal(residual.node, residual.skip, frozenset(dead - {residual.node})), named


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
