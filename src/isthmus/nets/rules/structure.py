"""Operators that only move entries: views, permutations, concatenations, slices, repetitions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import fx

from isthmus.nets.axes import terms
from isthmus.nets.axes.call import Call, NoRule
from isthmus.nets.axes.records import Dims, Value
from isthmus.nets.axes.registry import rule
from isthmus.nets.axes.terms import ONE, Term
from isthmus.nets.graph.sizes import divide, size_of


def _regroup(call: Call, dims: Dims, shape: list[Any]) -> Dims:
    return tuple(terms.regroup(dims, shape, f"a reshape mixes its units ({call.where})"))


@rule("aten::view", "aten::reshape", "aten::_unsafe_view")
def view(call: Call) -> Dims:
    """The same entries in row-major order under other sizes."""
    name = "size" if call["size"] is not None else "shape"
    if call[name] is None:
        raise NoRule("a view as another type")
    result = _regroup(call, call.dims(call["self"]), call.shape())
    for index, term in enumerate(result):
        call.resize(name, term, index)
    return result


@rule("aten::flatten", "aten::ravel")
def flatten(call: Call) -> Dims:
    """Neighbouring dimensions become one."""
    return _regroup(call, call.dims(call["self"]), call.shape())


@rule("aten::view_as", "aten::reshape_as")
def view_as(call: Call) -> Dims:
    """The shape of another tensor."""
    result = _regroup(call, call.dims(call["self"]), call.shape())
    for a, b in zip(result, call.dims(call["other"]), strict=True):
        call.unify(a, b)
    return result


@rule("aten::unflatten")
def unflatten(call: Call) -> Dims:
    """One dimension becomes several."""
    dims, sizes = call.dims(call["self"]), call["sizes"]
    dim = call["dim"] % len(dims)
    parts = _regroup(call, (dims[dim],), call.shape()[dim : dim + len(sizes)])
    for index, term in enumerate(parts):
        call.resize("sizes", term, index)
    return (*dims[:dim], *parts, *dims[dim + 1 :])


@rule("aten::unsqueeze")
def unsqueeze(call: Call) -> Dims:
    """A new dimension of size 1."""
    dims = list(call.dims(call["self"]))
    dims.insert(call["dim"] % (len(dims) + 1), ONE)
    return tuple(dims)


@rule("aten::squeeze")
def squeeze(call: Call) -> Dims:
    """Named dimensions go, if their size is 1."""
    dims = call.dims(call["self"])
    gone = {d % len(dims) for d in call["dim"] if terms.size(dims[d]) == 1}
    for d in call["dim"]:
        call.freeze(dims[d], "squeezed where one unit is left")
    return tuple(term for i, term in enumerate(dims) if i not in gone)


@rule("aten::transpose", "aten::swapaxes", "aten::swapdims")
def transpose(call: Call) -> Dims:
    """Two dimensions change places."""
    dims = list(call.dims(call["self"]))
    first, second = (call[a] if call[a] is not None else call[b] for a, b in (("dim0", "axis0"), ("dim1", "axis1")))
    if dims:
        dims[first], dims[second] = dims[second], dims[first]
    return tuple(dims)


@rule("aten::permute")
def permute(call: Call) -> Dims:
    """Dimensions in another order."""
    dims = call.dims(call["self"])
    return tuple(dims[d] for d in call["dims"])


@rule("aten::movedim", "aten::moveaxis")
def movedim(call: Call) -> Dims:
    """Some dimensions move, the others stay in order."""
    dims = call.dims(call["self"])
    named = call["source"], call["destination"]
    source, target = (value if isinstance(value, (list, tuple)) else [value] for value in named)
    moved = {t % len(dims): dims[s] for s, t in zip(source, target, strict=True)}
    taken = {s % len(dims) for s in source}
    rest = iter(term for i, term in enumerate(dims) if i not in taken)
    return tuple(moved[i] if i in moved else next(rest) for i in range(len(dims)))


@rule("aten::t", "aten::numpy_T")
def reversed_dims(call: Call) -> Dims:
    """All dimensions in reverse order."""
    return call.dims(call["self"])[::-1]


@rule("aten::mT", "aten::mH", "aten::adjoint", "aten::matrix_H")
def matrix_transpose(call: Call) -> Dims:
    """The last two dimensions change places."""
    dims = call.dims(call["self"])
    return (*dims[:-2], dims[-1], dims[-2])


@rule("aten::cat", "aten::concat", "aten::concatenate")
def concatenate(call: Call) -> Dims:
    """Tensors one after the other along a dimension."""
    operands = [call.dims(tensor) for tensor in call["tensors"] if not _is_empty(tensor.meta["val"].shape)]
    if not operands:
        raise NoRule("nothing but empty tensors is concatenated")
    return _joined(call, operands, call["dim"] % len(operands[0]))


def _is_empty(shape: Sequence[Any]) -> bool:
    """Whether it is what ``cat`` passes over; a size that depends on values is not asked."""
    return len(shape) == 1 and isinstance(shape[0], int) and shape[0] == 0


@rule("aten::hstack", "aten::vstack", "aten::column_stack", "aten::dstack")
def stick(call: Call) -> Dims:
    """Tensors one after the other along a dimension the operator's name says."""
    operands = [call.dims(tensor) for tensor in call["tensors"]]
    kind, rank = call.node.target._schema.name, len(operands[0])  # type: ignore[union-attr]
    if (kind == "aten::dstack" and rank < 3) or any(len(dims) != rank for dims in operands):
        raise NoRule("tensors of too few dimensions")
    if rank == 1 and kind == "aten::vstack":
        operands = [(ONE, *dims) for dims in operands]
    if rank == 1 and kind == "aten::column_stack":
        operands = [(*dims, ONE) for dims in operands]
    along = {"aten::vstack": 0, "aten::dstack": 2}.get(kind, len(operands[0]) > 1)
    return _joined(call, operands, int(along))


