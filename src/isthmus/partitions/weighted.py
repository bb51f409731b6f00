"""A new partition every round, larger pieces for faster workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from isthmus.errors import InvalidInput, check_number
from isthmus.partitions.law import Axis, Law, Scenarios
from isthmus.partitions.partition import Indices

AUTO: Literal["auto"] = "auto"
_TRIES = 16


@dataclass(frozen=True)
class Weighted(Law):
    """As :class:`Uniform`, with shares in proportion to the workers' capacities.

    Args:
        capacities: relative speed of each worker; or ``auto``: equal until it is measured (:func:`balance`).

    Raises:
        InvalidInput: none, or one that is not positive.
    """

    capacities: tuple[float, ...] | Literal["auto"]

    name = "weighted"
    label = "pieces by speed"
    meaning = "every round draws new pieces, larger for faster workers"

    def __post_init__(self) -> None:
        if self.capacities == AUTO:
            return
        if isinstance(self.capacities, str):
            raise InvalidInput(f"`capacities` must be numbers or auto, got {self.capacities!r}")
        object.__setattr__(self, "capacities", tuple(check_number("capacities", c, above=0.0) for c in self.capacities))
        if not self.capacities:
            raise InvalidInput("`capacities` must name at least one worker, got none")

    def check(self, workers: int) -> None:
        """Refuse any number of workers but that of the capacities.

        Raises:
            InvalidInput: another number.
        """
        if not self.measures and len(self.capacities) != workers:
            raise InvalidInput(f"`capacities` must name {workers} workers, got {len(self.capacities)}")

    def among(self, workers: Sequence[int]) -> Weighted:
        """Return the law with the capacities of those who are left."""
        own = self.capacities
        return self if own == AUTO else Weighted(tuple(own[worker] for worker in workers))

    @property
    def measures(self) -> bool:
        """Whether the capacities are to be measured."""
        return self.capacities == AUTO

    def measured(self, capacities: Sequence[float]) -> Weighted:
        """Return the law with capacities that have been measured, where these are not given."""
        return Weighted(tuple(capacities)) if self.measures else self

    def units(self, axis: Axis, workers: int, seed: int, round: int) -> Sequence[Indices]:
        """Return this round's pieces."""
        order = axis.generator(seed, round).permutation(axis.size)
        return np.split(order, np.cumsum(shares(axis.size, self._of(workers), axis.least))[:-1])

    def period(self, axes: Sequence[Axis], workers: int, seed: int) -> int | None:
        """Return None: it never repeats itself."""
        return None

    def scenarios(self, axes: Sequence[Axis], workers: int, seed: int) -> Scenarios:
        """One scenario a worker: who holds much of one axis holds much of the others."""
        own = self._of(workers)
        return {axis.name: np.array(shares(axis.size, own, axis.least))[:, None] / axis.size for axis in axes}

    def _of(self, workers: int) -> Sequence[float]:
        return [1.0] * workers if self.capacities == AUTO else self.capacities


def balance(seconds: Sequence[float], work: Callable[[Sequence[float]], Sequence[float]]) -> tuple[float, ...]:
    """Return the capacities with which all workers need about as long: the largest is 1, all have two digits.

    A piece of half the units is less than half the work where both sides of a weight are cut, and more than a quarter:
    so capacities are no speeds. From the speeds they are corrected by the square root of what each worker's time is
    off, some times over.

    Args:
        seconds: that each worker needs under equal capacities.
        work: returns how much each has to do under some capacities, in any unit.

    >>> balance([1.0, 4.0], lambda capacities: capacities), balance([1.0, 4.0], lambda c: [each**2 for each in c])
    ((1.0, 0.25), (1.0, 0.5))
    """
    speeds = np.asarray(work([1.0] * len(seconds)), float) / np.asarray(seconds, float)
    found = best = speeds / speeds.max()
    least = np.inf
    for _ in range(_TRIES):
        times = np.asarray(work(_digits(found)), float) / speeds
        if times.max() / times.mean() < least - 1e-9:
            best, least = found, times.max() / times.mean()
        found = found * np.sqrt(times.mean() / times)
        found = found / found.max()
    return _digits(best)


def _digits(capacities: Sequence[float] | np.ndarray) -> tuple[float, ...]:
    return tuple(max(0.01, round(float(each), 2)) for each in capacities)


def shares(units: int, capacities: Sequence[float], least: int = 1) -> list[int]:
    """Return whole numbers in proportion to the capacities that sum to ``units``, each at least ``least``.

    >>> shares(10, [1.0, 1.0, 3.0])
    [2, 2, 6]
    """
    spare = units - least * len(capacities)
    ideal = np.asarray(capacities) / np.sum(capacities) * units - least
    ideal = np.maximum(ideal, 0.0)
    ideal *= spare / ideal.sum() if ideal.sum() > 0 else 0.0
    counts = np.floor(ideal).astype(int)
    order = np.argsort(-(ideal - counts), kind="stable")
    counts[order[: spare - counts.sum()]] += 1
    return [int(count) + least for count in counts]
