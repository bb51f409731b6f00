"""New pieces of a least size every round, with units held twice where they are too few."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from isthmus.errors import check_integer
from isthmus.partitions.law import Axis, Law, Scenarios
from isthmus.partitions.partition import Indices


@dataclass(frozen=True)
class Overlapping(Law):
    """Units are dealt in turn every round; who has fewer than the minimum takes more from all units, at random.

    Args:
        minimum: units of every axis a worker is dealt at least.

    Raises:
        InvalidInput: a minimum below 1.
    """

    minimum: int = 1

    name = "overlapping"
    label = "overlapping pieces"
    meaning = "every round draws new pieces of a least size, with some units held twice"
    few_units = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "minimum", check_integer("minimum", self.minimum, at_least=1))

    def too_few(self, axis: Axis, workers: int, what: str = "units") -> str | None:
        """Return why an axis has fewer units than the minimum; None if it has as many."""
        return f"{axis.size} {what}, fewer than `minimum` {self.minimum}" if self.minimum > axis.size else None

    def units(self, axis: Axis, workers: int, seed: int, round: int) -> Sequence[Indices]:
        """Return this round's pieces.

        Raises:
            InvalidInput: an axis with fewer units than the minimum.
        """
        self.check_units(axis, workers)
        random = axis.generator(seed, round)
        order = random.permutation(axis.size)
        seats = random.permutation(workers)
        held = []
        for worker in range(workers):
            mine = order[seats[worker] :: workers]
            missing = self._least(axis) - len(mine)
            if missing > 0:
                others = np.setdiff1d(np.arange(axis.size), mine)
                mine = np.concatenate([mine, random.permutation(others)[:missing]])
            held.append(mine)
        return held

    def period(self, axes: Sequence[Axis], workers: int, seed: int) -> int | None:
        """Return None: it never repeats itself."""
        return None

    def scenarios(self, axes: Sequence[Axis], workers: int, seed: int) -> Scenarios:
        """Every unit with the mean fraction of the axis that a worker holds, whatever else is held."""
        return {axis.name: np.full((1, 1), self._mean_size(axis, workers) / axis.size) for axis in axes}

    def _mean_size(self, axis: Axis, workers: int) -> float:
        self.check_units(axis, workers)
        dealt = [len(range(seat, axis.size, workers)) for seat in range(workers)]
        return sum(max(self._least(axis), size) for size in dealt) / workers

    def _least(self, axis: Axis) -> int:
        return max(self.minimum, axis.least)
