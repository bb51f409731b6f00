"""A law for each kind of axis, and the law that a network's structure chooses."""

from __future__ import annotations

import json

import numpy as np
import pytest

from isthmus.errors import InvalidInput
from isthmus.partitions import (
    Auto,
    Axis,
    Block,
    Core,
    Fixed,
    Mixed,
    Overlapping,
    Rotated,
    Traits,
    Uniform,
    Weighted,
    law_of,
)

HEADS, WIDE, BLOCKS = Axis("h", 8, kind="head"), Axis("f", 12, 1, kind="ffn"), Axis("b", 5, kind="block")


def test_every_axis_is_dealt_by_the_law_of_its_kind() -> None:
    mixed = law_of({"head": "fixed", "block": Overlapping(3), "*": "uniform"})
    for axis, law in ((HEADS, Fixed()), (WIDE, Uniform()), (BLOCKS, Overlapping(3))):
        for round in range(3):
            assert all(map(np.array_equal, mixed.deal(axis, 4, 7, round), law.deal(axis, 4, 7, round)))
    assert mixed.too_few(BLOCKS, 9) is None  # blocks may be shared
    assert mixed.too_few(HEADS, 9) == Fixed().too_few(HEADS, 9)


@pytest.mark.parametrize("core", [0.0, 0.25])
@pytest.mark.parametrize(
    ("text", "others"),
    [
        ("head=fixed,ffn=uniform", {}),
        ("block=overlapping,*=block", {"minimum": 2}),
        ("head=weighted,ffn=overlapping", {"minimum": 3, "capacities": (1.0, 2.0)}),
        ("block=auto,*=isthmus.partitions:Rotated", {}),
    ],
)
def test_the_word_and_the_record_make_the_law_again(text: str, others: dict[str, object], core: float) -> None:
    law = law_of(text, core, **others)  # type: ignore[arg-type]
    again = law_of(**json.loads(json.dumps(law.record())))
    assert again == law
    assert hash(again) == hash(law)
    inner = law.law if isinstance(law, Core) else law
    assert isinstance(inner, Mixed)
    assert [kind for kind, _ in inner.laws] == [each.partition("=")[0] for each in text.split(",")]


def test_a_period_is_that_of_all_laws_together() -> None:
    mixed = law_of("head=rotated,*=fixed")
    assert mixed.period([HEADS, WIDE], 3, 0) == 3
    assert mixed.period([WIDE], 3, 0) == 1
    assert law_of("head=rotated,*=uniform").period([HEADS, WIDE], 3, 0) is None
    masks = [[mixed.deal(axis, 3, 0, round) for axis in (HEADS, WIDE)] for round in range(6)]
    for early, late in zip(masks, masks[3:], strict=False):
        assert all(np.array_equal(a, b) for x, y in zip(early, late, strict=True) for a, b in zip(x, y, strict=True))


def test_what_is_between_pieces_starts_at_zero_only_where_all_laws_want_it() -> None:
    alike, mixed = Mixed.of({"head": Block(), "*": Block()}), Mixed.of({"head": Block(), "*": Uniform()})
    assert alike.zero_cross_blocks
    assert alike.by_row
    assert not mixed.zero_cross_blocks
    assert mixed.by_row == Rotated.by_row  # the same as rotated pieces then, random weights between them


@pytest.mark.parametrize(
    ("law", "others", "words"),
    [
        ("head=fixed,head=uniform", {}, "each kind once"),
        ("head=,ffn=fixed", {}, "each kind once"),
        ("head=nonsense", {}, "`law` must be one of"),
        ("head=fixed", {"minimum": 2}, "`minimum` has no effect with law 'head=fixed'"),
        ({"head": Overlapping(2), "ffn": Overlapping(3)}, {}, "must have no minimum of its own"),
        ({"head": Core(Fixed(), 0.5)}, {}, "must have no core of its own"),
        ({"head": Mixed.of({"*": Fixed()})}, {}, "must have no kinds of its own"),
        ({}, {}, "each kind of axis once"),
    ],
)
def test_what_makes_no_sense_is_refused(law: object, others: dict[str, int], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        law_of(law, **others)  # type: ignore[arg-type]


def test_a_kind_without_a_law_is_refused_by_its_axis() -> None:
    with pytest.raises(InvalidInput, match="`law` must say how axis 'f' of kind 'ffn' is dealt, got head only"):
        law_of("head=fixed").deal(WIDE, 2, 0)


def test_laws_of_kinds_are_asked_like_any_other() -> None:
    mixed = law_of({"head": "fixed", "*": Weighted((1.0, 2.0, 3.0))})
    assert mixed.among([0, 2]) == law_of({"head": "fixed", "*": Weighted((1.0, 3.0))})
    with pytest.raises(InvalidInput, match="`capacities` must name 2 workers"):
        mixed.check(2)
    asks = law_of("head=weighted,*=fixed", capacities="auto")
    assert asks.measures
    assert not asks.measured((1.0, 2.0)).measures


APART = Traits({"a": "hidden", "b": "hidden"})
STREAM = Traits({"a": "channel", "b": "channel", "c": "channel"}, joined=("a", "b"))
NORMED = Traits({"a": "channel", "b": "channel"}, joined=("a", "b"), statistics=frozenset({"a"}))
SINGLE = Traits({"stage": "block"}, blocks={"stage": 1})
DEPTH = Traits({"stage1": "block", "stage2": "block"}, blocks={"stage1": 5, "stage2": 4})
BOTH = Traits(
    {"stage": "block", "a": "channel", "b": "channel"}, ("a", "b"), frozenset({"a"}), blocks={"stage": 3}
)  # fmt: skip


@pytest.mark.parametrize(
    ("traits", "law", "words"),
    [
        (APART, Block(), "no weight joins two cut axes through a stream that pieces share"),
        (STREAM, Fixed(), "a and b meet in a residual stream that pieces share, and no batch norm"),
        (NORMED, Uniform(), "a and b meet in a residual stream that pieces share, and batch norms take statistics"),
        (SINGLE, Block(), "no weight joins"),
        (DEPTH, Overlapping(2), "whole residual blocks are dealt, at least 2 of each stage to a worker"),
        (BOTH, Mixed.of({"block": Overlapping(2), "*": Uniform()}), "of each stage to a worker; a and b meet in a"),
    ],
)
def test_auto_is_what_suits_the_structure_and_says_why(traits: Traits, law: object, words: str) -> None:
    assert Auto().chooses
    found, why = Auto().chosen(traits)
    assert found == law
    assert words in why
    assert not found.chooses
    core, same = Core(Auto(), 0.25).chosen(traits)
    assert core == Core(found, 0.25)
    assert same == why


def test_auto_of_a_kind_looks_at_the_axes_of_that_kind() -> None:
    found, why = law_of("block=auto,*=fixed").chosen(BOTH)
    assert found == Mixed.of({"block": Overlapping(2), "*": Fixed()})
    assert why == "block: whole residual blocks are dealt, at least 2 of each stage to a worker"
    found, why = law_of("block=overlapping,*=auto").chosen(BOTH)
    assert found == Mixed.of({"block": Overlapping(1), "*": Uniform()})
    assert why.startswith("others: a and b meet")


def test_where_nobody_knows_the_network_auto_deals_as_block() -> None:
    for round in range(3):
        assert all(map(np.array_equal, Auto().deal(WIDE, 3, 1, round), Block().deal(WIDE, 3, 1, round)))
