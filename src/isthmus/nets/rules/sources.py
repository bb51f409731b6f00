"""Operators that make tensors: constants follow what they meet; positions used as values are whole."""

from __future__ import annotations

from isthmus.nets.axes import terms
from isthmus.nets.axes.call import Call
from isthmus.nets.axes.records import Dims
from isthmus.nets.axes.registry import rule

_FILLED = ("zeros", "ones", "full", "empty", "rand", "randn", "randint")
_NEW = ("new_zeros", "new_ones", "new_full", "new_empty")


@rule(*(f"aten::{name}" for name in (*_FILLED, *_NEW)))
def filled(call: Call) -> Dims:
    """All entries alike: sizes follow what the tensor is combined with."""
    result = tuple(terms.fresh(size) for size in call.shape())
    for index, term in enumerate(result):
        call.resize("size", term, index)
    return result


@rule(*(f"aten::{name}_like" for name in ("zeros", "ones", "full", "empty", "rand", "randn")))
def like(call: Call) -> Dims:
    """The dimensions of the tensor it resembles."""
    return call.dims(call["self"])


@rule("aten::arange", "aten::linspace", "aten::logspace", "aten::eye", "aten::scalar_tensor", "aten::randperm")
def positions(call: Call) -> Dims:
    """Positions used as values."""
    return tuple(call.whole(size, "positions used as values") for size in call.shape())


@rule("aten::tril_indices", "aten::triu_indices")
def triangle_positions(call: Call) -> Dims:
    """Positions used as values."""
    return positions(call)
