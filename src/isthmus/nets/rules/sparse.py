"""Sparse tensors, whose dimensions are whole: which of their entries there are is no affair of units."""

from __future__ import annotations

from isthmus.nets.axes.call import Call
from isthmus.nets.axes.records import Dims
from isthmus.nets.axes.registry import rule

_REASON = "a sparse tensor"


@rule("aten::sparse_coo_tensor", "aten::_sparse_coo_tensor_unsafe", "aten::to_sparse", "aten::_to_sparse")
@rule("aten::_values", "aten::_indices")
def sparse(call: Call) -> Dims:
    """Sparse from dense, and back to its entries."""
    for tensor in call.tensors():
        for term in call.dims(tensor):
            call.freeze(term, _REASON)
    return tuple(call.whole(size, _REASON) for size in call.shape())


@rule("aten::to_dense", "aten::coalesce")
def same(call: Call) -> Dims:
    """The same entries, laid out another way."""
    return call.dims(call["self"])
