"""Elementwise operators: every result depends on the entries at its own place only."""

from __future__ import annotations

from isthmus.nets.axes import terms
from isthmus.nets.axes.call import Call, NoRule
from isthmus.nets.axes.records import Dims
from isthmus.nets.axes.registry import pointwise_rule, rule


@pointwise_rule
@rule("aten::__and__", "aten::__or__", "aten::__xor__", "aten::complex", "aten::polar")
@rule(*(f"aten::{name}" for name in ("greater", "greater_equal", "less", "less_equal", "not_equal")))
@rule("aten::bernoulli", "aten::normal", "aten::isclose")
@rule("aten::masked_fill", "aten::where", "aten::rsub", "aten::hardswish", "aten::log_sigmoid", "aten::floor_divide")
def elementwise(call: Call) -> Dims:
    """Operands are aligned from the right and stretched, as torch broadcasts them."""
    return call.broadcast([call.dims(tensor) for tensor in call.tensors()])


@rule(
    "aten::dropout",
    "aten::alpha_dropout",
    "aten::feature_dropout",
    "aten::feature_alpha_dropout",
    "aten::to",
    "aten::_to_copy",
    "aten::type_as",
    "aten::contiguous",
    "aten::alias",
    "aten::detach",
    "aten::lift_fresh",
    "aten::lift_fresh_copy",
    "aten::fill",
    "aten::zero",
    "aten::uniform",
    "aten::exponential",
)
def same_as_first(call: Call) -> Dims:
    """The result has the dimensions of the first operand."""
    return call.dims(call.tensors()[0])


@rule("aten::fake_quantize_per_tensor_affine")
def quantized(call: Call) -> Dims:
    """Every entry rounded to a grid that is the same for all."""
    return call.dims(call["self"])


@rule("aten::fake_quantize_per_channel_affine")
def quantized_by_channel(call: Call) -> Dims:
    """Every entry rounded to its channel's grid."""
    dims = call.dims(call["self"])
    for name in ("scale", "zero_point"):
        call.unify(dims[call["axis"]], call.dims(call[name])[0])
    return dims


@rule("aten::copy_", "aten::copy")
def copy_into(call: Call) -> Dims:
    """The source is stretched to the target."""
    target, source = call.dims(call["self"]), call.dims(call["src"])
    call.broadcast([target, source])
    return target


@rule("aten::prelu")
def prelu(call: Call) -> Dims:
    """One slope per channel (dimension 1), or one for all."""
    dims, (slope,) = call.dims(call["self"]), call.dims(call["weight"])
    if terms.size(slope) != 1:
        call.unify(dims[1], slope)
    return dims


@rule("aten::glu")
def glu(call: Call) -> Dims:
    """First half times the sigmoid of the second half."""
    dims, axis = list(call.dims(call["self"])), call["dim"]
    halves = terms.split_at(dims[axis], terms.size(dims[axis]) // 2)
    if halves is None:
        raise NoRule("the two halves of this dimension cannot be told apart")
    call.unify(*halves)
    dims[axis] = halves[0]
    return tuple(dims)
