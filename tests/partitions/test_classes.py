"""Who owns which classes: every class has its owners, and a piece's targets are one unit for each class."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.errors import InvalidInput
from isthmus.partitions.classes import IGNORED, GateWorker, NoGate, Other
from isthmus.partitions.groups import random_groups
from isthmus.strategies import ClassCut


@given(st.integers(2, 40), st.integers(1, 6), st.integers(1, 3), st.integers(0, 5))
def test_every_class_has_as_many_owners_as_asked_for_and_one_unit_in_every_piece(
    classes: int, workers: int, owners: int, seed: int
) -> None:
    workers = min(workers, classes)
    deal = ClassCut(owners=min(owners, workers)).deal(classes, workers, seed)
    held = np.bincount(np.concatenate([deal.owned(worker) for worker in range(workers)]), minlength=classes)
    assert (held == min(owners, workers)).all()
    sizes = np.bincount(deal.group)
    assert sizes.max() - sizes.min() <= 1
    for worker in range(workers):
        own, units, targets = deal.owned(worker), deal.units(worker), deal.targets(worker)
        assert np.array_equal(targets[own], np.arange(len(own)))
        foreign = np.setdiff1d(np.arange(classes), own)
        assert set(targets[foreign]) == set(range(len(own), len(own) + units))
        assert units == (len(foreign) > 0)


def test_buckets_are_even_and_other_gates_leave_foreign_classes_out() -> None:
    deal = ClassCut(foreign_buckets=4).deal(30, 3, 0)
    counts = np.bincount(deal.targets(1)[deal.targets(1) >= 10] - 10)
    assert sorted(counts) == [5, 5, 5, 5]
    split = ClassCut(gate="worker").deal(30, 4, 0)
    assert [len(split.owned(worker)) for worker in range(4)] == [10, 10, 10, 0]
    assert np.array_equal(split.targets(3), split.group)
    assert (split.targets(0)[split.group != 0] == IGNORED).all()
    assert split.units(0) == 0
    assert ClassCut(gate="none").deal(30, 3, 0).units(0) == 0


def test_what_does_not_fit_is_one_line() -> None:
    with pytest.raises(InvalidInput, match="`workers` must be at most the number of classes, 3"):
        random_groups(3, 4, 0)
    with pytest.raises(InvalidInput, match="`owners` must be at most 2, got 3"):
        Other().check(2, 3)
    with pytest.raises(InvalidInput, match="`workers` must be at least 3, got 2"):
        GateWorker().check(2, 1)
    with pytest.raises(InvalidInput, match="`owners` must be 1 with gate 'worker'"):
        GateWorker().check(4, 2)
    with pytest.raises(InvalidInput, match="must be at most the 5 classes that a worker does not own, got 9"):
        ClassCut(foreign_buckets=9).deal(10, 2, 0)
    for flags, said in (
        ({"own_share": 0.5, "gate": "worker"}, "`own_share` has no effect with gate 'worker'"),
        ({"foreign_buckets": 2, "gate": "none"}, "`foreign_buckets` has no effect with gate 'none'"),
        ({"own_share": "most"}, "`own_share` must be auto or a number"),
        ({"own_share": 1.0}, "`own_share` must be less than 1.0"),
    ):
        with pytest.raises(InvalidInput, match=said):
            ClassCut(**flags)  # type: ignore[arg-type]
    assert not NoGate().normalized
