"""The graph of a subnetwork: the same operators, with sizes that follow the cut."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import sympy
import torch
from torch import fx

from isthmus.errors import InvalidInput
from isthmus.nets.axes import terms
from isthmus.nets.axes.blocks import Removal
from isthmus.nets.axes.evaluation import evaluate, size_under, spread
from isthmus.nets.axes.records import Contraction, Propagation, SizeConstant
from isthmus.nets.axes.terms import Atom, Indices
from isthmus.nets.axes.units import lacking
from isthmus.nets.graph.flow import Region, placeholders, region_of, results

Kept = Mapping[Atom, Indices]


@dataclass
class Rewriter:
    """Copies a graph and the graphs of its regions under a cut.

    Attributes:
        propagation: what the graph says about its axes.
        kept: the units each cut atom keeps.
        removals: residual blocks that go.
        absent: placeholders of parameters and buffers that go with them.
        factors: by which the contribution of the units of an atom is multiplied where it is summed up.
        device: where tensors made inside the graph go.
    """

    propagation: Propagation
    kept: Kept
    removals: tuple[Removal, ...] = ()
    absent: frozenset[fx.Node] = frozenset()
    factors: Mapping[Atom, float] = field(default_factory=dict)
    device: torch.device | None = None

    def __post_init__(self) -> None:
        self.dead = {node for removal in self.removals for node in removal.dead} | self.absent
        self.instead = {removal.node: removal.skip for removal in self.removals}
        self.sizes = _by_node(self.propagation.sizes)
        self.places = _by_node(self.propagation.places)
        if self.propagation.places and self.propagation.whole is not None:
            dead, instead = lacking(self.propagation.whole.graph, self.propagation.places, self.kept)
            self.dead |= dead
            self.instead |= {node: other for node, other in instead.items() if node not in self.dead}
        self.sums = _by_node(self.propagation.contractions) if self.factors else {}

    def copy(self, module: fx.GraphModule) -> fx.GraphModule:
        """Return the rewritten copy of a graph; placeholders of removed state are left out."""
        graph = fx.Graph()
        new: dict[fx.Node, fx.Node] = {}
        attributes: dict[str, Any] = {}
        for node in module.graph.nodes:
            if node in self.instead:
                new[node] = new[self.instead[node]]
            elif node.op == "output":
                several = isinstance(node.args[0], (tuple, list))
                returned = tuple(self._returned(each, new) for each in results(module))
                graph.output(returned if several else returned[0])
            elif node not in self.dead:
                region = region_of(module, node)
                if region is None:
                    new[node] = self.copy_node(graph, node, new, attributes)
                else:
                    new[node] = self._copy_region(graph, node, new, attributes, region)
        return fx.GraphModule(attributes, graph)

    def _returned(self, result: Any, new: Mapping[fx.Node, fx.Node]) -> Any:
        """Return what a graph returns; None where that is gone, and with it all who would read it."""
        return None if result in self.dead else new.get(result, result)

    def _copy_region(
        self, graph: fx.Graph, node: fx.Node, new: Mapping[fx.Node, fx.Node], attributes: dict[str, Any], region: Region
    ) -> fx.Node:
        """Copy the call of a region, and its graph, without what it does not take any more."""
        taken = dict(zip(placeholders(region.graph), region.given, strict=True))
        self.dead |= {inside for inside, operand in taken.items() if operand in self.dead}
        attributes[region.name] = self.copy(region.graph)
        before = node.args[: len(node.args) - len(region.given)]
        args = (*before, *(operand for inside, operand in taken.items() if inside not in self.dead))
        return graph.call_function(node.target, fx.map_arg(args, new.__getitem__))  # type: ignore[arg-type]

    def copy_node(self, graph: fx.Graph, node: fx.Node, new: Any, attributes: dict[str, Any]) -> fx.Node:
        """Copy one node with its sizes, factors and device adapted."""
        chosen = {source: new[source] for source in node.all_input_nodes}
        for contraction in self.sums.get(node, ()):
            source = contraction.operand
            chosen[source] = self._scaled(graph, contraction, chosen[source], attributes)
        copied = graph.node_copy(node, lambda source: chosen[source])
        copied.meta = {}
        if self.device is not None:
            copied.args = _on_device(copied.args, self.device)
            copied.kwargs = _on_device(copied.kwargs, self.device)
        for place in self.places.get(node, ()):
            _set_argument(copied, place.argument, place.number(self.kept))
        for constant in self.sizes.get(node, ()):
            if any(leaf in self.kept for leaf in terms.leaves(constant.term)):
                self._resize(graph, copied, constant)
        return copied

    def _resize(self, graph: fx.Graph, node: fx.Node, constant: SizeConstant) -> None:
        current = _argument(node, constant.argument)
        value = current if constant.index is None or current is None else current[constant.index]
        if value == -1:  # "what is left" stays right
            return
        size = size_under(constant.term, self.kept) + constant.offset
        if isinstance(value, fx.Node):
            with graph.inserting_before(node):
                size = _open_size(graph, value, terms.size(constant.term) + constant.offset, size)
        if constant.index is not None:
            changed = list(current)
            changed[constant.index] = size
            size = changed
        _set_argument(node, constant.argument, size)

    def _scaled(self, graph: fx.Graph, sum_: Contraction, operand: fx.Node, attributes: dict[str, Any]) -> fx.Node:
        """Multiply an operand along the dimension that is summed over."""
        inside = {leaf: self.factors[leaf] for leaf in terms.leaves(sum_.summed) if leaf in self.factors}
        if sum_.kind == "activation" or not inside:
            return operand
        values = spread(sum_.term, inside)
        kept = evaluate(sum_.term, self.kept)
        values = values if kept is None else values[kept]
        if np.all(values == values[0]):
            return graph.call_function(torch.ops.aten.mul.Tensor, (operand, float(values[0])))
        name = f"factors_{len(attributes)}"
        rank = len(self.propagation.dims[sum_.operand])
        shape = [len(values) if d == sum_.dim else 1 for d in range(rank)]
        attributes[name] = torch.as_tensor(values, dtype=torch.float32, device=self.device).reshape(shape)
        factors = graph.get_attr(name)
        typed = graph.call_function(torch.ops.aten.to.other, (factors, operand))
        return graph.call_function(torch.ops.aten.mul.Tensor, (operand, typed))


def _by_node(records: Any) -> dict[fx.Node, list[Any]]:
    grouped: dict[fx.Node, list[Any]] = {}
    for record in records:
        grouped.setdefault(record.node, []).append(record)
    return grouped


def _argument(node: fx.Node, name: str) -> Any:
    if name in node.kwargs:
        return node.kwargs[name]
    position = [argument.name for argument in node.target._schema.arguments].index(name)  # type: ignore[union-attr]
    return node.args[position] if position < len(node.args) else None


def _set_argument(node: fx.Node, name: str, value: Any) -> None:
    names = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]
    position = names.index(name)
    if name not in node.kwargs and position < len(node.args):
        node.update_arg(position, value)
    else:
        node.update_kwarg(name, value)


def _open_size(graph: fx.Graph, value: fx.Node, full: Any, cut: Any) -> fx.Node:
    """Return a node for the cut size, from the node that computes the full one."""
    ratio = sympy.cancel(sympy.sympify(cut) / full)
    if ratio.is_Rational:
        scaled = graph.call_function(operator.mul, (value, int(ratio.p)))
        return graph.call_function(operator.floordiv, (scaled, int(ratio.q)))
    difference = sympy.expand(cut - full)
    if difference.is_Integer:
        return graph.call_function(operator.add, (value, int(difference)))
    raise InvalidInput(f"a size {full} cannot follow the cut (it would be {cut})")


def _on_device(value: Any, device: torch.device) -> Any:
    if isinstance(value, torch.device):
        return device
    if isinstance(value, dict):
        return {key: _on_device(item, device) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(_on_device(item, device) for item in value)
    return value
