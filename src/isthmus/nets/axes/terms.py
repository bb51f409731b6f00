"""The algebra of axes: what one dimension of a tensor is made of.

A dimension is a *term* over *atoms*, the sets of units that are kept or dropped together::

    Atom(size)              units of their own
    Prod(outer, .., inner)  row-major product: heads x head_dim, channels x height x width
    Cat(first, .., last)    concatenation: a fused q|k|v, the inputs of a skip connection

Atoms are nodes of a union-find structure: :func:`unify` states that two terms name the same units, and may bind an
atom to a finer term (12 = Prod(3, 4)). What cannot be aligned is frozen, with a reason: it is then kept whole
everywhere, which is always right. A term of size 1 is the empty product and holds no units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from isthmus.nets.graph.sizes import Size, divide, product

Indices = NDArray[np.int64]


@dataclass(eq=False)
class Atom:
    """A set of units.

    Attributes:
        size: number of units.
        bound: the finer term this atom was found to be, if any.
        reasons: why it must be kept whole (none: it may be cut).
        choices: why it must be kept whole unless its units are experts, among whose scores a worker chooses anew.
        tags: what the rules noticed ("norm", "stream", "head", "head_dim", "channel", "embedding"; "own_norm": a norm
            of weights alone, or one that is only returned).
    """

    size: Size
    bound: Term | None = None
    reasons: dict[str, None] = field(default_factory=dict)
    tags: set[str] = field(default_factory=set)
    choices: dict[str, None] = field(default_factory=dict)


@dataclass(frozen=True)
class Prod:
    """Row-major product of terms, outermost first; ``Prod(())`` is the term of size 1."""

    factors: tuple[Term, ...]


@dataclass(frozen=True)
class Cat:
    """Concatenation of terms."""

    parts: tuple[Term, ...]


Term = Atom | Prod | Cat
ONE = Prod(())
OPEN = "its size is open (batch, sequence or image size)"


def fresh(size: Size, reason: str | None = None) -> Term:
    """Return a new atom; size 1 holds no units, and an open size is never cut."""
    if size == 1:
        return ONE
    atom = Atom(size)
    if not isinstance(size, int):
        atom.reasons[OPEN] = None
    if reason is not None:
        atom.reasons[reason] = None
    return atom


def resolve(term: Term) -> Term:
    """Return the term with bound atoms replaced, nested products and concatenations flattened."""
    if isinstance(term, Atom):
        if term.bound is None:
            return term
        if not (isinstance(term.bound, Atom) and term.bound.bound is None):
            term.bound = resolve(term.bound)  # the way there is short from now on
        return term.bound
    if isinstance(term, Prod):
        return prod(term.factors)
    return cat(term.parts)


def prod(terms: Iterable[Term]) -> Term:
    """Return the product of terms, flattened."""
    flat: list[Term] = []
    for term in map(resolve, terms):
        flat.extend(term.factors if isinstance(term, Prod) else [term])
    return flat[0] if len(flat) == 1 else Prod(tuple(flat))


def cat(terms: Iterable[Term]) -> Term:
    """Return the concatenation of terms, flattened."""
    flat: list[Term] = []
    for term in map(resolve, terms):
        flat.extend(term.parts if isinstance(term, Cat) else [term])
    return flat[0] if len(flat) == 1 else Cat(tuple(flat))


def size(term: Term) -> Size:
    """Return the number of entries of a term."""
    if isinstance(term, Atom):
        return term.size
    if isinstance(term, Prod):
        return product(size(factor) for factor in term.factors)
    return sum(size(part) for part in term.parts)


def leaves(term: Term) -> list[Atom]:
    """Return the unbound atoms of a term, from left to right, each once."""
    term = resolve(term)
    if isinstance(term, Atom):
        return [term]
    inner = term.factors if isinstance(term, Prod) else term.parts
    return list(dict.fromkeys(atom for piece in inner for atom in leaves(piece)))


def freeze(term: Term, reason: str) -> None:
    """Keep all units of a term whole."""
    for atom in leaves(term):
        atom.reasons[reason] = None


def choose(term: Term, reason: str) -> None:
    """Keep all units of a term whole unless they are experts."""
    for atom in leaves(term):
        atom.choices[reason] = None


def tag(term: Term, name: str) -> None:
    """Note a property on all units of a term."""
    for atom in leaves(term):
        atom.tags.add(name)


def is_frozen(term: Term) -> bool:
    """Whether no unit of the term may be cut."""
    return all(atom.reasons or atom.choices for atom in leaves(term))


def is_hard(term: Term) -> bool:
    """Whether no unit of the term may be cut, experts or not."""
    return all(atom.reasons for atom in leaves(term))


def unify(a: Term, b: Term, reason: str = "two layouts of its units cannot be aligned") -> None:
    """State that two terms name the same units; what cannot be aligned is frozen with ``reason``."""
    a, b = resolve(a), resolve(b)
    if a == b:
        return
    if size(a) != size(b):
        freeze(a, reason)
        freeze(b, reason)
    elif isinstance(a, Atom):
        _bind(a, b, reason)
    elif isinstance(b, Atom):
        _bind(b, a, reason)
    elif isinstance(a, Prod) and isinstance(b, Prod):
        _unify_products(a, b, reason)
    else:
        _unify_concatenations(a, b, reason)


def split_product(term: Term, inner: Size) -> tuple[Term, Term] | None:
    """Split a term as Prod(outer, inner term of the given size), binding atoms; None where that is impossible."""
    term = resolve(term)
    quotient = divide(size(term), inner)
    if quotient is None:
        return None
    if inner == 1:
        return term, ONE
    if quotient == 1:
        return ONE, term
    if isinstance(term, Atom):
        pair = fresh(quotient), fresh(inner)
        _bind(term, Prod(pair), "")
        return pair
    if isinstance(term, Prod):
        return _split_factors(list(term.factors), inner)
    halves = [split_product(part, inner) for part in term.parts]
    if any(half is None for half in halves):
        return None
    pieces = [half for half in halves if half is not None]
    for _, other in pieces[1:]:
        unify(pieces[0][1], other)
    return cat(outer for outer, _ in pieces), resolve(pieces[0][1])


def split_at(term: Term, offset: Size) -> tuple[Term, Term] | None:
    """Split a term as Cat(left of the given size, right), binding atoms; None where that is impossible."""
    term = resolve(term)
    total = size(term)
    if not isinstance(offset, int) or not isinstance(total, int) or not 0 < offset < total:
        return None
    if isinstance(term, Atom):
        left, right = fresh(offset), fresh(total - offset)
        _bind(term, Cat((left, right)), "")
        return left, right
    if isinstance(term, Prod):
        outer, rest = term.factors[0], prod(term.factors[1:])
        steps = divide(offset, size(rest))
        halves = None if steps is None else split_at(outer, steps)
        return None if halves is None else (prod([halves[0], rest]), prod([halves[1], rest]))
    return _split_parts(list(term.parts), offset)


def regroup(terms: Sequence[Term], sizes: Sequence[Size], reason: str) -> list[Term]:
    """Return the terms of a tensor after a row-major reshape of dimensions ``terms`` to ``sizes``.

    Factors are dealt from the right, splitting atoms where a new dimension begins inside one.
    """
    pool = [factor for term in terms for factor in _factors(term)]
    result: list[Term] = []
    for want in reversed(sizes):
        taken = _take(pool, want)
        if taken is None:
            return _outer(pool, sizes[: len(sizes) - len(result)], reason) + result
        result.insert(0, taken)
    if size(prod(pool)) != 1:
        for term in [*pool, *result]:
            freeze(term, reason)
    return result


def describe(term: Term, name: Callable[[Atom], str]) -> str:
    """Return a term as text: ``heads x 64``, ``a | b``."""
    term = resolve(term)
    if isinstance(term, Atom):
        return name(term)
    if isinstance(term, Prod):
        return " x ".join(f"({describe(f, name)})" if isinstance(f, Cat) else describe(f, name) for f in term.factors)
    return " | ".join(describe(part, name) or "1" for part in term.parts)


def _factors(term: Term) -> list[Term]:
    term = resolve(term)
    return list(term.factors) if isinstance(term, Prod) else [term]


def _parts(term: Term) -> list[Term]:
    term = resolve(term)
    return list(term.parts) if isinstance(term, Cat) else [term]


def _bind(atom: Atom, term: Term, reason: str) -> None:
    if isinstance(term, Atom) and len(term.reasons) > len(atom.reasons):
        atom, term = term, atom
    inside = leaves(term)
    if atom in inside:  # the same units named at two places: only the whole is consistent
        freeze(term, reason)
        return
    for leaf in inside:
        leaf.reasons.update(atom.reasons)
        leaf.choices.update(atom.choices)
        leaf.tags |= atom.tags
    atom.bound = term


def _unify_products(a: Prod, b: Prod, reason: str) -> None:
    left, right = list(a.factors), list(b.factors)
    while left and right:
        x, y = left.pop(), right.pop()
        if size(x) == size(y):
            unify(x, y, reason)
            continue
        if divide(size(x), size(y)) is not None:
            longer, short, rest = x, y, left
        else:
            longer, short, rest = y, x, right
        halves = split_product(longer, size(short))
        if halves is None:
            for term in (x, y, *left, *right):
                freeze(term, reason)
            return
        unify(halves[1], short, reason)
        rest.extend(_factors(halves[0]))


def _unify_concatenations(a: Term, b: Term, reason: str) -> None:
    left, right = _parts(a), _parts(b)
    while left and right:
        x, y = left.pop(0), right.pop(0)
        if size(x) == size(y):
            unify(x, y, reason)
            continue
        first, second = size(x), size(y)
        if isinstance(first, int) and isinstance(second, int):
            longer, offset, rest = (x, second, left) if first > second else (y, first, right)
            halves = split_at(longer, offset)
            if halves is not None:
                unify(halves[0], y if longer is x else x, reason)
                rest.insert(0, halves[1])
                continue
        for term in (x, y, *left, *right):
            freeze(term, reason)
        return


def _split_factors(factors: list[Term], inner: Size) -> tuple[Term, Term] | None:
    taken = _take(factors, inner)
    return None if taken is None else (prod(factors), taken)


def _take(pool: list[Term], want: Size) -> Term | None:
    """Take factors of total size ``want`` from the right end of ``pool``; None leaves them all in it, to be frozen."""
    taken: list[Term] = []
    while want != 1:
        if not pool:
            pool.extend(taken)
            return None
        factor = pool.pop()
        left = divide(want, size(factor))
        if left is not None:
            taken.insert(0, factor)
            want = left
            continue
        halves = split_product(factor, want)
        if halves is None:
            pool.append(factor)
            pool.extend(taken)
            return None
        taken.insert(0, halves[1])
        pool.extend(_factors(halves[0]))
        want = 1
    return prod(taken)


def _outer(pool: list[Term], sizes: Sequence[Size], reason: str) -> list[Term]:
    """Return the leading dimensions of a reshape: whole factors dealt from the left, what lies between is frozen."""
    result: list[Term] = []
    for want in sizes:
        count = next((n for n in range(len(pool) + 1) if size(prod(pool[:n])) == want), None)
        if count is None:
            break
        result.append(prod(pool[:count]))
        del pool[:count]
    for term in pool:
        freeze(term, reason)
    return result + [fresh(each, reason) for each in sizes[len(result) :]]


def _split_parts(parts: list[Term], offset: int) -> tuple[Term, Term] | None:
    left: list[Term] = []
    while offset > 0:
        part = parts.pop(0)
        length = size(part)
        if not isinstance(length, int):
            return None
        if length > offset:
            halves = split_at(part, offset)
            if halves is None:
                return None
            part, rest = halves
            parts.insert(0, rest)
            length = offset
        left.append(part)
        offset -= length
    return cat(left), cat(parts)