def _joined(call: Call, operands: list[Dims], dim: int) -> Dims:
    result = list(call.broadcast([(*dims[:dim], ONE, *dims[dim + 1 :]) for dims in operands]))
    result[dim] = terms.cat(dims[dim] for dims in operands)
    return tuple(result)


@rule("aten::stack")
def stack(call: Call) -> Dims:
    """Tensors along a new dimension."""
    operands = [call.dims(tensor) for tensor in call["tensors"]]
    result = list(call.broadcast(operands))
    result.insert(call["dim"] % (len(result) + 1), terms.cat([ONE] * len(operands)))
    return tuple(result)


@rule("aten::split_with_sizes")
def split(call: Call) -> Value:
    """Consecutive pieces of given sizes."""
    dims, sizes = call.dims(call["self"]), call["split_sizes"]
    dim = call["dim"] % len(dims)
    rest, pieces = dims[dim], []
    for number in range(len(sizes) - 1):
        halves = terms.split_at(rest, call.shape(number)[dim])
        if halves is None:
            return _opaque_pieces(call, dim)
        pieces.append(halves[0])
        rest = halves[1]
    pieces.append(rest)
    for number, piece in enumerate(pieces):
        call.resize("split_sizes", piece, number)
    return [(*dims[:dim], piece, *dims[dim + 1 :]) for piece in pieces]


@rule("aten::split", "aten::chunk", "aten::tensor_split")
def split_open(call: Call) -> Value:
    """Pieces of an open dimension."""
    dims = call.dims(call["self"])
    return _opaque_pieces(call, call["dim"] % len(dims))


@rule("aten::unbind")
def unbind(call: Call) -> Value:
    """One tensor per entry of a dimension, which is therefore whole."""
    dims = call.dims(call["self"])
    dim = call["dim"] % len(dims)
    call.freeze(dims[dim], "taken apart by position")
    return [(*dims[:dim], *dims[dim + 1 :]) for _ in call.node.meta["val"]]


