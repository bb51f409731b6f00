"""Bring a few operators to a form in which every size a cut may change is written out."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

aten = torch.ops.aten

_CHECKS = ("_assert", "sym_constrain", "_check")
_WRITERS = (aten.batch_norm.default, aten.instance_norm.default)  # their schema does not say so


def normalize(module: fx.GraphModule) -> None:
    """Rewrite a traced graph in place, and the graphs of its regions.

    Checks on metadata go (they name sizes and types of the whole), and the sizes that only they had asked for;
    ``chunk``, ``split`` and ``tensor_split`` become ``split_with_sizes``; ``slice``, ``narrow`` count from the start;
    ``squeeze`` names the dimensions it removes, which have size 1 in the whole too; ``scaled_dot_product_attention``
    states its scale; a recurrent layer's zero state has the type and device of the layer's input.
    """
    for child in module.children():
        if isinstance(child, fx.GraphModule):
            normalize(child)
    _know_users(module.graph)
    for node in list(module.graph.nodes):
        if node.op != "call_function":
            continue
        if any(mark in str(node.target) for mark in _CHECKS) and not node.users:
            module.graph.erase_node(node)
            continue
        change = _CHANGES.get(node.target)
        if change is not None:
            change(node)
    drop_unread(module.graph)


def _know_users(graph: fx.Graph) -> None:
    """Have every node know who reads it: torch, where it makes regions of ``no_grad``, forgets some."""
    for node in graph.nodes:
        for source in node.all_input_nodes:
            source.users.setdefault(node)


def drop_unread(graph: fx.Graph) -> None:
    """Erase what nothing reads: sizes that only the checks had asked for, attention weights that nobody wants.

    Sizes cost as much as a small operator, at every step, and a norm that is not read says nothing about its axis.
    What writes, or draws random numbers, stays.
    """
    for node in reversed(list(graph.nodes)):
        if node.op == "call_function" and not node.users and is_pure(node.target):
            graph.erase_node(node)


def is_pure(target: Any) -> bool:
    """Whether an operator does nothing but compute its result, the same every time."""
    if getattr(target, "__module__", "") == "_operator":
        return True
    if not isinstance(target, torch._ops.OpOverload) or target in _WRITERS or target.namespace != "aten":
        return False
    return not target._schema.is_mutable and torch.Tag.nondeterministic_seeded not in target.tags


def _dim(node: fx.Node, position: int, name: str, default: int) -> int:
    value = node.kwargs.get(name, node.args[position] if len(node.args) > position else default)
    return int(value)  # type: ignore[arg-type]


def _input(node: fx.Node) -> Any:
    source = node.args[0]
    assert isinstance(source, fx.Node)
    return source.meta["val"]


def _split(node: fx.Node) -> None:
    dim = _dim(node, 2, "dim", 0)
    sizes = [part.shape[dim] for part in node.meta["val"]]
    if all(isinstance(size, int) for size in sizes):
        node.target = aten.split_with_sizes.default
        node.args, node.kwargs = (node.args[0], sizes, dim), {}


def _squeeze(node: fx.Node) -> None:
    shape = _input(node).shape
    if node.target in (aten.squeeze.default, aten.squeeze_.default):
        wanted = range(len(shape))
    else:
        given = node.args[1] if len(node.args) > 1 else node.kwargs["dim"]
        dims = [given] if isinstance(given, int) else list(given)  # type: ignore[arg-type]
        wanted = [int(d) % len(shape) for d in dims]  # type: ignore[assignment]
    node.target = aten.squeeze_.dims if str(node.target).startswith("aten.squeeze_") else aten.squeeze.dims
    node.args, node.kwargs = (node.args[0], [d for d in wanted if isinstance(shape[d], int) and shape[d] == 1]), {}


def _slice(node: fx.Node) -> None:
    """Count from the start: what is counted from the end means another place once units are gone."""
    dim = _dim(node, 1, "dim", 0)
    total = _input(node).shape[dim]
    values = {"start": node.args[2] if len(node.args) > 2 else node.kwargs.get("start"),
              "end": node.args[3] if len(node.args) > 3 else node.kwargs.get("end")}  # fmt: skip
    step = _dim(node, 4, "step", 1)
    if isinstance(total, int) and all(value is None or isinstance(value, int) for value in values.values()):
        start, end, _ = slice(values["start"], values["end"], step).indices(total)
        node.args, node.kwargs = (node.args[0], dim, start, end, step), {}


def _narrow(node: fx.Node) -> None:
    dim, start = _dim(node, 1, "dim", 0), node.args[2] if len(node.args) > 2 else node.kwargs["start"]
    total = _input(node).shape[dim]
    if isinstance(total, int) and isinstance(start, int) and start < 0:
        length = node.args[3] if len(node.args) > 3 else node.kwargs["length"]
        node.args, node.kwargs = (node.args[0], dim, start + total, length), {}


def _attention(node: fx.Node) -> None:
    width = _input(node).shape[-1]
    if node.kwargs.get("scale") is None and isinstance(width, int):
        node.kwargs = {**node.kwargs, "scale": 1.0 / math.sqrt(width)}


def _recurrent(node: fx.Node) -> None:
    """Torch's layers make their zero state like the input; a traced constant would not follow a change of type."""
    source, given, *rest = node.args
    states = list(given) if isinstance(given, (list, tuple)) else [given]
    changed = [_zeros_like(node, source, state) for state in states]
    node.args = (source, changed if isinstance(given, (list, tuple)) else changed[0], *rest)
    for state in dict.fromkeys(states):
        if isinstance(state, fx.Node) and not state.users:
            node.graph.erase_node(state)


def _zeros_like(node: fx.Node, source: Any, state: Any) -> Any:
    if not isinstance(state, fx.Node) or state.target != aten.zeros.default:
        return state
    with node.graph.inserting_before(node):
        made = node.graph.call_function(aten.new_zeros.default, (source, state.args[0]))
    made.meta = dict(state.meta)
    return made


_CHANGES: dict[Any, Callable[[fx.Node], None]] = {
    aten.chunk.default: _split,
    aten.split.Tensor: _split,
    aten.tensor_split.sections: _split,
    aten.tensor_split.indices: _split,
    aten.squeeze.default: _squeeze,
    aten.squeeze.dim: _squeeze,
    aten.squeeze.dims: _squeeze,
    aten.squeeze_.default: _squeeze,
    aten.squeeze_.dim: _squeeze,
    aten.squeeze_.dims: _squeeze,
    aten.slice.Tensor: _slice,
    aten.narrow.default: _narrow,
    aten.scaled_dot_product_attention.default: _attention,
    **dict.fromkeys((aten.lstm.input, aten.gru.input, aten.rnn_tanh.input, aten.rnn_relu.input), _recurrent),
    **dict.fromkeys((aten.lstm_cell.default, aten.gru_cell.default), _recurrent),
    **dict.fromkeys((aten.rnn_tanh_cell.default, aten.rnn_relu_cell.default), _recurrent),
}
"""What is rewritten; see :func:`normalize`."""

