"""What each node of a graph is computed from, across the borders of its regions (autocast, no_grad)."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx

_REGION = "wrap_with_"


@dataclass(frozen=True)
class Flow:
    """The nodes of a graph and of the graphs of its regions as one graph.

    Attributes:
        nodes: each after those it is computed from.
        sources: what each is computed from. What a region takes comes from outside, what it returns from inside; its
            call is a source of all of it, and is itself computed from nothing.
        users: the other way round.
    """

    nodes: Sequence[fx.Node]
    sources: Mapping[fx.Node, Sequence[fx.Node]]
    users: Mapping[fx.Node, Sequence[fx.Node]]

    def same(self, node: fx.Node) -> fx.Node | None:
        """Return what a node only passes on: across the border of a region, what it takes or returns; else None."""
        if node.op == "placeholder" or node.target is operator.getitem:
            first = self.sources[node][:1]
            crossed = node.op == "placeholder" or bool(first and first[0] is not node.args[0])
            return first[0] if first and crossed else None
        return None

    def origin(self, node: fx.Node) -> fx.Node:
        """Return the node that computes what a node is, wherever it was passed on from."""
        while (before := self.same(node)) is not None:
            node = before
        return node


def flow_of(module: fx.GraphModule) -> Flow:
    """Return the flow of a graph."""
    sources: dict[fx.Node, list[fx.Node]] = {}
    _enter(module, sources)
    users: dict[fx.Node, list[fx.Node]] = {node: [] for node in sources}
    for node, found in sources.items():
        for source in found:
            users[source].append(node)
    return Flow(tuple(sources), sources, users)


@dataclass(frozen=True)
class Region:
    """A part of a graph that runs under a setting: its graph, the name of that, and what is given to it."""

    name: str
    graph: fx.GraphModule
    given: Sequence[Any]


def region_of(module: fx.GraphModule, node: fx.Node) -> Region | None:
    """Return the region that a node calls; None if it calls none."""
    if node.op != "call_function" or not str(node.target).startswith(_REGION):
        return None
    position = next(i for i, each in enumerate(node.args) if isinstance(each, fx.Node) and each.op == "get_attr")
    name = str(node.args[position].target)  # type: ignore[union-attr]
    return Region(name, getattr(module, name), node.args[position + 1 :])


def placeholders(module: fx.GraphModule) -> list[fx.Node]:
    """Return the nodes that take what a graph is called with."""
    return [node for node in module.graph.nodes if node.op == "placeholder"]


def results(module: fx.GraphModule) -> Sequence[Any]:
    """Return what a graph returns."""
    returned: Any = next(iter(reversed(module.graph.nodes))).args[0]
    return returned if isinstance(returned, (tuple, list)) else (returned,)


def _enter(
    module: fx.GraphModule,
    sources: dict[fx.Node, list[fx.Node]],
    call: fx.Node | None = None,
    given: Sequence[Any] = (),
) -> None:
    """Note what each node of a graph is computed from; ``call`` and ``given`` are those of a region."""
    operands = iter(given)
    returned: dict[fx.Node, Sequence[Any]] = {}
    for node in module.graph.nodes:
        if call is not None and node.op == "output":
            break  # who reads it reads what it returns
        found = [each for source in node.all_input_nodes for each in _read(node, source, returned)]
        if call is not None and node.op == "placeholder":
            found = [each for each in (next(operands),) if isinstance(each, fx.Node)]
        if call is not None and not node.all_input_nodes:
            found.append(call)
        inner = region_of(module, node)
        if inner is None:
            sources[node] = found
            continue
        sources[node] = [each for each in node.all_input_nodes if each.op == "get_attr"]
        _enter(inner.graph, sources, node, inner.given)
        returned[node] = results(inner.graph)


def _read(node: fx.Node, source: fx.Node, returned: Mapping[fx.Node, Sequence[Any]]) -> list[fx.Node]:
    """Return what a node reads of one of its operands: of a region's call the results it takes."""
    if source not in returned:
        return [source]
    all_of = returned[source]
    taken = [all_of[node.args[1]]] if node.target is operator.getitem else all_of  # type: ignore[index]
    return [*(each for each in taken if isinstance(each, fx.Node)), source]