@rule("aten::select")
def select(call: Call) -> Dims:
    """One entry of a dimension, by position."""
    dims = call.dims(call["self"])
    dim = call["dim"] % len(dims)
    call.place("index", dims[dim], call["index"], "selected by position")
    if call["self"] in call.propagation.from_state and len(dims) > 2:
        terms.tag(dims[dim], "matrices")
    return (*dims[:dim], *dims[dim + 1 :])


@rule("aten::slice")
def slice_(call: Call) -> Dims:
    """A range of a dimension: a unit of its own where the step is 1."""
    dims = list(call.dims(call["self"]))
    dim = call["dim"] % len(dims)
    total, length = terms.size(dims[dim]), call.shape()[dim]
    start, end = call["start"], call["end"]
    if total == length and call["step"] == 1:
        if isinstance(end, int) and isinstance(total, int) and end == total:
            call.resize("end", dims[dim])
        return tuple(dims)
    pieces = None
    if all(isinstance(value, int) for value in (total, length, start or 0)) and call["step"] == 1:
        first = start or 0
        pieces = _range(dims[dim], first if first >= 0 else max(total + first, 0), length, total)
    if pieces is None:
        call.freeze(dims[dim], "sliced by position")
        dims[dim] = call.whole(length, "sliced by position")
        return tuple(dims)
    before, middle = pieces
    if before is not None:
        call.resize("start", before)
    call.resize("end", middle if before is None else terms.cat([before, middle]))
    dims[dim] = middle
    return tuple(dims)


@rule("aten::narrow")
def narrow(call: Call) -> Dims:
    """A range given by start and length."""
    dims = list(call.dims(call["self"]))
    dim, start, length = call["dim"] % len(dims), call["start"], call["length"]
    total = terms.size(dims[dim])
    pieces = None
    if all(isinstance(value, int) for value in (start, length, total)):
        pieces = (None, dims[dim]) if total == length else _range(dims[dim], start % total, length, total)
    if pieces is None:
        call.freeze(dims[dim], "sliced by position")
        dims[dim] = call.whole(call.shape()[dim], "sliced by position")
        return tuple(dims)
    if pieces[0] is not None:
        call.resize("start", pieces[0])
    call.resize("length", pieces[1])
    dims[dim] = pieces[1]
    return tuple(dims)


@rule("aten::expand")
def expand(call: Call) -> Dims:
    """Dimensions of size 1 are repeated; new ones come first."""
    dims = call.dims(call["self"])
    return _stretch(call, dims, "size")


@rule("aten::broadcast_to")
def broadcast_to(call: Call) -> Dims:
    """As expand."""
    return _stretch(call, call.dims(call["self"]), "size")


@rule("aten::broadcast_tensors")
def broadcast_tensors(call: Call) -> Value:
    """All operands stretched to one shape."""
    operands = [call.dims(tensor) for tensor in call["tensors"]]
    return [call.broadcast(operands) for _ in operands]


@rule("aten::meshgrid")
def meshgrid(call: Call) -> Value:
    """A dimension per operand; "xy" exchanges the first two."""
    result = [term for tensor in call["tensors"] for term in call.dims(tensor) or (ONE,)]
    if call["indexing"] == "xy":
        result[:2] = result[1::-1]
    return [tuple(result) for _ in call["tensors"]]


@rule("aten::diagonal")
def diagonal(call: Call) -> Dims:
    """Entries at one position along two dimensions, which are therefore whole; the diagonal comes last."""
    dims = call.dims(call["self"])
    pair = {call["dim1"] % len(dims), call["dim2"] % len(dims)}
    for position in pair:
        call.freeze(dims[position], "positions along this axis matter")
    rest = (term for i, term in enumerate(dims) if i not in pair)
    return (*rest, call.whole(call.shape()[-1], "positions along this axis matter"))


