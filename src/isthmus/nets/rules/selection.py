"""Operators that order, choose or look at places along a dimension: those dimensions are kept whole."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import fx

from isthmus.nets.axes import terms
from isthmus.nets.axes.call import Call, NoRule
from isthmus.nets.axes.records import Dims, Value
from isthmus.nets.axes.registry import rule
from isthmus.nets.axes.terms import ONE, Term
from isthmus.nets.rules.contraction import kept, reduced

_BOOLEAN = (torch.bool, torch.uint8)


def _freeze(call: Call, operand: fx.Node, dims: Iterable[int], reason: str) -> None:
    for dim in dims:
        call.freeze(call.dims(operand)[dim], reason)


def _chosen(call: Call, dim: int, reason: str) -> Term | None:
    """Return the dimension along which the operator chooses or weighs; None if it is kept whole in any case."""
    dims = call.dims(call["self"])
    if not dims:
        return None
    term = dims[dim % len(dims)]
    if terms.size(term) == 1 or terms.is_hard(term):
        return None
    call.choose(term, reason)
    return term


def _along(call: Call, reason: str, index: int | None = None) -> Dims:
    """Freeze ``dim`` or ``dims`` (all, where none is named) of the operand; the result has them anew, others pass."""
    source, shape = call.dims(call["self"]), call.shape(index)
    if not source:
        return ()
    given = call["dim"] if call["dim"] is not None else call["dims"]
    chosen = given or range(len(source)) if isinstance(given, (list, tuple)) else [given]
    numbers = {d % len(source) for d in chosen}
    _freeze(call, call["self"], numbers, reason)
    return tuple(call.whole(shape[i], reason) if i in numbers else term for i, term in enumerate(source))


@rule("aten::softmax", "aten::_softmax", "aten::log_softmax", "aten::_log_softmax")
def softmax(call: Call) -> Dims:
    """Normalised exponentials: a missing unit would change all others."""
    if _chosen(call, call["dim"], "softmax over this axis") is not None:
        return call.dims(call["self"])
    return _along(call, "softmax over this axis")


@rule("aten::cumsum")
def running_sum(call: Call) -> Dims:
    """Sums up to each place; where the units are experts, over those that are held."""
    if _chosen(call, call["dim"], "the order along this axis matters") is not None:
        del call.propagation.norms[call.node]  # places of units that are not held have sums too
        call.contract(call["self"], call["dim"], "activation")
        return call.dims(call["self"])
    return ordered(call)


@rule("aten::cumprod", "aten::logcumsumexp", "aten::flip", "aten::argsort")
def ordered(call: Call) -> Dims:
    """The order along the dimension matters."""
    return _along(call, "the order along this axis matters")


@rule("aten::diff")
def differences(call: Call) -> Dims:
    """Neighbours along the dimension, with entries before and after."""
    result, dim = _along(call, "the order along this axis matters"), call["dim"] % len(call.dims(call["self"]))
    for name in ("prepend", "append"):
        if call[name] is not None:
            edge = call.dims(call[name])
            call.freeze(edge[dim], "the order along this axis matters")
            call.broadcast([(*dims[:dim], ONE, *dims[dim + 1 :]) for dims in (result, edge)])
    return result


@rule("aten::roll")
def roll(call: Call) -> Dims:
    """Positions move around."""
    return _along(call, "the order along this axis matters")


@rule("aten::topk")
def largest(call: Call) -> Value:
    """The k largest values and their positions; among experts, the k largest of those that are held."""
    term, count = _chosen(call, call["dim"], "sorted along this axis"), call["k"]
    if term is None or not isinstance(count, int):
        return [_along(call, "sorted along this axis", index) for index in (0, 1)]
    dims = list(call.dims(call["self"]))
    dims[call["dim"]] = call.whole(count, "sorted along this axis")
    call.propagation.picks.append((term, count))
    call.point(None, term)
    return [tuple(dims), tuple(dims)]


@rule("aten::sort", "aten::cummax", "aten::cummin")
def sorted_two(call: Call) -> Value:
    """Values and their positions."""
    if "sort" in str(call.node.target):  # positions along another axis stay such, in another order
        call.point(call.positions(call["self"]), None)
    return [_along(call, "sorted along this axis", index) for index in (0, 1)]


@rule("aten::argmax", "aten::argmin")
def largest_place(call: Call) -> Dims:
    """The position of the largest value; among experts, of those that are held."""
    term = None if call["dim"] is None else _chosen(call, call["dim"], "reduced along this axis")
    if term is None:
        return extremum(call)
    call.point(term)
    return kept(call, reduced(call))


@rule("aten::amax", "aten::amin")
@rule("aten::logsumexp", "aten::prod", "aten::any", "aten::all")
def extremum(call: Call) -> Dims:
    """A reduction to which a missing unit cannot contribute nothing."""
    dims = reduced(call)
    _reduce(call, dims)
    return kept(call, dims)


_VALUES = {f"aten::{name}" for name in ("amax", "amin", "max", "min", "logsumexp", "prod", "any", "all")}


def _reduce(call: Call, dims: list[int]) -> None:
    """Keep dimensions whole that are reduced; a number of weights alone (their largest) is one of those kept."""
    of_weights = call["self"] in call.propagation.from_state
    values = call.node.target._schema.name in _VALUES and not isinstance(call.node.meta["val"], (tuple, list))  # type: ignore[union-attr]
    for dim in dims:
        if of_weights and values:
            call.norm(call.dims(call["self"])[dim])
        else:
            call.freeze(call.dims(call["self"])[dim], "reduced along this axis")


@rule("aten::max.default", "aten::min.default", "aten::median.default")
def extremum_of_all(call: Call) -> Dims:
    """One number from all entries."""
    _reduce(call, list(range(len(call.dims(call["self"])))))
    return ()


@rule("aten::max.dim", "aten::min.dim", "aten::median.dim", "aten::kthvalue", "aten::mode", "aten::aminmax")
def extremum_two(call: Call) -> Value:
    """Values and positions."""
    given = call["dim"]
    chooses = "::max" in call.node.target._schema.name or "::min" in call.node.target._schema.name  # type: ignore[union-attr]
    term = _chosen(call, given, "reduced along this axis") if chooses and isinstance(given, int) else None
    if term is None:
        return [extremum(call), extremum(call)]
    call.point(None, term)
    return [kept(call, reduced(call)), kept(call, reduced(call))]


@rule("aten::tril", "aten::triu")
def triangle(call: Call) -> Dims:
    """Entries chosen by their two positions."""
    _freeze(call, call["self"], (-1, -2), "positions along this axis matter")
    return call.dims(call["self"])


@rule("aten::one_hot")
def one_hot(call: Call) -> Dims:
    """One class each; of positions along an axis, the axis itself, perhaps with one class more."""
    where, count = call.positions(call["self"]), call.shape()[-1]
    if where is not None and count in (terms.size(where), terms.size(where) + 1):
        classes = where if count == terms.size(where) else terms.cat([where, ONE])
        call.resize("num_classes", classes)
        return (*call.dims(call["self"]), classes)
    call.understood.discard(call["self"])
    return (*call.dims(call["self"]), call.whole(call.shape()[-1], "one-hot classes"))


@rule("aten::cross_entropy_loss", "aten::nll_loss", "aten::nll_loss_nd")
def class_loss(call: Call) -> Dims:
    """A softmax over classes (dimension 1, or 0 of a single sample), then a look-up."""
    for name in ("self", "target", "weight"):
        if call[name] is not None:
            _freeze(call, call[name], range(len(call.dims(call[name]))), "a loss over this axis")
    return tuple(call.whole(size, "a loss over this axis") for size in call.shape())


_LOSSES = ["mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "kl_div", "soft_margin_loss"]
_LOSSES += ["binary_cross_entropy", "binary_cross_entropy_with_logits"]


@rule(*(f"aten::{name}" for name in _LOSSES))
def loss(call: Call) -> Dims:
    """Entry by entry; where it ends in one number, that is over everything."""
    dims = call.broadcast([call.dims(tensor) for tensor in call.tensors()])
    if call["reduction"] == 0:
        return dims
    for term in dims:
        call.freeze(term, "a loss over this axis")
    return ()


@rule("aten::nonzero", "aten::where.default", "aten::nonzero_numpy")
def nonzero(call: Call) -> Value:
    """Places of what is not zero, as many as there are."""
    operand = call["self"] if call["self"] is not None else call["condition"]
    _freeze(call, operand, range(len(call.dims(operand))), "looked for by value")
    shapes = call.node.meta["val"]
    if isinstance(shapes, (list, tuple)):
        return [(call.whole(call.shape(i)[0], "looked for by value"),) for i in range(len(shapes))]
    return tuple(call.whole(size, "looked for by value") for size in call.shape())


@rule("aten::eq.Scalar")
def equals(call: Call) -> Dims:
    """Entry by entry; a position that a router chose, against one place of its axis."""
    where, place = call.positions(call["self"]), call["other"]
    if where is not None and isinstance(place, int) and 0 <= place < terms.size(where):
        call.place("other", where, place, "positions used as values")
    elif where is not None:
        call.freeze(where, "positions used as values")
    return call.dims(call["self"])


@rule("aten::index")
def index(call: Call) -> Dims:
    """Indexing with tensors; indexed dimensions are looked up by value, the others pass."""
    source, indices = call.dims(call["self"]), list(call["indices"])
    places = [i for i, each in enumerate(indices) if each is not None]
    if any(indices[each].meta["val"].dtype in _BOOLEAN for each in places):
        return _masked(call, source, indices, places)
    for each in places:
        call.look_up(indices[each], source[each], "indexed by value")
        if call["self"] in call.propagation.from_state and len(source) > 2:
            terms.tag(source[each], "matrices")
    picked = call.broadcast([call.dims(indices[i]) for i in places])
    rest = [term for i, term in enumerate(source) if i not in places]
    adjacent = places == list(range(places[0], places[-1] + 1))
    at = places[0] if adjacent else 0
    return (*rest[:at], *picked, *rest[at:])


def _masked(call: Call, source: Dims, indices: list[Any], places: list[int]) -> Dims:
    """Indexing with one mask: as many entries as it marks, in place of the dimensions it has."""
    mask = call.dims(indices[places[0]])
    end = places[0] + len(mask)
    if len(places) > 1:
        raise NoRule("data-dependent indexing with a mask")
    for term, other in zip(source[places[0] : end], mask, strict=True):
        call.unify(term, other)
        call.freeze(term, "indexed with a mask")
    picked = call.whole(call.shape()[places[0]], "indexed with a mask")
    return (*source[: places[0]], picked, *source[end:])


@rule("aten::index_put")
def index_put(call: Call) -> Dims:
    """Indexed writes: as :func:`index`, the values follow what is written; every write counts."""
    read = index(call)
    call.broadcast([read, call.dims(call["values"])])
    for each in call["indices"]:
        for term in () if each is None else call.dims(each):
            call.freeze(term, "written by index")
    return call.dims(call["self"])


@rule("aten::index_select")
def index_select(call: Call) -> Dims:
    """Rows chosen by index."""
    dims, dim = list(call.dims(call["self"])), call["dim"]
    call.look_up(call["index"], dims[dim], "indexed by value")
    dims[dim] = call.dims(call["index"])[0]
    return tuple(dims)


@rule("aten::index_add", "aten::index_copy", "aten::index_fill")
def index_write(call: Call) -> Dims:
    """Rows written by index; every write counts, other dimensions of the source follow."""
    dims, dim = call.dims(call["self"]), call["dim"] % len(call.dims(call["self"]))
    call.freeze(dims[dim], "indexed by value")
    _freeze(call, call["index"], range(len(call.dims(call["index"]))), "written by index")
    if call["source"] is not None:
        source = call.dims(call["source"])
        call.unify(source[dim], call.dims(call["index"])[0])
        for i, term in enumerate(dims):
            if i != dim:
                call.unify(term, source[i])
    return dims


@rule("aten::gather", "aten::take_along_dim")
def gather(call: Call) -> Dims:
    """result[i][j] = self[index[i][j]][j] for dim 0; other dimensions run along with the index."""
    places = call["index"] if call["index"] is not None else call["indices"]
    dims, where = call.dims(call["self"]), call.dims(places)
    return _along_index(call, dims, where, places)


@rule("aten::scatter", "aten::scatter_add", "aten::scatter_reduce")
def scatter(call: Call) -> Dims:
    """self[index[i][j]][j] = src[i][j] for dim 0; every write counts."""
    dims, where = call.dims(call["self"]), call.dims(call["index"])
    _along_index(call, dims, where, call["index"])
    call.freeze(where[call["dim"]], "written by index")
    if call["src"] is not None:
        for i, term in enumerate(call.dims(call["src"])):
            call.unify(term, where[i])
    return dims


def _along_index(call: Call, dims: Dims, where: Dims, places: fx.Node) -> Dims:
    dim = call["dim"]
    if dim is None or len(where) != len(dims):
        raise NoRule("no rule for this form")
    for i, (term, other) in enumerate(zip(dims, where, strict=True)):
        if i == dim % len(dims):
            call.look_up(places, term, "indexed by value")
        else:
            call.unify(term, other)
    return where


@rule("aten::histc")
def histogram(call: Call) -> Dims:
    """How often each position along an axis occurs."""
    where, count = call.positions(call["self"]), call["bins"]
    if where is None or (count, call["min"], call["max"]) != (terms.size(where), 0, terms.size(where) - 1):
        raise NoRule("a histogram of values")
    call.resize("bins", where)
    call.resize("max", where, offset=-1)
    return (where,)


@rule("aten::bincount")
def counts(call: Call) -> Dims:
    """How often each position along an axis occurs."""
    where = call.positions(call["self"])
    if where is None or call["minlength"] != terms.size(where) or call.shape() != [terms.size(where)]:
        raise NoRule("counts of values")
    call.resize("minlength", where)
    return (where,)


@rule("aten::constant_pad_nd", "aten::pad")
def pad(call: Call) -> Dims:
    """A constant border is new entries before and after; any other border repeats entries by position."""
    dims, borders = list(call.dims(call["self"])), call["pad"]
    plain = call["mode"] in (None, "constant")
    for i in range(len(borders) // 2):
        before, after = borders[2 * i : 2 * i + 2]
        dim = len(dims) - 1 - i
        if before == 0 and after == 0:
            continue
        if plain and all(isinstance(b, int) and b >= 0 for b in (before, after)):
            edges = [call.whole(b, "padding") if b else None for b in (before, after)]
            dims[dim] = terms.cat([piece for piece in (edges[0], dims[dim], edges[1]) if piece is not None])
        else:
            call.freeze(dims[dim], "padded along this axis")
            dims[dim] = call.whole(call.shape()[dim], "padded along this axis")
    return tuple(dims)


def _spatial(call: Call, count: int, reason: str, output: int | None = None) -> Dims:
    operand = call["self"] if call["self"] is not None else call["input"]
    dims, shape = call.dims(operand), call.shape(output)
    _freeze(call, operand, range(-count, 0), reason)
    return (*dims[:-count], *(call.whole(size, reason) for size in shape[-count:]))


def _number(call: Call) -> int:
    """Return 2 for an operator called ``..2d``."""
    return int(next(c for c in call.node.target._schema.name if c.isdigit()))  # type: ignore[union-attr]


_POOLS = [f"aten::{kind}_pool{n}d" for n in (1, 2, 3) for kind in ("max", "avg", "adaptive_avg")]
_RESIZES = [f"upsample_nearest{n}d" for n in (1, 2, 3)]
_RESIZES += ["upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d", "upsample_bicubic2d"]
_RESIZES += ["_upsample_nearest_exact2d", "_upsample_bilinear2d_aa"]


@rule(*_POOLS, *(f"aten::{name}" for name in _RESIZES))
def places(call: Call) -> Dims:
    """Pooling and resizing look at places; channels pass."""
    return _spatial(call, _number(call), "pooled or resized along this axis")


@rule(*(f"aten::{kind}{n}d" for n in (1, 2, 3) for kind in ("reflection_pad", "replication_pad")))
def mirrored(call: Call) -> Dims:
    """A border that repeats entries."""
    return _spatial(call, _number(call), "padded along this axis")


@rule(
    *(f"aten::adaptive_max_pool{n}d" for n in (1, 2, 3)),
    *(f"aten::max_pool{n}d_with_indices" for n in (1, 2, 3)),
)
def places_two(call: Call) -> Value:
    """Pooled values and their positions."""
    return [_spatial(call, _number(call), "pooled along this axis", i) for i in (0, 1)]


@rule("aten::max_unpool2d", "aten::max_unpool3d")
def unpooled(call: Call) -> Dims:
    """Values put back at the places that pooling took them from; channels pass."""
    dims, where, count = call.dims(call["self"]), call.dims(call["indices"]), _number(call)
    for a, b in zip(dims, where, strict=True):
        call.unify(a, b)
    return _spatial(call, count, "pooled along this axis")


@rule("aten::bucketize", "aten::searchsorted")
def buckets(call: Call) -> Dims:
    """The place of every entry among boundaries, which are whole; rows of boundaries have rows of entries."""
    edges = call["boundaries"] if call["boundaries"] is not None else call["sorted_sequence"]
    *rows, last = call.dims(edges)
    if call.is_tensor(call["sorter"]):
        raise NoRule("boundaries in an order of their own")
    call.freeze(last, "boundaries of buckets")
    if not call.is_tensor(call["self"]):
        return ()
    dims = call.dims(call["self"])
    for a, b in zip(dims, rows, strict=False):
        call.unify(a, b)
    return dims


@rule("aten::unfold")
def windows(call: Call) -> Dims:
    """Sliding windows become a last dimension."""
    dims = list(call.dims(call["self"]))
    dim = call["dimension"] % len(dims)
    call.freeze(dims[dim], "windows slide over it")
    dims[dim] = call.whole(call.shape()[dim], "windows slide over it")
    return (*dims, call.whole(call.shape()[-1], "windows slide over it"))


@rule("aten::pixel_shuffle")
def pixel_shuffle(call: Call) -> Dims:
    """Channels c x r x r to places."""
    dims, r = call.dims(call["self"]), call["upscale_factor"]
    halves = terms.split_product(dims[-3], r * r)
    if halves is None:
        raise NoRule("sub-pixels that cut across units")
    call.freeze(halves[1], "sub-pixels")
    _freeze(call, call["self"], (-1, -2), "sub-pixels")
    return (*dims[:-3], halves[0], *(call.whole(size, "sub-pixels") for size in call.shape()[-2:]))


@rule("aten::pixel_unshuffle")
def pixel_unshuffle(call: Call) -> Dims:
    """Places to channels c x r x r."""
    dims, r = call.dims(call["self"]), call["downscale_factor"]
    _freeze(call, call["self"], (-1, -2), "sub-pixels")
    inner: Term = call.whole(r * r, "sub-pixels")
    shape: list[Any] = call.shape()[-2:]
    return (*dims[:-3], terms.prod([dims[-3], inner]), *(call.whole(size, "sub-pixels") for size in shape))
