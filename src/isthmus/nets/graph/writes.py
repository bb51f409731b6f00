"""Which operators of a graph write, and to what."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import fx

from isthmus.nets.graph.flow import placeholders, region_of

# Their schema does not say that they write to their running statistics while they train: arguments 3 and 4, if 5 is.
_NORMS = (torch.ops.aten.batch_norm.default, torch.ops.aten.instance_norm.default)


def writes(module: fx.GraphModule) -> Iterator[tuple[fx.Node, fx.Node]]:
    """Yield the operators of a graph and its regions that write, and what each writes to, looked up through views."""
    for node in module.graph.nodes:
        if node.op != "call_function":
            continue
        yield from ((node, _origin(value)) for value in targets(node))
        region = region_of(module, node)
        if region is not None:
            outer = dict(zip(placeholders(region.graph), region.given, strict=True))
            changed = ((writer, outer.get(origin, origin)) for writer, origin in writes(region.graph))
            yield from ((writer, _origin(value)) for writer, value in changed if isinstance(value, fx.Node))


def targets(node: fx.Node) -> list[fx.Node]:
    """Return the operands that an operator writes to."""
    found: list[object] = []
    if node.target in _NORMS and node.args[5]:
        found += node.args[3:5]
    schema = getattr(node.target, "_schema", None)
    for position, argument in enumerate(schema.arguments if schema is not None else ()):
        value = node.args[position] if position < len(node.args) else node.kwargs.get(argument.name)
        if argument.alias_info is not None and argument.alias_info.is_write:
            found += value if isinstance(value, (list, tuple)) else [value]
    return [value for value in found if isinstance(value, fx.Node)]


def _origin(node: fx.Node) -> fx.Node:
    """Return the tensor that a view shows."""
    while node.op == "call_function":
        schema = getattr(node.target, "_schema", None)
        if schema is None or not schema.returns or schema.returns[0].alias_info is None or not node.all_input_nodes:
            break
        node = node.all_input_nodes[0]
    return node
