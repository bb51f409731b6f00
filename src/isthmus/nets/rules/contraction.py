"""Operators that sum over dimensions: products with weights, products of activations, sums, look-ups."""

from __future__ import annotations

from torch import fx

from isthmus.nets.axes import terms
from isthmus.nets.axes.call import Call, NoRule
from isthmus.nets.axes.records import Dims
from isthmus.nets.axes.registry import rule
from isthmus.nets.axes.terms import ONE, Term


def _product(call: Call, a: fx.Node, a_dim: int, b: fx.Node, b_dim: int) -> None:
    """Sum over a dimension of ``a`` against one of ``b``."""
    term, other = call.dims(a)[a_dim], call.dims(b)[b_dim]
    call.unify(term, other)
    activations = a not in call.propagation.from_state and b not in call.propagation.from_state
    operand, dim, partner = (b, b_dim, (a, a_dim)) if a in call.propagation.from_state else (a, a_dim, (b, b_dim))
    if activations:
        call.contract(operand, dim, "activation")
        terms.tag(term, "head_dim")
    else:
        call.contract(operand, dim, "weight", weight=partner)


def _tag_heads(call: Call, a: fx.Node, b: fx.Node, shared: list[Term]) -> None:
    """Dimensions that run along both activations of a product without being summed over are heads."""
    if a not in call.propagation.from_state and b not in call.propagation.from_state:
        for term in shared:
            terms.tag(term, "head")


def _tag_matrices(call: Call, a: fx.Node, b: fx.Node, shared: list[Term]) -> None:
    """Units with a matrix each, of a weight: experts, if something chooses between them."""
    if (a in call.propagation.from_state) != (b in call.propagation.from_state):
        for term in shared:
            terms.tag(term, "matrices")


@rule("aten::linear")
def linear(call: Call) -> Dims:
    """y[.., o] = sum_i x[.., i] w[o, i] + bias[o]."""
    x, weight, bias = call["input"], call["weight"], call["bias"]
    _product(call, x, -1, weight, -1)
    rows = call.dims(weight)[:-1]
    if bias is not None and rows:
        call.unify(rows[0], call.dims(bias)[0])
    return (*call.dims(x)[:-1], *rows)


@rule("aten::matmul", "aten::mm", "aten::bmm", "aten::mv", "aten::dot", "aten::vdot", "aten::_sparse_mm")
def matmul(call: Call) -> Dims:
    """Matrix products, batched and of vectors, as torch.matmul broadcasts them."""
    a, b, *_ = call.arguments.values()  # of many names
    left, right = call.dims(a), call.dims(b)
    _product(call, a, -1, b, -1 if len(right) == 1 else -2)
    batch = call.broadcast([left[:-2], right[:-2]])
    _tag_heads(call, a, b, list(batch))
    _tag_matrices(call, a, b, list(batch))
    return (*batch, *left[-2:-1], *(right[-1:] if len(right) > 1 else ()))


@rule("aten::addmm", "aten::baddbmm", "aten::addmv", "aten::_sparse_addmm")
def add_product(call: Call) -> Dims:
    """self + a @ b."""
    a = call["mat1"] or call["batch1"] or call["mat"]
    b = call["mat2"] or call["batch2"] or call["vec"]
    left, right = call.dims(a), call.dims(b)
    _product(call, a, -1, b, -1 if len(right) == 1 else -2)
    batch = call.broadcast([left[:-2], right[:-2]])
    result = (*batch, *left[-2:-1], *(right[-1:] if len(right) > 1 else ()))
    return call.broadcast([result, call.dims(call["self"])])


@rule("aten::_grouped_mm", "transformers::grouped_mm_fallback")
def grouped_product(call: Call) -> Dims:
    """Rows of x, sorted by expert, times the matrix of their expert; the offsets say where each expert's rows end."""
    x = call["self"] if call["self"] is not None else call["input"]
    matrices = call["mat2"] if call["mat2"] is not None else call["weight"]
    if len(call.dims(x)) != 2 or len(call.dims(matrices)) != 3 or call["offs"] is None or call["bias"] is not None:
        raise NoRule("a grouped product of another form")
    _product(call, x, 1, matrices, 1)
    experts = call.dims(matrices)[0]
    call.unify(experts, call.dims(call["offs"])[0])
    terms.choose(experts, f"groups of a product ({call.where})")
    terms.tag(experts, "matrices")
    return (call.dims(x)[0], call.dims(matrices)[-1])


@rule("aten::outer", "aten::ger")
def outer(call: Call) -> Dims:
    """x[i] y[j]."""
    return (*call.dims(call["self"]), *call.dims(call["vec2"]))


@rule("aten::tensordot")
def tensordot(call: Call) -> Dims:
    """Sums over given dimensions of both operands."""
    a, b = call["self"], call["other"]
    left, right = call.dims(a), call.dims(b)
    first, second = [d % len(left) for d in call["dims_self"]], [d % len(right) for d in call["dims_other"]]
    for i, j in zip(first, second, strict=True):
        _product(call, a, i, b, j)
    return (
        *(term for i, term in enumerate(left) if i not in first),
        *(term for j, term in enumerate(right) if j not in second),
    )


