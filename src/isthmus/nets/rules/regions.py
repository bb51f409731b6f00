"""Regions of a graph that run under a setting (autocast, no_grad): their own graph, visited in place."""

from __future__ import annotations

from typing import Any

from torch import fx

from isthmus.nets.axes.call import Call
from isthmus.nets.axes.propagation import visit_region
from isthmus.nets.axes.records import Value
from isthmus.nets.axes.registry import rule


@rule("wrap_with_set_grad_enabled", "wrap_with_autocast")
def region(call: Call) -> Value:
    """The results of the region's graph."""
    position = next(i for i, each in enumerate(call.node.args) if isinstance(each, fx.Node) and each.op == "get_attr")
    holder: Any = call.node.args[position]
    module = getattr(call.owner, holder.target)
    return visit_region(call, module, call.node.args[position + 1 :])
