"""Convolutions: channels are summed over within groups; places are kept whole."""

from __future__ import annotations

from isthmus.nets import terms
from isthmus.nets.propagation import Call, Dims, NoRule
from isthmus.nets.registry import rule
from isthmus.nets.terms import ONE, Term


@rule("aten::conv1d", "aten::conv2d", "aten::conv3d")
def convolution(call: Call) -> Dims:
    """weight [out, in / groups, kernel..]; out = groups x o, in = groups x i."""
    x, weight = call.dims(call["input"]), call.dims(call["weight"])
    channel = -(len(weight) - 1)
    group, inner = _grouped(call, x[channel], call["groups"])
    if call["groups"] == 1:
        outer: Term = weight[0]
    else:
        halves = _grouped(call, weight[0], call["groups"])
        call.unify(group, halves[0])
        outer = weight[0]
    call.unify(inner, weight[1])
    return _finish(call, inner, outer, 1)


@rule("aten::conv_transpose1d", "aten::conv_transpose2d", "aten::conv_transpose3d")
def transposed_convolution(call: Call) -> Dims:
    """weight [in, out / groups, kernel..]."""
    x, weight = call.dims(call["input"]), call.dims(call["weight"])
    channel = -(len(weight) - 1)
    call.unify(x[channel], weight[0])
    group, inner = _grouped(call, x[channel], call["groups"])
    return _finish(call, inner, terms.prod([group, weight[1]]), 0)


def _grouped(call: Call, term: Term, groups: int) -> tuple[Term, Term]:
    """Return channels as (groups, channels within a group)."""
    if groups == 1:
        return ONE, term
    halves = terms.split_product(term, terms.size(term) // groups)
    if halves is None:
        raise NoRule("groups that cut across units")
    return halves


def _finish(call: Call, inner: Term, outer: Term, weight_dim: int) -> Dims:
    x, weight, bias = call.dims(call["input"]), call.dims(call["weight"]), call["bias"]
    channel = -(len(weight) - 1)
    if call["groups"] != 1:
        call.resize("groups", _grouped(call, x[channel], call["groups"])[0])
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
