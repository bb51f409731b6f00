"""Operators that pick places of an image by computed positions, or lay windows of it out as columns."""

from __future__ import annotations

import math
from typing import Any

from torch import fx

from isthmus.nets.axes import terms
from isthmus.nets.axes.call import Call, NoRule
from isthmus.nets.axes.records import Dims
from isthmus.nets.axes.registry import rule
from isthmus.nets.axes.terms import Term
from isthmus.nets.graph.sizes import size_of


@rule("aten::grid_sampler", "aten::grid_sampler_2d", "aten::grid_sampler_3d")
def grid_sample(call: Call) -> Dims:
    """Channels of an image at the places a grid names; channels pass."""
    image, grid = call.dims(call["input"]), call.dims(call["grid"])
    for term in (*image[2:], *grid[1:]):
        call.freeze(term, "sampled by position")
    call.unify(image[0], grid[0])
    return (*image[:2], *(call.whole(size, "sampled by position") for size in call.shape()[2:]))


@rule("aten::affine_grid_generator")
def affine_grid(call: Call) -> Dims:
    """Positions of an image under one affine map each."""
    theta = call.dims(call["theta"])
    for term in theta[1:]:
        call.freeze(term, "an affine map")
    call.resize("size", theta[0], 0)
    return (theta[0], *(call.whole(size, "positions used as values") for size in call.shape()[1:]))


@rule("aten::as_strided")
def strided(call: Call) -> Dims:
    """Places in memory, told by numbers that follow from sizes as they were: those stay as given, but for the batch."""
    dims = call.dims(call["self"])
    told = {node for name in ("size", "stride", "storage_offset") for node in _nodes(call[name])}
    known = {symbol for node in told for symbol in getattr(size_of(node.meta["val"]), "free_symbols", ())}
    for term in dims:
        call.freeze(term, "read by its place in memory")
    for term in dims[1:]:
        size = terms.size(term)
        if not isinstance(size, int) and not size.free_symbols <= known:
            call.propagation.pinned.add(frozenset(size.free_symbols))
    return tuple(call.whole(size, "read by its place in memory") for size in call.shape())


def _nodes(value: Any) -> list[fx.Node]:
    return [each for each in (value if isinstance(value, (list, tuple)) else [value]) if isinstance(each, fx.Node)]


@rule("aten::im2col")
def columns(call: Call) -> Dims:
    """[.., c, h, w] to [.., c x kernel, windows]."""
    dims, shape = call.dims(call["self"]), call.shape()
    for term in dims[-2:]:
        call.freeze(term, "windows slide over it")
    inner: Term = call.whole(math.prod(call["kernel_size"]), "places of a window")
    return (*dims[:-3], terms.prod([dims[-3], inner]), call.whole(shape[-1], "windows slide over it"))


@rule("aten::col2im")
def image_of_columns(call: Call) -> Dims:
    """[.., c x kernel, windows] to [.., c, h, w], summed where windows overlap."""
    dims = call.dims(call["self"])
    halves = terms.split_product(dims[-2], math.prod(call["kernel_size"]))
    if halves is None:
        raise NoRule("windows that cut across units")
    for term in (halves[1], dims[-1]):
        call.freeze(term, "windows slide over it")
    shape: list[Any] = call.shape()[-2:]
    return (*dims[:-2], halves[0], *(call.whole(size, "windows slide over it") for size in shape))
