"""Tensors that a forward makes of numbers alone, and differently by place (slopes, frequencies): constants.

``arange`` in a piece would count fewer places than in the whole. As a constant such a tensor is cut like a buffer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from isthmus.nets.graph.exported import ExportedGraph
from isthmus.nets.graph.normalize import drop_unread, is_pure
from isthmus.nets.graph.writes import writes

_PLACES = ("arange", "linspace", "logspace", "eye")
_DETACH = torch.ops.aten.detach_.default  # in place, and changes nothing; torch.tensor(...) ends with it
_LEFT_OUT = ("empty",)  # whatever is there
_ENTRIES = 1 << 20  # what is larger is made anew at every step rather than kept


def keep_made(exported: ExportedGraph) -> None:
    """Make constants of what a graph, outside of its regions, computes from places and numbers alone, in place.

    Whole numbers, which index, stay as they are; so does what is written to.
    """
    made = _made(exported)
    ends = [node for node, by_place in made.items() if by_place and _is_end(node, made)]
    first = next(n for n in exported.module.graph.nodes if n.op != "placeholder" or n in exported.input_nodes)
    values: dict[fx.Node, Any] = {node: exported.constants[name] for node, name in _constants(exported).items()}
    for node in ends:
        name = f"made:{node.name}"
        with exported.module.graph.inserting_before(first):
            constant = exported.module.graph.placeholder(node.name)
        constant.meta = dict(node.meta)
        node.replace_all_uses_with(constant)
        exported.state.append(name)
        exported.constants[name] = _value(node, values)
    drop_unread(exported.module.graph)


def _made(exported: ExportedGraph) -> dict[fx.Node, bool]:
    """Return the nodes that are computed from numbers alone, and whether places are among these."""
    written = {origin for writer, origin in writes(exported.module) if writer.target is not _DETACH}
    made = {node: False for node in _constants(exported) if node not in written}
    for node in exported.module.graph.nodes:
        if node.op != "call_function" or node in written or not isinstance(node.meta.get("val"), Tensor):
            continue
        name = str(node.target).removeprefix("aten.").partition(".")[0]
        same = (is_pure(node.target) or node.target is _DETACH) and name not in _LEFT_OUT
        if same and all(each in made for each in node.all_input_nodes):
            made[node] = name in _PLACES or any(made[each] for each in node.all_input_nodes)
    return made


def _constants(exported: ExportedGraph) -> dict[fx.Node, str]:
    """Return the placeholders of constants (numbers written into forward) whose values are here, with their names."""
    found = {node: name for node, name in exported.state_nodes.items() if name in exported.constants}
    return {node: name for node, name in found.items() if exported.constants[name].device.type == "cpu"}


def _is_end(node: fx.Node, made: dict[fx.Node, bool]) -> bool:
    value = node.meta["val"]
    outside = any(user not in made for user in node.users)
    return outside and value.is_floating_point() and value.dim() > 0 and value.numel() <= _ENTRIES


def _value(node: fx.Node, values: dict[fx.Node, Any]) -> Any:
    if node not in values:
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda each: _value(each, values))
        if kwargs.get("device") is not None:
            kwargs = {**kwargs, "device": torch.device("cpu")}
        values[node] = node.target(*args, **kwargs)  # type: ignore[operator]
    return values[node]
