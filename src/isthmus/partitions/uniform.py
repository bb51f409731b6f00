"""A new random partition every round, as IST was first published."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from isthmus.partitions.law import Axis, Law, Scenarios, alike
from isthmus.partitions.partition import Indices, random_partition


@dataclass(frozen=True)
class Uniform(Law):
    """A new random partition every round.

    >>> [units.tolist() for units in Uniform().deal(Axis("0", 4), workers=2, seed=0)]
    [[0, 2], [1, 3]]
    """

    name = "uniform"
    label = "new pieces each round"
    meaning = "every round cuts the network into pieces anew"

    def units(self, axis: Axis, workers: int, seed: int, round: int) -> Sequence[Indices]:
        """Return the blocks of this round's partition."""
        return random_partition(axis.size, workers, axis.generator(seed, round)).blocks

    def period(self, axes: Sequence[Axis], workers: int, seed: int) -> int | None:
        """Return None: it never repeats itself."""
        return None

    def scenarios(self, axes: Sequence[Axis], workers: int, seed: int) -> Scenarios:
        """Every unit with chance 1/n, whatever else is held."""
        return alike(axes, workers)
