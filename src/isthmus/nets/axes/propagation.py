"""One pass over an exported graph: the term of every dimension, and what a cut has to change.

Each operator's rule (``isthmus.nets.rules``) states how the dimensions of its results follow from those of its
operands. An operator without a rule freezes all it touches, naming itself and the submodule it was called in.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import sympy
import torch
from torch import Tensor, fx
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from isthmus.nets.axes import terms
from isthmus.nets.axes.call import Call, NoRule
from isthmus.nets.axes.records import Dims, Propagation, Value
from isthmus.nets.axes.registry import Rule, find_rule
from isthmus.nets.graph.exported import ExportedGraph
from isthmus.nets.graph.moves import MOVES, SAME
from isthmus.nets.graph.sizes import size_of

_NOT_COVERED = (TypeError, ValueError, LookupError, ArithmeticError, AttributeError, GuardOnDataDependentSymNode)


def propagate(exported: ExportedGraph, state: Mapping[str, Dims]) -> Propagation:
    """Propagate the dimensions of parameters and buffers through a graph; atoms are bound on the way."""
    propagation = Propagation(whole=exported.module)
    for node, name in exported.state_nodes.items():
        propagation.dims[node] = state[name]
        propagation.from_state.add(node)
    for number, node in enumerate(exported.input_nodes):
        propagation.dims[node] = tuple(terms.fresh(size_of(s), f"input {number}") for s in node.meta["val"].shape)
    results = _visit(exported.module, propagation)
    for index, result in enumerate(results):
        extra = index - len(exported.mutated)
        if extra < 0:
            _unify_all(propagation.dims.get(result), state[exported.mutated[index]])
        else:
            reason = f"returned by the network ({exported.outputs[extra]})"
            _freeze_value(propagation.dims.get(result), reason)
            _freeze_value([propagation.positions.get(result)], reason)
    return propagation


def visit_region(call: Call, module: fx.GraphModule, operands: Sequence[Any]) -> list[Value]:
    """Visit the graph of a region (autocast, no_grad) with the dimensions of its operands; return those it returns."""
    propagation = call.propagation
    placeholders = [node for node in module.graph.nodes if node.op == "placeholder"]
    for node, operand in zip(placeholders, operands, strict=True):
        if isinstance(operand, fx.Node):
            propagation.dims[node] = propagation.dims.get(operand)
            if (known := call.positions(operand)) is not None:
                propagation.positions[node] = known
            if operand in propagation.from_state:
                propagation.from_state.add(node)
    results = _visit(module, propagation)
    call.point(*(propagation.positions.get(result) for result in results), None)
    return [propagation.dims.get(result) for result in results]


def _visit(module: fx.GraphModule, propagation: Propagation) -> list[Any]:
    for node in module.graph.nodes:
        if node.op == "call_function":
            propagation.dims[node] = _result(Call(node, propagation, module))
            inputs = [i for i in node.all_input_nodes if propagation.dims.get(i) is not None]
            if all(i in propagation.from_state for i in inputs) and (inputs or _is_noise(node)):
                propagation.from_state.add(node)
        elif node.op == "output":
            return list(node.args[0])
    raise AssertionError("a graph without outputs")


def _is_noise(node: fx.Node) -> bool:
    """Whether a node draws numbers of a fixed shape: noise on weights leaves them weights."""
    return not node.all_input_nodes and torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def _result(call: Call) -> Value:
    node = call.node
    if node.target is operator.getitem:
        value = call.propagation.dims.get(node.args[0])  # type: ignore[arg-type]
        known = call.propagation.positions.get(node.args[0])  # type: ignore[arg-type]
        if isinstance(known, list) and known[node.args[1]] is not None:  # type: ignore[index]
            call.point(known[node.args[1]])  # type: ignore[index]
        return value[node.args[1]] if isinstance(value, list) else None  # type: ignore[index]
    if not _has_tensors(node.meta.get("val")) and not any(i.op == "get_attr" for i in node.all_input_nodes):
        if not node.users and call.tensors():
            _freeze_call(call, "used by an operator without a result")
        return None
    rule = find_rule(node)
    records: tuple[list[Any], ...] = (
        call.propagation.sizes,
        call.propagation.contractions,
        call.propagation.places,
        call.propagation.picks,
    )
    marks = [len(each) for each in records]
    try:
        if rule is None:
            raise NoRule("no rule for this operator")
        value = _applied(rule, call)
        _check(value, node.meta["val"], call.propagation)
        _follow_positions(call, value)
    except NoRule as problem:
        call.understood.clear()
        call.propagation.positions.pop(node, None)
        for each, mark in zip(records, marks, strict=True):
            del each[mark:]
        return _freeze_call(call, str(problem))
    return value


def _applied(rule: Rule, call: Call) -> Value:
    """A rule that fails on a call (on an open size where it counts on a number, or one of values) does not cover it."""
    try:
        return rule(call)
    except _NOT_COVERED as failure:
        raise NoRule(f"its rule does not cover this call, {type(failure).__name__}") from failure


def _freeze_call(call: Call, problem: str) -> Value:
    reason = f"{problem} ({call.where})"
    if reason not in call.propagation.problems:
        call.propagation.problems.append(reason)
    for tensor in call.tensors():
        _freeze_value(call.propagation.dims[tensor], reason)
        _freeze_value([call.propagation.positions.get(tensor)], reason)
    for nested in call.node.all_input_nodes:
        if isinstance(call.propagation.dims.get(nested), list):
            _freeze_value(call.propagation.dims[nested], reason)
    return _fresh_value(call.node.meta.get("val"), reason)


def _follow_positions(call: Call, value: Value) -> None:
    """Pass on which entries are positions where they only move; freeze what they say where they are numbers."""
    name = str(getattr(call.node.target, "_schema", call.node.target)).partition("(")[0]
    moved = name.removeprefix("aten::").partition(".")[0].rstrip("_") in MOVES | SAME
    for number, tensor in enumerate(call.tensors()):
        where = None if tensor in call.understood else call.propagation.positions.get(tensor)
        if where is None or isinstance(where, list):
            continue
        if moved and number == 0:
            call.point(*([where] * max(2, len(value)) if isinstance(value, list) else [where]))
        elif not moved:
            call.freeze(where, "positions used as values")


def _fresh_value(value: Any, reason: str) -> Value:
    if isinstance(value, Tensor):
        return tuple(terms.fresh(size_of(size), reason) for size in value.shape)
    if isinstance(value, (list, tuple)):
        return [_fresh_value(item, reason) for item in value]
    return None


def _freeze_value(value: Value, reason: str) -> None:
    for item in value or ():
        if isinstance(item, (tuple, list)):
            _freeze_value(item, reason)
        elif item is not None:
            terms.freeze(item, reason)


def _unify_all(value: Value, dims: Dims) -> None:
    for a, b in zip(value or (), dims, strict=False):
        terms.unify(a, b)


def _has_tensors(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(_has_tensors(item) for item in value)
    return isinstance(value, Tensor)


def _check(value: Value, expected: Any, propagation: Propagation) -> None:
    """A rule whose sizes do not agree with the traced shapes does not apply; an open size traced as a number is one."""
    if isinstance(expected, Tensor):
        shape = [size_of(size) for size in expected.shape]
        sizes = [terms.size(term) for term in value] if isinstance(value, tuple) else None
        for found, traced in zip(sizes or (), shape, strict=False):
            if isinstance(traced, int) and not isinstance(found, int):
                propagation.pinned.add(frozenset(found.free_symbols))
        if sizes is None or len(sizes) != len(shape) or not all(map(_same, sizes, shape)):
            raise NoRule("its rule does not cover this call")
    elif isinstance(expected, (list, tuple)):
        if not isinstance(value, list) or len(value) != len(expected):
            raise NoRule("its rule does not cover this call")
        for item, each in zip(value, expected, strict=True):
            _check(item, each, propagation)


def _same(a: Any, b: Any) -> bool:
    return bool(a == b) or (not (isinstance(a, int) and isinstance(b, int)) and sympy.expand(a - b) == 0)
