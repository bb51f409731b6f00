"""Laws that the tests run through: every one of the registry, and two of a user's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from isthmus.partitions import (
    Axis,
    Block,
    Core,
    Fixed,
    Indices,
    Law,
    Overlapping,
    Rolling,
    Rotated,
    Uniform,
    Weighted,
)

# name: the law for a number of workers
LAW_CASES: dict[str, Callable[[int], Law]] = {
    "uniform": lambda workers: Uniform(),
    "fixed": lambda workers: Fixed(),
    "rotated": lambda workers: Rotated(),
    "block": lambda workers: Block(),
    "rolling": lambda workers: Rolling(),
    "weighted": lambda workers: Weighted(tuple(range(1, workers + 1))),
    "overlapping": lambda workers: Overlapping(2),
}

# those of them that deal every unit to exactly one worker, at random
DISJOINT = ("uniform", "fixed", "rotated", "block", "rolling", "weighted")


@dataclass(frozen=True)
class Window(Law):
    """A window of half the units slides on by one unit a round, each worker's as far from the next."""

    def units(self, axis: Axis, workers: int, seed: int, round: int) -> Sequence[Indices]:
        width = -(-axis.size // 2)
        return [(round + worker * axis.size // workers + np.arange(width)) % axis.size for worker in range(workers)]


@dataclass(frozen=True)
class Favoured(Law):
    """Worker 0 holds three units in four and the others the rest together, drawn anew every round for all axes."""

    def units(self, axis: Axis, workers: int, seed: int, round: int) -> Sequence[Indices]:
        order = axis.generator(seed, round).permutation(axis.size)
        large = 3 * axis.size // 4
        return [order[:large]] + [order[large:]] * (workers - 1)


OWN_CASES: dict[str, Callable[[int], Law]] = {
    "a window": lambda workers: Window(),
    "favoured": lambda workers: Favoured(),
}


def with_core(build: Callable[[int], Law], fraction: float) -> Callable[[int], Law]:
    """Return a case with a core."""
    return lambda workers: Core(build(workers), fraction)
