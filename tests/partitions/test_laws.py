"""Laws: the same from the same key, what each promises, chances against counts, and the registry."""

import importlib
import json
import pkgutil
import sys
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cases.laws import DISJOINT, LAW_CASES, OWN_CASES, Window, with_core
from isthmus import partitions
from isthmus.errors import InvalidInput
from isthmus.partitions import (
    LAWS,
    Auto,
    Axis,
    Block,
    Core,
    Fixed,
    Law,
    Mixed,
    Overlapping,
    Rolling,
    Rotated,
    Uniform,
    Weighted,
    law_of,
    random_partition,
)
from isthmus.partitions.weighted import shares
from isthmus.randomness import generator

ALL = LAW_CASES | OWN_CASES
SHAPES = st.integers(2, 30).flatmap(lambda units: st.tuples(st.just(units), st.integers(1, units)))


def dealt(law: Law, units: int, workers: int, seed: int = 0, round: int = 0, colour: int = 0) -> list[list[int]]:
    return [held.tolist() for held in law.deal(Axis("axis", units, colour), workers, seed, round)]


@given(SHAPES, st.integers(0, 2**32), st.sampled_from([*DISJOINT, "overlapping"]), st.integers(0, 5))
def test_every_unit_is_held_and_by_one_worker_where_pieces_are_disjoint(
    shape: tuple[int, int], seed: int, name: str, round: int
) -> None:
    units, workers = shape
    held = dealt(LAW_CASES[name](workers), units, workers, seed, round, colour=1)
    together = [unit for sets in held for unit in sets]
    assert sorted(set(together)) == list(range(units))
    assert all(sets and all(a < b for a, b in pairwise(sets)) for sets in held)
    if name in DISJOINT:
        assert len(together) == units
        assert name == "weighted" or max(map(len, held)) - min(map(len, held)) <= 1


@given(st.integers(8, 30), st.integers(1, 3), st.integers(0, 2**32), st.sampled_from(list(ALL)), st.floats(0, 0.6))
def test_a_core_stays_and_the_law_deals_the_rest(
    units: int, workers: int, seed: int, name: str, fraction: float
) -> None:
    inner, axis = ALL[name](workers), Axis("axis", units, 1)
    law = Core(inner, fraction)
    core = law.core(axis, seed).tolist()
    rest = np.setdiff1d(np.arange(units), core)
    assert len(core) == round(fraction * units)
    for number in range(3):
        held = dealt(law, units, workers, seed, number, colour=1)
        assert all(set(core) <= set(sets) for sets in held)
        smaller = inner.deal(Axis("axis", len(rest), 1), workers, seed, number)
        assert [sorted({*core, *rest[mine].tolist()}) for mine in smaller] == held


def test_a_whole_core_and_none() -> None:
    assert dealt(Core(Block(), 1.0), 3, 5) == [[0, 1, 2]] * 5
    assert dealt(Core(Rotated(), 0.0), 9, 3, round=1) == dealt(Rotated(), 9, 3, round=1)
    assert law_of("rotated", core=0.0) == Rotated()


def test_without_a_core_the_bits_are_those_of_one_key() -> None:
    pieces = [b.tolist() for b in random_partition(12, 3, generator(5, "partition/axis/axis")).blocks]
    later = [b.tolist() for b in random_partition(12, 3, generator(5, "partition/axis/axis", 4)).blocks]
    assert dealt(Uniform(), 12, 3, 5, 4) == later
    for law, expected in ((Fixed(), pieces), (Rotated(), pieces[1:] + pieces[:1]), (Block(), pieces[1:] + pieces[:1])):
        assert dealt(law, 12, 3, 5, 4) == expected
    assert dealt(Rolling(), 12, 3, 5, 4) == pieces
    assert dealt(Rolling(), 12, 3, 5, 4, colour=1) == pieces[1:] + pieces[:1]
    assert dealt(Rolling(), 12, 3, 5, 4, colour=2) == pieces[1:] + pieces[:1]  # 4 // 3 steps


@pytest.mark.parametrize("name", [*DISJOINT, "overlapping"])
def test_seeds_and_axes_are_independent(name: str) -> None:
    law = LAW_CASES[name](2)
    assert dealt(law, 40, 2, seed=1) != dealt(law, 40, 2, seed=2)
    assert dealt(law, 40, 2, seed=1) != [u.tolist() for u in law.deal(Axis("another", 40), 2, 1)]
    first = [set(dealt(law, 40, 2, seed=seed)[0]) for seed in range(400)]
    overlap = [len(a & b) for a, b in zip(first[::2], first[1::2], strict=True)]
    share = len(dealt(law, 40, 2)[0]) / 40
    spread = 40 * share * (1 - share) / 39**0.5  # of one intersection: hypergeometric
    assert abs(np.mean(overlap) - 40 * share**2) < 4.5 * spread / len(overlap) ** 0.5


