"""Convolutions: channels are summed over within groups; places are kept whole."""

from __future__ import annotations

from isthmus.nets.axes import terms
from isthmus.nets.axes.call import Call, NoRule
from isthmus.nets.axes.records import Dims
from isthmus.nets.axes.registry import rule
from isthmus.nets.axes.terms import ONE, Term
from isthmus.nets.graph.sizes import Size, divide


@rule("aten::conv1d", "aten::conv2d", "aten::conv3d")
def convolution(call: Call) -> Dims:
    """weight [out, in / groups, kernel..]; out = groups x o, in = groups x i."""
    x, weight = call.dims(call["input"]), call.dims(call["weight"])
    channel = -(len(weight) - 1)
    group, inner = _grouped(x[channel], call.count("groups"))
    call.unify(group, _grouped(weight[0], call.count("groups"))[0])
    call.unify(inner, weight[1])
    return _finish(call, inner, weight[0], 1)


@rule("aten::conv_transpose1d", "aten::conv_transpose2d", "aten::conv_transpose3d")
def transposed_convolution(call: Call) -> Dims:
    """weight [in, out / groups, kernel..]."""
    x, weight = call.dims(call["input"]), call.dims(call["weight"])
    channel = -(len(weight) - 1)
    call.unify(x[channel], weight[0])
    group, inner = _grouped(x[channel], call.count("groups"))
    return _finish(call, inner, terms.prod([group, weight[1]]), 0)


def _grouped(term: Term, groups: Size) -> tuple[Term, Term]:
    """Return channels as (groups, channels within a group); a batch may be folded into either."""
    if groups == 1:
        return ONE, term
    inner = divide(terms.size(term), groups)
    halves = None if inner is None else terms.split_product(term, inner)
    if halves is None:
        raise NoRule("groups that cut across units")
    return halves


def _finish(call: Call, inner: Term, outer: Term, weight_dim: int) -> Dims:
    x, weight, bias = call.dims(call["input"]), call.dims(call["weight"]), call["bias"]
    channel = -(len(weight) - 1)
    if call["groups"] != 1:
        call.resize("groups", _grouped(x[channel], call.count("groups"))[0])
    kind = call.against(call["weight"])
    call.contract(call["input"], channel, kind, summed=inner, weight=(call["weight"], weight_dim))
    if bias is not None:
        call.unify(outer, call.dims(bias)[0])
    terms.tag(x[channel], "channel")
    terms.tag(outer, "channel")
    for term in (*x[channel + 1 :], *weight[2:]):
        call.freeze(term, "the kernel slides over it")
    places = [call.whole(size, "the kernel slides over it") for size in call.shape()[channel + 1 :]]
    return (*x[:channel], outer, *places)
