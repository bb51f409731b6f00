"""Which rule an operator follows.

A rule is a function of a :class:`~isthmus.nets.axes.call.Call`. It returns the dimensions of the result (a tuple of
terms), or a list of those for an operator with several results, and states on the way what holds between the operands::

    from isthmus.nets.rules import rule

    @rule("mylib::scaled_add")                  # y = x + weight * z, elementwise
    def scaled_add(call):
        return call.broadcast([call.dims(call["x"]), call.dims(call["weight"]), call.dims(call["z"])])
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

if TYPE_CHECKING:
    from isthmus.nets.axes.call import Call

Rule = Callable[["Call"], Any]

RULES: dict[str, Rule] = {}
"""Rules by operator ("aten::linear") or by overload ("aten::sum.dim_IntList"); the overload goes first."""

POINTWISE: list[Rule] = []
"""The rule of operators that torch tags as elementwise; one entry."""

_UNTAGGED = frozenset((
    "celu", "elu", "gelu", "hardshrink", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "log_sigmoid", "logit",
    "mish", "relu", "relu6", "selu", "sigmoid", "silu", "softplus", "softshrink", "tanh", "threshold",
))  # fmt: skip


def rule(*operators: str) -> Callable[[Rule], Rule]:
    """Register a function as the rule of operators, by the names of their schemas; a later one replaces an earlier.

    Args:
        operators: "namespace::name" for all overloads of an operator, "namespace::name.overload" for one.
    """

    def register(function: Rule) -> Rule:
        for name in operators:
            RULES[name] = function
        return function

    return register


def pointwise_rule(function: Rule) -> Rule:
    """Register the rule of operators that torch tags as elementwise."""
    POINTWISE[:] = [function]
    return function


def find_rule(node: fx.Node) -> Rule | None:
    """Return the rule of a node's operator; None if there is none."""
    target = node.target
    schema = getattr(target, "_schema", None)
    if schema is None:
        return RULES.get(str(getattr(target, "__name__", target)))
    base, overload = schema.name, schema.overload_name or "default"
    names = [f"{base}.{overload}", base]
    if base.endswith("_") and not base.endswith("__"):  # in place: as the plain operator, into the first operand
        names += [f"{base[:-1]}.{overload}", base[:-1]]
    for name in names:
        if name in RULES:
            return RULES[name]
    return POINTWISE[0] if POINTWISE and is_pointwise(target) else None


def is_pointwise(target: Any) -> bool:
    """Whether torch tags an operator, or another overload of it, as elementwise, or should (torch 2.11 misses some)."""
    packet = getattr(target, "overloadpacket", None)
    if packet is None:
        return False
    if str(packet).removeprefix("aten.").removesuffix("_") in _UNTAGGED:
        return True
    return any(torch.Tag.pointwise in getattr(packet, name).tags for name in packet.overloads())