def test_a_core_does_not_depend_on_the_law_or_the_round() -> None:
    axis = Axis("axis", 20)
    one, other = (tuple(Core(Fixed(), 0.25).core(axis, seed)) for seed in (7, 8))
    assert {tuple(Core(build(3), 0.25).core(axis, 7)) for build in ALL.values()} == {one}
    assert one != other


def test_capacities_share_in_proportion() -> None:
    assert [len(units) for units in dealt(Weighted((1.0, 1.0, 2.0)), 12, 3)] == [3, 3, 6]
    assert shares(5, [1e-9, 1.0]) == [1, 4]


def test_overlapping_fills_up_to_the_minimum() -> None:
    assert [len(units) for units in dealt(Overlapping(5), 8, 4)] == [5] * 4
    many = dealt(Overlapping(), 4, 6)
    assert min(len(units) for units in many) == 1
    assert set().union(*many) == {0, 1, 2, 3}
    with pytest.raises(InvalidInput, match="has 8 units, fewer than `minimum` 9: give a smaller one"):
        dealt(Overlapping(9), 8, 2)


CHANCES = ALL | {f"{name}, core": with_core(build, 0.3) for name, build in ALL.items()}


@pytest.mark.parametrize("name", CHANCES)
def test_scenarios_say_how_often_units_are_held(name: str) -> None:
    """Marginals of two axes against counts over the rounds, within 4.5 standard deviations; the core's are 1."""
    law, axes, workers, rounds = CHANCES[name](3), [Axis("a", 10), Axis("b", 8, 1)], 3, 900
    found = law.scenarios(axes, workers, 4)
    counted = Law.scenarios(law, axes, workers, 4)
    assert len({len(rows) for rows in found.values()}) == 1
    for axis in axes:
        held = np.zeros((rounds * workers, axis.size))
        for number in range(rounds):
            for worker, units in enumerate(law.deal(axis, workers, 4, number)):
                held[number * workers + worker, units] = 1.0
        mean = np.broadcast_to(found[axis.name].mean(axis=0), axis.size)
        error = 4.5 * np.sqrt(mean * (1 - mean) * (1 / len(held) + 1 / len(counted[axis.name])))
        assert np.all(np.abs(held.mean(axis=0) - mean) <= error + 1e-12)
        assert np.all(np.abs(counted[axis.name].mean(axis=0) - mean) <= error + 1e-12)
        if isinstance(law, Core):
            assert np.all(found[axis.name][:, law.core(axis, 4)] == 1)


@pytest.mark.parametrize("name", [name for name in LAW_CASES if LAWS[name].by_row])
def test_the_default_chance_given_a_row_is_the_closed_form_s(name: str) -> None:
    """P(column | row) between two axes, of the laws that go by the row and of those whose axes are independent."""
    law, axes = LAW_CASES[name](2), [Axis("a", 6), Axis("b", 5, 1)]
    found = [scenarios(axes, 2, 1) for scenarios in (partial(Law.scenarios, law), law.scenarios)]
    counted, closed = ([np.broadcast_to(s[a.name], (len(s["a"]), a.size)).astype(float) for a in axes] for s in found)
    given_row = [(rows.T @ columns) / rows.sum(axis=0)[:, None] for rows, columns in (counted, closed)]
    spread = np.sqrt(given_row[1] * (1 - given_row[1]) / counted[0].sum(axis=0)[:, None])
    assert np.all(np.abs(given_row[0] - given_row[1]) <= 5 * spread + 1e-9)


@pytest.mark.parametrize("name", ALL)
def test_a_period_is_one(name: str) -> None:
    law, axes = ALL[name](3), [Axis("a", 10), Axis("b", 7, 1), Axis("c", 8, 2)]
    period = law.period(axes, 3, 0)
    known = {"fixed": 1, "rotated": 3, "block": 3, "rolling": 9, "a window": None, "uniform": None, "weighted": None}
    assert period == known.get(name, period)
    for axis in axes if period else ():
        for number in range(4):
            again = law.deal(axis, 3, 0, number + (period or 0))
            assert all(map(np.array_equal, law.deal(axis, 3, 0, number), again))
    assert Law.period(Rotated(), axes, 3, 0) == 3
    assert Law.period(Window(), [Axis("a", 10)], 3, 0) == 10