@rule("aten::einsum")
def einsum(call: Call) -> Dims:
    """Letters name dimensions; those missing from the result are summed over."""
    operands = call["tensors"]
    letters, result = _spelled(call["equation"].replace(" ", ""), [len(call.dims(operand)) for operand in operands])
    named: dict[str, Term] = {}
    for text, operand in zip(letters, operands, strict=True):
        if len(set(text)) != len(text):
            raise NoRule("einsum that takes a diagonal")
        for letter, term in zip(text, call.dims(operand), strict=True):
            if terms.size(named.get(letter, ONE)) == 1:
                named[letter] = term
            elif terms.size(term) != 1:
                call.unify(named[letter], term)
    _einsum_sums(call, letters, operands, result)
    return tuple(named[letter] for letter in result)


def _spelled(equation: str, ranks: list[int]) -> tuple[list[str], str]:
    """Return the letters of every operand and of the result, with an ellipsis and an implied result spelled out."""
    inputs, arrow, result = equation.partition("->")
    texts = inputs.split(",")
    counts = [rank - len(text.replace("...", "")) for text, rank in zip(texts, ranks, strict=True)]
    dots = "".join(chr(ord("α") + i) for i in range(max(counts)))  # aligned from the right
    letters = [text.replace("...", dots[len(dots) - count :]) for text, count in zip(texts, counts, strict=True)]
    if not arrow:
        named = "".join(letters)
        result = "..." + "".join(sorted(c for c in set(named) if named.count(c) == 1 and c not in dots))
    return letters, result.replace("...", dots)


def _einsum_sums(call: Call, letters: list[str], operands: list[fx.Node], result: str) -> None:
    moving = [i for i, operand in enumerate(operands) if operand not in call.propagation.from_state]
    for letter in dict.fromkeys("".join(letters)):
        found = {i: call.dims(operands[i])[text.index(letter)] for i, text in enumerate(letters) if letter in text}
        holders = [i for i, term in found.items() if terms.size(term) != 1]  # where it is 1 it is stretched
        if not holders:
            continue
        active = [i for i in holders if i in moving]
        chosen = (active or holders)[0]
        dim, term = letters[chosen].index(letter), found[chosen]
        if letter not in result:
            kind = "sum" if len(holders) == 1 else "activation" if len(active) > 1 else "weight"
            weights = [i for i in holders if i not in moving and i != chosen]
            weight = (operands[weights[0]], letters[weights[0]].index(letter)) if weights else None
            call.contract(operands[chosen], dim, kind, weight=weight)
            if len(active) > 1:  # with a weight besides: the heads' projection
                terms.tag(term, "head_dim" if len(active) == len(holders) else "head")
        elif len(active) > 1:
            terms.tag(term, "head")
        elif active and len(holders) > 1:
            terms.tag(term, "matrices")


@rule("aten::scaled_dot_product_attention")
def attention(call: Call) -> Dims:
    """softmax(q k' * scale + mask) v over [batch.., positions, width]."""
    q, k, v = (call.dims(call[name]) for name in ("query", "key", "value"))
    mask = () if call["attn_mask"] is None else call.dims(call["attn_mask"])
    _product(call, call["query"], -1, call["key"], -1)
    call.unify(k[-2], v[-2])
    for term in (k[-2], v[-2]):
        call.freeze(term, "softmax over this axis")
    call.freeze(q[-2], "positions of attention")
    terms.tag(q[-1], "head_dim")
    if call["enable_gqa"]:
        batch = _grouped_heads(call, q[:-2], k[:-2], v[:-2])
    else:
        batch = call.broadcast([q[:-2], k[:-2], v[:-2]])
    if mask:
        call.broadcast([(*batch, q[-2], k[-2]), mask])
    for term in batch:
        terms.tag(term, "head")
    return (*batch, q[-2], v[-1])


def _grouped_heads(call: Call, q: Dims, k: Dims, v: Dims) -> Dims:
    """Heads of the query = heads of key and value x group."""
    call.unify(k[-1], v[-1])
    halves = terms.split_product(q[-1], terms.size(q[-1]) // terms.size(k[-1]))
    if halves is None:
        raise NoRule("grouped heads that do not divide")
    call.unify(halves[0], k[-1])
    return (*call.broadcast([q[:-1], k[:-1], v[:-1]]), q[-1])


@rule("aten::embedding")
def embedding(call: Call) -> Dims:
    """Rows of a table, chosen by the data."""
    rows, width = call.dims(call["weight"])
    call.freeze(rows, "looked up by index")
    terms.tag(width, "embedding")
    return (*call.dims(call["indices"]), width)


@rule("aten::sum")
def total(call: Call) -> Dims:
    """Sum over dimensions; units a subnetwork lacks contribute nothing."""
    operand = call["self"]
    for dim in reduced(call):
        call.contract(operand, dim, "sum")
    return kept(call, reduced(call))


def reduced(call: Call) -> list[int]:
    """Return the dimensions a reduction runs over, as non-negative positions."""
    rank = len(call.dims(call["self"]))
    given = call["dim"]
    if given is None or given == []:
        return list(range(rank))
    return [d % rank for d in (given if isinstance(given, (list, tuple)) else [given])] if rank else []


def kept(call: Call, gone: list[int]) -> Dims:
    """Return the dimensions a reduction leaves."""
    dims = call.dims(call["self"])
    if call["keepdim"]:
        return tuple(ONE if i in gone else term for i, term in enumerate(dims))
    return tuple(term for i, term in enumerate(dims) if i not in gone)
