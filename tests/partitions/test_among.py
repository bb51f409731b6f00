"""A law for those who are left."""

from __future__ import annotations

import pytest

from isthmus.partitions import LAWS, Core, Weighted, law_of


def test_capacities_go_with_their_workers() -> None:
    law = Weighted((1.0, 2.0, 3.0))
    assert law.among((2, 0)) == Weighted((3.0, 1.0))
    assert Core(law, 0.25).among((1,)) == Core(Weighted((2.0,)), 0.25)


@pytest.mark.parametrize("name", [name for name in LAWS if name != "weighted"])
def test_other_laws_stay_as_they_are(name: str) -> None:
    assert law_of(name).among((0, 2)) == law_of(name)