class ForAWhile(Law):
    """A law that looks fixed to whoever sees the first rounds only."""

    def units(self, axis: Axis, workers: int, seed: int, round: int) -> list[np.ndarray]:
        return list(random_partition(axis.size, workers, axis.generator(seed, round // 200)).blocks)


def test_a_law_that_changes_late_is_not_taken_for_a_fixed_one() -> None:
    assert ForAWhile().period([Axis("a", 12)], 3, 0) is None


def test_every_law_of_the_package_is_registered_with_all_that_people_see() -> None:
    """Forget the row in registry.py, or the one in tests/cases/laws.py, and this fails."""
    files = [each.name for each in pkgutil.iter_modules(partitions.__path__)]
    modules = [importlib.import_module(f"isthmus.partitions.{name}") for name in files]
    found = {
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Law) and value.__module__ == module.__name__
    }
    assert found - {Law, Core, Auto, Mixed} == set(LAWS.values())
    assert set(LAW_CASES) == set(LAWS)
    for name, law in LAWS.items():
        assert law.name == name
        assert "label" in vars(law)
        assert "meaning" in vars(law)
        assert 0 < len(law.label) < 30 < len(law.meaning)
        assert not law.meaning.endswith(".")
        assert law.__name__ in partitions.__all__
        assert type(LAW_CASES[name](3)) is law
    assert len({law.label for law in LAWS.values()}) == len(LAWS)


@pytest.mark.parametrize("name", CHANCES)
def test_records_are_json_and_make_the_law_again(name: str) -> None:
    law = CHANCES[name](3)
    again = law_of(**json.loads(json.dumps(law.record())))
    assert again == law
    assert hash(again) == hash(law)
    assert (again.name, again.label, again.meaning) == (law.name, law.label, law.meaning)


def test_a_law_of_ones_own_by_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mylaws.py").write_text(
        "from dataclasses import dataclass\n"
        "import numpy as np\n"
        "from isthmus.partitions import Law\n"
        "@dataclass(frozen=True)\n"
        "class Half(Law):\n"
        '    """Even workers hold the first units, odd ones the others."""\n'
        "    first: int = 2\n"
        "    def units(self, axis, workers, seed, round):\n"
        "        return [np.arange(axis.size)[[slice(None, self.first), slice(self.first, None)][w % 2]]"
        " for w in range(workers)]\n"
        "NoLaw = dict\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    law = law_of("mylaws:Half", core=0.5, first=1)
    assert law.record() == {"law": "mylaws:Half", "first": 1, "core": 0.5}
    assert law_of(**law.record()) == law
    assert (law.label, law.meaning) == ("Half, core 0.5", "Even workers hold the first units, odd ones the others")
    assert [len(units) for units in law.deal(Axis("a", 8), 2, 0)] == [5, 7]
    with pytest.raises(InvalidInput, match="must be a class derived from"):
        law_of("mylaws:NoLaw")
    with pytest.raises(InvalidInput, match="did you mean 'Half'"):
        law_of("mylaws:Halv")


class Wrong(Law):
    def __init__(self, *sets: list[int]) -> None:
        self.sets = sets

    def units(self, axis: Axis, workers: int, seed: int, round: int) -> list[np.ndarray]:
        return [np.array(units, dtype=np.int64) for units in self.sets]


@pytest.mark.parametrize(
    ("law", "message"),
    [
        (Wrong([0]), "must deal to 2 workers, got 1 sets of units"),
        (Wrong([0], []), "must give worker 1 different units of 0..3 and at least one, got []"),
        (Wrong([0], [1, 1]), r"got \[1, 1\]"),
        (Wrong([0], [4]), r"got \[4\]"),
        (Wrong([-1], [2]), r"give worker 0 .* got \[-1\]"),
        (Core(Wrong([0], [3]), 0.25), r"give worker 1 different units of 0..2"),
    ],
)
def test_what_is_no_deal_is_refused(law: Law, message: str) -> None:
    with pytest.raises(InvalidInput, match=message.replace("got []", r"got \[\]")):
        law.deal(Axis("a", 4), 2, 0)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: law_of("unifrom"), "did you mean 'uniform'"),
        (lambda: law_of("block", minimum=3), "`minimum` has no effect with law 'block'"),
        (lambda: law_of("uniform", capacities=(1, 2)), "`capacities` has no effect with law 'uniform'"),
        (lambda: law_of(Weighted((1, 2)), capacities=(1, 2)), "`capacities` has no effect with law 'weighted'"),
        (lambda: law_of("weighted"), "`capacities` must be given with law 'weighted'"),
        (lambda: law_of("weighted", capacities=(1, 0)), "`capacities` must be greater than 0"),
        (lambda: law_of("overlapping", minimum=0), "`minimum` must be at least 1, got 0"),
        (lambda: law_of("fixed", core=1.5), "`core` must be at most 1.0, got 1.5"),
        (lambda: law_of(Core(Fixed(), 0.5), core=0.5), "`law` must have no core of its own"),
        (lambda: Weighted(()), "`capacities` must name at least one worker"),
        (lambda: Core(Weighted((1, 2)), 0.5).check(3), "`capacities` must name 3 workers, got 2"),
        (lambda: Core(Block(), 0.5).deal(Axis("a", 4), 3, 0), "has 2 units beside its core, too few for 3 workers"),
        (lambda: law_of("no.such:Law"), "`law` must be MODULE:FACTORY with a module that exists"),
    ],
)
def test_misuse_is_one_line(build: object, message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as caught:
        build()  # type: ignore[operator]
    assert "\n" not in str(caught.value)