@rule("aten::diag_embed")
def diag_embed(call: Call) -> Dims:
    """The last dimension as a diagonal of two."""
    *rest, last = call.dims(call["self"])
    call.freeze(last, "positions along this axis matter")
    pair = {call["dim1"] % (len(rest) + 2), call["dim2"] % (len(rest) + 2)}
    others = iter(rest)
    sizes = enumerate(call.shape())
    return tuple(call.whole(n, "positions along this axis matter") if i in pair else next(others) for i, n in sizes)


@rule("aten::channel_shuffle")
def channel_shuffle(call: Call) -> Dims:
    """Channels groups x width become width x groups."""
    dims = call.dims(call["self"])
    width = divide(terms.size(dims[1]), call.count("groups"))
    halves = None if width is None else terms.split_product(dims[1], width)
    if halves is None:
        raise NoRule("groups that cut across units")
    call.resize("groups", halves[0])
    return (dims[0], terms.prod([halves[1], halves[0]]), *dims[2:])


@rule("aten::expand_as")
def expand_as(call: Call) -> Dims:
    """As broadcasting against another tensor."""
    return call.broadcast([call.dims(call["self"]), call.dims(call["other"])])


@rule("aten::repeat", "aten::tile")
def repeat(call: Call) -> Dims:
    """Whole copies one after the other: copies x units."""
    name = "repeats" if call["repeats"] is not None else "dims"
    dims, counts = call.dims(call["self"]), list(call[name])
    lead = len(counts) - len(dims)
    if lead < 0:
        raise NoRule("fewer counts than dimensions")
    result: list[Term] = []
    for index, count in enumerate(counts):
        term = dims[index - lead] if index >= lead else ONE
        if isinstance(count, fx.Node):  # as often as there are samples
            copies = terms.fresh(size_of(count.meta["val"]))
        else:
            copies = terms.fresh(count)
            call.resize(name, copies, index)
        result.append(terms.prod([copies, term]))
    return tuple(result)


@rule("aten::repeat_interleave.self_int")
def repeat_each(call: Call) -> Dims:
    """Every entry several times in place: units x copies."""
    dims, count = list(call.dims(call["self"])), call["repeats"]
    if call["dim"] is None or not isinstance(count, int):
        raise NoRule("a flattening or open repetition")
    copies = terms.fresh(count)
    call.resize("repeats", copies)
    dims[call["dim"]] = terms.prod([dims[call["dim"]], copies])
    if call["output_size"] is not None:
        call.resize("output_size", dims[call["dim"]])
    return tuple(dims)


def _opaque_pieces(call: Call, dim: int) -> Value:
    dims = call.dims(call["self"])
    call.freeze(dims[dim], "split by position")
    count = len(call.node.meta["val"])
    return [(*dims[:dim], call.whole(call.shape(i)[dim], "split by position"), *dims[dim + 1 :]) for i in range(count)]


def _range(term: Term, first: int, length: int, total: int) -> tuple[Term | None, Term] | None:
    """Return (what lies before, the range itself) of a dimension."""
    if length < 1 or terms.is_frozen(term):
        return None
    before: Term | None = None
    if first > 0:
        halves = terms.split_at(term, first)
        if halves is None:
            return None
        before, term = halves
    if first + length < total:
        halves = terms.split_at(term, length)
        if halves is None:
            return None
        term = halves[0]
    return before, term


def _stretch(call: Call, dims: Dims, name: str) -> Dims:
    shape = call.shape()
    lead = len(shape) - len(dims)
    result: list[Term] = []
    for index, size in enumerate(shape):
        term = dims[index - lead] if index >= lead else ONE
        result.append(terms.fresh(size) if terms.size(term) == 1 else term)
        call.resize(name, result[-1], index)
    return tuple(result)
