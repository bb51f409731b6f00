"""Dimensions under a cut: which of their positions survive, how many, and one factor for each."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from isthmus.nets.axes import terms
from isthmus.nets.axes.terms import Atom, Cat, Indices, Prod, Term
from isthmus.nets.graph.sizes import Size, product


def evaluate(term: Term, kept: Mapping[Atom, Indices], opened: Mapping[Size, int] | None = None) -> Indices | None:
    """Return the sorted positions of a dimension that survive when atoms keep ``kept``; None for all.

    ``opened`` gives the numbers that open sizes stand for, where the dimension holds any.

    >>> h, d = Atom(3), Atom(2)
    >>> evaluate(Prod((h, d)), {h: np.array([0, 2])}).tolist()
    [0, 1, 4, 5]
    >>> evaluate(Cat((h, d)), {d: np.array([1])}).tolist()
    [0, 1, 2, 4]
    """
    term = terms.resolve(term)
    if isinstance(term, Atom):
        return kept.get(term)
    if not any(atom in kept for atom in terms.leaves(term)):
        return None
    return _positions(term, kept, opened or {})


def owners(term: Term, atom: Atom) -> Indices | None:
    """Return for every position of a dimension the unit of an atom that it belongs to, -1 where to none.

    None where that is not one unit (the atom stands twice in a product), or where a size is open.

    >>> h, d = Atom(3), Atom(2)
    >>> owners(Prod((h, d)), h).tolist()
    [0, 0, 1, 1, 2, 2]
    """
    term = terms.resolve(term)
    if isinstance(term, Atom):
        if not isinstance(term.size, int):
            return None
        return np.arange(term.size) if term is atom else np.full(term.size, -1)
    inner = [owners(part, atom) for part in (term.factors if isinstance(term, Prod) else term.parts)]
    known = [each for each in inner if each is not None]
    if len(known) < len(inner):
        return None
    if isinstance(term, Cat):
        return np.concatenate(known)
    if sum(atom in terms.leaves(factor) for factor in term.factors) > 1:
        return None
    result = np.full(1, -1)
    for units in known:
        result = np.maximum.outer(result, units).ravel()
    return result


def size_under(term: Term, kept: Mapping[Atom, Indices]) -> Size:
    """Return the size of a dimension when atoms keep ``kept``; symbolic where the term is."""
    term = terms.resolve(term)
    if isinstance(term, Atom):
        return len(kept[term]) if term in kept else term.size
    if isinstance(term, Prod):
        return product(size_under(factor, kept) for factor in term.factors)
    return sum(size_under(part, kept) for part in term.parts)


def spread(term: Term, values: Mapping[Atom, float | NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return one factor per position of a dimension: the product of the values (one, or one a unit) of its atoms."""
    term = terms.resolve(term)
    if isinstance(term, Atom):
        return np.full(_static(term.size), values.get(term, 1.0))
    if isinstance(term, Prod):
        result = np.ones(1)
        for factor in term.factors:
            result = np.multiply.outer(result, spread(factor, values)).ravel()
        return result
    return np.concatenate([spread(part, values) for part in term.parts])


def _positions(term: Term, kept: Mapping[Atom, Indices], opened: Mapping[Size, int]) -> Indices:
    if isinstance(term, Atom):
        return kept[term] if term in kept else np.arange(_static(term.size, opened))
    if isinstance(term, Prod):
        result = np.zeros(1, np.int64)
        for factor in term.factors:
            size = _static(terms.size(factor), opened)
            result = np.add.outer(result * size, _positions(factor, kept, opened)).ravel()
        return result
    pieces, offset = [], 0
    for part in term.parts:
        pieces.append(_positions(part, kept, opened) + offset)
        offset += _static(terms.size(part), opened)
    return np.concatenate(pieces)


def _static(value: Size, opened: Mapping[Size, int] | None = None) -> int:
    if not isinstance(value, int):
        value = value.subs(opened or {})
        if not value.is_Integer:
            raise TypeError(f"a dimension of open size {value} has no index set")
    return int(value)
