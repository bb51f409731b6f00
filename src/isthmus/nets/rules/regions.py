"""Regions of a graph that run under a setting (autocast, no_grad): their own graph, visited in place."""

from __future__ import annotations

from isthmus.nets.axes.call import Call
from isthmus.nets.axes.propagation import visit_region
from isthmus.nets.axes.records import Value
from isthmus.nets.axes.registry import rule
from isthmus.nets.graph.flow import region_of


@rule("wrap_with_set_grad_enabled", "wrap_with_autocast")
def in_place(call: Call) -> Value:
    """The results of the region's graph."""
    region = region_of(call.owner, call.node)
    assert region is not None
    return visit_region(call, region.graph, region.given)
