"""Operators on pairs of vectors that sum over their width: bilinear forms, distances, cosines; bags of rows."""

from __future__ import annotations

from isthmus.nets.axes import terms
from isthmus.nets.axes.call import Call
from isthmus.nets.axes.records import Dims, Value
from isthmus.nets.axes.registry import rule
from isthmus.nets.axes.terms import Term


@rule("aten::bilinear")
def bilinear(call: Call) -> Dims:
    """y[.., o] = sum_ij a[.., i] w[o, i, j] b[.., j] + bias[o]."""
    first, second, weight, bias = call["input1"], call["input2"], call["weight"], call["bias"]
    out, left, right = call.dims(weight)
    for dim, (operand, term) in enumerate(((first, left), (second, right)), start=1):
        call.unify(call.dims(operand)[-1], term)
        call.contract(operand, -1, call.against(weight), weight=(weight, dim))
    if bias is not None:
        call.unify(out, call.dims(bias)[0])
    return (*call.broadcast([call.dims(first)[:-1], call.dims(second)[:-1]]), out)


@rule("aten::cdist", "aten::_cdist_forward")
def distances(call: Call) -> Dims:
    """|x[i] - y[j]| over the last dimension: units a subnetwork lacks do not differ."""
    first, second = call["x1"], call["x2"]
    left, right = call.dims(first), call.dims(second)
    call.unify(left[-1], right[-1])
    for operand in (first, second):
        call.contract(operand, -1, "activation")
    return (*call.broadcast([left[:-2], right[:-2]]), left[-2], right[-2])


@rule("aten::pairwise_distance")
def distance(call: Call) -> Dims:
    """|x - y| over the last dimension; a small constant at every entry makes it a norm over what is kept."""
    dims = call.broadcast([call.dims(call["x1"]), call.dims(call["x2"])])
    call.norm(dims[-1])
    return (*dims[:-1], terms.ONE) if call["keepdim"] else dims[:-1]


@rule("aten::cosine_similarity")
def cosine(call: Call) -> Dims:
    """x . y / |x| |y| over a dimension: in a subnetwork over the units it keeps."""
    dims = call.broadcast([call.dims(call["x1"]), call.dims(call["x2"])])
    position = call["dim"] % len(dims)
    call.norm(dims[position])
    return (*dims[:position], *dims[position + 1 :])


@rule("aten::embedding_bag")
def embedding_bag(call: Call) -> Value:
    """Sums, means or maxima of rows of a table, chosen by the data; what else is returned serves the backward.

    Unlike what an embedding returns, a sum of rows is a layer's output: the product of a matrix with a sparse input.
    """
    rows, width = call.dims(call["weight"])
    call.freeze(rows, "looked up by index")
    for name in ("indices", "offsets", "per_sample_weights"):
        if call[name] is not None:
            for term in call.dims(call[name]):
                call.freeze(term, "rows of a bag")
    bags: Term = call.whole(call.shape(0)[0], "bags of rows")
    rest = [tuple(call.whole(size, "bags of rows") for size in call.shape(i)) for i in (1, 2, 3)]
    return [(bags, width), *rest]
