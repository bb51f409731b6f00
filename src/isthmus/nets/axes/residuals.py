"""Residual connections: where a branch is added to what it came from, and which of these follow one another."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import fx

from isthmus.nets.axes import terms
from isthmus.nets.axes.records import Propagation
from isthmus.nets.graph.flow import Flow

_NUMBERS = (int, float, bool, torch.SymInt, torch.SymFloat, torch.SymBool)
_ADDS = (torch.ops.aten.add.Tensor, torch.ops.aten.add_.Tensor)


@dataclass(frozen=True)
class Residual:
    """An addition of a branch to what the branch came from.

    Attributes:
        node, skip, branch: the addition and its operands.
        source: what the branch came from: the skip itself, or what the skip is a projection of.
    """

    node: fx.Node
    skip: fx.Node
    branch: fx.Node
    source: fx.Node

    @property
    def projected(self) -> bool:
        """Whether the shortcut is a projection: one weight on the way."""
        return self.source is not self.skip


def find_residuals(flow: Flow, propagation: Propagation) -> list[Residual]:
    """Return the residual additions: one operand is an ancestor of the other, with a product on the way.

    (A hand-written activation such as x + 0.04 x**3 adds to itself too, but without a product.) Where neither is, but
    one is made by a single weight, and the other by two or more, of the same, the one is a projection shortcut. What is
    added in several layers and is the same for all samples (a bias by relative position) is no stream, though all but
    the first of these layers come from it too.
    """
    found, others = [], []
    through = _ancestors(flow, {c.node for c in propagation.contractions if c.kind != "sum"}, 1)
    sums = list(_sums(flow))
    biases = _biases(flow, propagation, sums, through)
    for node, a, b in sums:
        if flow.origin(a) in through[b] and flow.origin(a) not in biases:
            found.append(Residual(node, a, b, a))
        elif flow.origin(b) in through[a] and flow.origin(b) not in biases:
            found.append(Residual(node, b, a, b))
        else:
            others += [(node, a, b), (node, b, a)]
    found += _projected(flow, propagation, others)
    order = {node: number for number, node in enumerate(flow.nodes)}
    return sorted(found, key=lambda residual: order[residual.node])


def tag_streams(residuals: Iterable[Residual], propagation: Propagation) -> None:
    """Tag the axes that residual connections run along; one with a projection makes no stream by itself."""
    for residual in residuals:
        for term in () if residual.projected else propagation.dims[residual.node]:
            terms.tag(term, "stream")


def stacks(flow: Flow, propagation: Propagation, residuals: Iterable[Residual]) -> dict[fx.Node, int]:
    """Return for each residual addition the number of its stack: those that lead to one another without a weight.

    What an encoder and a decoder hold may have one width (a shared embedding); they are two stacks all the same.
    """
    weights = _weights(propagation)
    additions = {residual.node: residual for residual in residuals}
    number: dict[fx.Node, int] = {}
    before: dict[fx.Node, fx.Node | None] = {}  # the last addition that a node comes from without a weight
    for node in flow.nodes:
        if node in additions:
            skip = additions[node]
            last = before.get(skip.source) or before.get(skip.skip)
            number[node] = len(number) if last is None else number[last]
            before[node] = node
        elif node not in weights:
            inputs = (before.get(each) for each in flow.sources[node])
            before[node] = next((each for each in inputs if each is not None), None)
    return number


def _sums(flow: Flow) -> Iterator[tuple[fx.Node, fx.Node, fx.Node]]:
    """Yield the additions of two tensors of one shape."""
    for node in flow.nodes:
        if node.target in _ADDS:
            a, b = (each if isinstance(each, fx.Node) else None for each in node.args[:2])
            if a is not None and b is not None and same_shape(node, a) and same_shape(node, b):
                yield node, a, b


def _biases(
    flow: Flow,
    propagation: Propagation,
    sums: Iterable[tuple[fx.Node, fx.Node, fx.Node]],
    through: Mapping[fx.Node, _Nodes],
) -> set[fx.Node]:
    """Return what no input goes into, but for its sizes, and what is somewhere added to what does not come from it."""
    moving: set[fx.Node] = set()
    for node in flow.nodes:
        given = node.op == "placeholder" and not flow.sources[node] and node not in propagation.from_state
        tensors = (each for each in flow.sources[node] if not isinstance(each.meta.get("val"), _NUMBERS))
        if given or any(each in moving for each in tensors):
            moving.add(node)
    pairs = ((flow.origin(a), flow.origin(b), a, b) for _, a, b in sums)
    apart = ({one, other} for one, other, a, b in pairs if one not in through[b] and other not in through[a])
    return {each for pair in apart for each in pair} - moving


def _projected(
    flow: Flow, propagation: Propagation, sums: Iterable[tuple[fx.Node, fx.Node, fx.Node]]
) -> Iterator[Residual]:
    """Yield those of some sums (addition, shortcut, branch) whose shortcut is a projection."""
    weights = _weights(propagation)
    found = ((*each, list(_before_one_weight(flow, propagation, each[1], weights))) for each in sums)
    candidates = [each for each in found if each[3]]
    through = _ancestors(flow, weights, 2) if candidates else {}
    for node, skip, branch, way in candidates:
        source = next((each for each in map(flow.origin, way) if each in through[branch]), None)
        if source is not None:
            yield Residual(node, skip, branch, source)


def _before_one_weight(
    flow: Flow, propagation: Propagation, node: fx.Node, weights: Container[fx.Node]
) -> Iterator[fx.Node]:
    """Yield what a node is computed from by exactly one weight, as long as that is one tensor, the nearest first."""
    passed = False
    while True:
        if node in weights and passed:
            return
        passed = passed or node in weights
        known = (each for each in flow.sources[node] if isinstance(propagation.dims.get(each), tuple))
        inputs = [each for each in known if each not in propagation.from_state]
        if len(inputs) != 1:
            return
        (node,) = inputs
        if passed:
            yield node


def _weights(propagation: Propagation) -> set[fx.Node]:
    return {contraction.node for contraction in propagation.contractions if contraction.kind == "weight"}


def same_shape(a: fx.Node, b: fx.Node) -> bool:
    """Whether two nodes are tensors of one shape."""
    first, second = a.meta.get("val"), b.meta.get("val")
    return isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor) and first.shape == second.shape


def _ancestors(flow: Flow, products: Container[fx.Node], times: int) -> dict[fx.Node, _Nodes]:
    """Return for each node its ancestors with so many products on the way (or at the node itself)."""
    number = {node: i for i, node in enumerate(flow.nodes)}
    levels: dict[fx.Node, list[int]] = {}
    for node in flow.nodes:
        found = [0] * (times + 1)
        for source in flow.sources[node]:
            found = [mine | theirs for mine, theirs in zip(found, levels[source], strict=True)]
            found[0] |= 1 << number[source]
        levels[node] = [found[0], *found[:-1]] if node in products else found
    return {node: _Nodes(found[times], number) for node, found in levels.items()}


@dataclass(frozen=True)
class _Nodes:
    """A set of nodes as the bits of one integer: cheap for graphs of thousands."""

    bits: int
    number: Mapping[fx.Node, int]

    def __contains__(self, node: fx.Node) -> bool:
        return bool(self.bits >> self.number[node] & 1)
