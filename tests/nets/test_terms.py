"""The algebra of axes against index arrays made by numpy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.nets.axes import terms
from isthmus.nets.axes.evaluation import evaluate, owners, size_under, spread
from isthmus.nets.axes.terms import ONE, Atom, Cat, Prod, Term
from isthmus.nets.pieces.held import _positions

atoms = st.integers(2, 4).map(Atom)
any_terms = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.lists(inner, min_size=2, max_size=3).map(lambda t: Prod(tuple(t))),
        st.lists(inner, min_size=2, max_size=3).map(lambda t: Cat(tuple(t))),
    ),
    max_leaves=4,
)
quick = settings(max_examples=100)


def labels(term: Term) -> list[frozenset[tuple[Atom, int]]]:
    """For every position of a dimension, the units it belongs to: the slow way."""
    term = terms.resolve(term)
    if isinstance(term, Atom):
        return [frozenset({(term, i)}) for i in range(term.size)]
    if isinstance(term, Cat):
        return [label for part in term.parts for label in labels(part)]
    result: list[frozenset[tuple[Atom, int]]] = [frozenset()]
    for factor in term.factors:
        result = [a | b for a in result for b in labels(factor)]
    return result


def random_kept(term: Term, data: st.DataObject) -> dict[Atom, np.ndarray]:
    kept = {}
    for atom in terms.leaves(term):
        if data.draw(st.booleans()):
            chosen = data.draw(st.sets(st.integers(0, atom.size - 1), min_size=1))
            kept[atom] = np.array(sorted(chosen))
    return kept


@quick
@given(any_terms, st.data())
def test_evaluate_keeps_the_positions_of_kept_units(term: Term, data: st.DataObject) -> None:
    kept = random_kept(term, data)
    wanted = [i for i, label in enumerate(labels(term)) if all(a not in kept or i in kept[a] for a, i in label)]
    found = evaluate(term, kept)
    assert (list(range(terms.size(term))) if found is None else found.tolist()) == wanted
    assert size_under(term, kept) == len(wanted)


@quick
@given(any_terms)
def test_owners_say_which_unit_a_position_belongs_to(term: Term) -> None:
    for atom in terms.leaves(term):
        mine = [[i for a, i in label if a is atom] for label in labels(term)]
        found = owners(term, atom)
        assert found is not None  # these terms hold every atom once
        assert found.tolist() == [units[0] if units else -1 for units in mine]


def test_a_position_of_two_units_has_no_owner() -> None:
    twice, other = Atom(3), Atom(2)
    assert owners(Prod((twice, other, twice)), twice) is None
    assert owners(Cat((Prod((twice, twice)), other)), twice) is None
    assert owners(Cat((twice, other, twice)), twice).tolist() == [0, 1, 2, -1, -1, 0, 1, 2]


@quick
@given(any_terms, st.integers(1, 12))
def test_split_product_is_a_reshape(term: Term, inner: int) -> None:
    halves = terms.split_product(term, inner)
    if halves is None:
        return
    outer, rest = halves
    assert (terms.size(outer), terms.size(rest)) == (terms.size(term) // inner, inner)
    assert labels(term) == labels(Prod((outer, rest)))


@quick
@given(any_terms, st.integers(1, 20))
def test_split_at_is_a_slice(term: Term, offset: int) -> None:
    halves = terms.split_at(term, offset)
    if halves is None:
        return
    left, right = halves
    assert labels(term) == labels(left) + labels(right)
    assert terms.size(left) == offset


@settings(max_examples=200)
@given(any_terms, any_terms)
def test_unified_terms_keep_the_same_positions_or_everything(a: Term, b: Term) -> None:
    """After unification every cut that is still allowed cuts both dimensions at the same places."""
    terms.unify(a, b)
    free = [atom for atom in dict.fromkeys(terms.leaves(a) + terms.leaves(b)) if not atom.reasons]
    for atom in free:
        kept = {atom: np.arange(atom.size - 1)}
        first, second = evaluate(a, kept), evaluate(b, kept)
        assert np.array_equal(first, second) if first is not None and second is not None else first is second
    if terms.size(a) == terms.size(b) and free == list(dict.fromkeys(terms.leaves(a) + terms.leaves(b))):
        assert labels(a) == labels(b)


@settings(max_examples=200)
@given(st.lists(any_terms, min_size=1, max_size=2), st.data())
def test_regroup_is_a_row_major_reshape(dims: list[Term], data: st.DataObject) -> None:
    total = int(np.prod([terms.size(term) for term in dims]))
    first = data.draw(st.sampled_from([k for k in range(1, total + 1) if total % k == 0]))
    result = terms.regroup(dims, [first, total // first], "mixed")
    assert [terms.size(term) for term in result] == [first, total // first]
    everything = [atom for term in (*dims, *result) for atom in terms.leaves(term)]
    if not any(atom.reasons for atom in everything):
        assert labels(Prod(tuple(dims))) == labels(Prod(tuple(result)))
    for atom in everything:
        if not atom.reasons:  # whatever may still be cut, is cut alike on both sides
            kept = {atom: np.array([0])}
            before = evaluate(Prod(tuple(dims)), kept)
            assert before is not None
            assert np.array_equal(before, evaluate(Prod(tuple(result)), kept))


def test_the_order_of_factors_matters() -> None:
    heads, width = Atom(3), Atom(2)
    kept = {heads: np.array([1])}
    assert evaluate(Prod((heads, width)), kept).tolist() == [2, 3]
    assert evaluate(Prod((width, heads)), kept).tolist() == [1, 4]


def test_what_cannot_be_aligned_is_frozen_with_its_reason() -> None:
    a, b = Prod((Atom(4), Atom(6))), Prod((Atom(6), Atom(4)))
    terms.unify(a, b, "because")
    assert all(list(atom.reasons) == ["because"] for atom in terms.leaves(a) + terms.leaves(b))


def test_reasons_and_tags_pass_to_what_an_atom_becomes() -> None:
    atom = Atom(12, reasons={"input": None}, tags={"stream"})
    halves = terms.split_product(atom, 4)
    assert halves is not None
    for leaf in terms.leaves(Prod(halves)):
        assert "input" in leaf.reasons
        assert "stream" in leaf.tags


@pytest.mark.parametrize("size", [1])
def test_one_holds_no_units(size: int) -> None:
    assert terms.fresh(size) == ONE
    assert terms.leaves(ONE) == []


@quick
@given(any_terms, st.data())
def test_spread_multiplies_along_units(term: Term, data: st.DataObject) -> None:
    values = {atom: data.draw(st.sampled_from([1.0, 2.0, 0.5])) for atom in terms.leaves(term)}
    wanted = [np.prod([values[a] for a, _ in label]) for label in labels(term)]
    assert spread(term, values).tolist() == wanted


def test_the_quick_way_to_index_sets_gives_what_the_slow_one_gives() -> None:
    """Products and concatenations, an atom first, last, between others and twice; one of them cut, both, none."""
    a, b, kept = Atom(5), Atom(4), {"a": np.array([0, 3]), "b": np.array([1, 2, 3])}
    made = [
        Prod((a, b)), Prod((b, a)), Prod((Atom(3), a, b)), Prod((a, b, a)), Cat((a, Atom(2), b, a)),
        Prod((Cat((b, a)), Atom(2))), Prod((Cat((a, a)), b, Atom(3))),
    ]  # fmt: skip
    for term in made:
        positions = _positions(term, frozenset((a, b)))
        for chosen in ({}, {a: kept["a"]}, {b: kept["b"]}, {a: kept["a"], b: kept["b"]}, {a: kept["b"]}):
            found, slow = positions(chosen), evaluate(term, chosen)
            assert (found is None) == (slow is None)
            assert found is None or np.array_equal(found, slow)
