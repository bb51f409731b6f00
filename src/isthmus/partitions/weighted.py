"""A new partition every round, larger pieces for faster workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from isthmus.errors import InvalidInput, check_number
from isthmus.partitions.law import Axis, Law, Scenarios
from isthmus.partitions.partition import Indices


@dataclass(frozen=True)
class Weighted(Law):
    """As :class:`Uniform`, with shares in proportion to the workers' capacities.

    Args:
        capacities: relative speed of each worker.

    Raises:
        InvalidInput: none, or one that is not positive.
    """

    capacities: tuple[float, ...]

    name = "weighted"
    label = "pieces by speed"
    meaning = "every round draws new pieces, larger for faster workers"

    def __post_init__(self) -> None:
        object.__setattr__(self, "capacities", tuple(check_number("capacities", c, above=0.0) for c in self.capacities))
        if not self.capacities:
            raise InvalidInput("`capacities` must name at least one worker, got none")

    def check(self, workers: int) -> None:
        """Refuse any number of workers but that of the capacities.

        Raises:
            InvalidInput: another number.
        """
        if len(self.capacities) != workers:
            raise InvalidInput(f"`capacities` must name {workers} workers, got {len(self.capacities)}")

    def among(self, workers: Sequence[int]) -> Weighted:
        """Return the law with the capacities of those who are left."""
        return Weighted(tuple(self.capacities[worker] for worker in workers))

    def units(self, axis: Axis, workers: int, seed: int, round: int) -> Sequence[Indices]:
        """Return this round's pieces."""
        order = axis.generator(seed, round).permutation(axis.size)
        return np.split(order, np.cumsum(shares(axis.size, self.capacities))[:-1])

    def period(self, axes: Sequence[Axis], workers: int, seed: int) -> int | None:
        """Return None: it never repeats itself."""
        return None

    def scenarios(self, axes: Sequence[Axis], workers: int, seed: int) -> Scenarios:
        """One scenario a worker: who holds much of one axis holds much of the others."""
        return {axis.name: np.array(shares(axis.size, self.capacities))[:, None] / axis.size for axis in axes}


def shares(units: int, capacities: Sequence[float]) -> list[int]:
    """Return whole numbers in proportion to the capacities that sum to ``units``, each at least 1.

    >>> shares(10, [1.0, 1.0, 3.0])
    [2, 2, 6]
    """
    spare = units - len(capacities)
    ideal = np.asarray(capacities) / np.sum(capacities) * units - 1
    ideal = np.maximum(ideal, 0.0)
    ideal *= spare / ideal.sum() if ideal.sum() > 0 else 0.0
    counts = np.floor(ideal).astype(int)
    order = np.argsort(-(ideal - counts), kind="stable")
    counts[order[: spare - counts.sum()]] += 1
    return [int(count) + 1 for count in counts]
