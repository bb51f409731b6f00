"""Normalisation. Per channel (batch norm) it follows its units; across an axis, a cut restricts it to what is kept."""

from __future__ import annotations

from isthmus.nets.axes import terms
from isthmus.nets.axes.call import Call, NoRule
from isthmus.nets.axes.records import Dims, Value
from isthmus.nets.axes.registry import rule
from isthmus.nets.graph.sizes import divide
from isthmus.nets.rules.contraction import kept, reduced


@rule("aten::layer_norm", "aten::rms_norm")
def layer_norm(call: Call) -> Dims:
    """Across the last dimensions, which are named by their sizes."""
    dims, shape = call.dims(call["input"]), call["normalized_shape"]
    last = dims[len(dims) - len(shape) :]
    for index, term in enumerate(last):
        call.resize("normalized_shape", term, index)
        call.norm(term)
    for name in ("weight", "bias"):
        if call[name] is not None:
            call.broadcast([last, call.dims(call[name])])
    return dims


@rule("aten::group_norm")
def group_norm(call: Call) -> Dims:
    """Across the channels of a group and all places; whole groups may be cut."""
    dims = call.dims(call["input"])
    inner = divide(terms.size(dims[1]), call.count("num_groups"))
    halves = None if inner is None else terms.split_product(dims[1], inner)
    if halves is None:
        raise NoRule("groups that cut across units")
    call.resize("num_groups", halves[0])
    for term in (halves[1], *dims[2:]):
        call.norm(term)
    for name in ("weight", "bias"):
        if call[name] is not None:
            call.unify(dims[1], call.dims(call[name])[0])
    return dims


@rule("aten::batch_norm")
def batch_norm(call: Call) -> Dims:
    """Per channel (dimension 1) across all others; parameters and running statistics follow their channel."""
    call.norm(call.dims(call["input"])[0])
    return instance_norm(call)


@rule("aten::instance_norm")
def instance_norm(call: Call) -> Dims:
    """Per sample and channel, across places."""
    dims = call.dims(call["input"])
    for name in ("weight", "bias", "running_mean", "running_var"):
        if call[name] is not None:
            call.unify(dims[1], call.dims(call[name])[0])
    for term in dims[2:]:
        call.norm(term)
    return dims


@rule("aten::mean", "aten::var", "aten::std", "aten::linalg_vector_norm", "aten::norm")
def moment(call: Call) -> Dims:
    """A mean or norm over dimensions: in a subnetwork over the units it keeps."""
    dims = call.dims(call["self"])
    for dim in reduced(call):
        call.norm(dims[dim])
    return kept(call, reduced(call))


@rule("aten::linalg_norm")
def vector_norm(call: Call) -> Dims:
    """A norm of vectors; norms of matrices have no rule."""
    count = len(reduced(call))
    if call["ord"] is not None and count == 2:
        raise NoRule("a norm of matrices")
    return moment(call)


@rule("aten::var_mean", "aten::std_mean")
def two_moments(call: Call) -> Value:
    """Variance and mean together."""
    return [moment(call), moment(call)]


@rule("aten::_weight_norm")
def weight_norm(call: Call) -> Dims:
    """g v / |v|, the norm over all dimensions of a weight but one; over all of them where that is -1."""
    dims, scale = call.dims(call["v"]), call.dims(call["g"])
    for index, term in enumerate(dims):
        if index != call["dim"]:
            call.norm(term)
    return call.broadcast([dims, scale])
