"""Fixed pieces, the axes rotated against each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from isthmus.partitions.law import Axis, Law, Scenarios, alike, first_partition
from isthmus.partitions.partition import Indices


@dataclass(frozen=True)
class Rolling(Law):
    """The pieces of round 0, passed on at another pace for every colour.

    An axis of colour c > 0 moves one worker on every n^(c-1) rounds, one of colour 0 stays: every entry between two
    axes is trained within n^(colours - 1) rounds, n for a chain of axes.
    """

    name = "rolling"
    label = "rolling pieces"
    meaning = "the pieces of different layers move against each other, so all weights are met"

    def units(self, axis: Axis, workers: int, seed: int, round: int) -> Sequence[Indices]:
        """Return the blocks of round 0, passed on as the colour says."""
        steps = 0 if axis.colour == 0 else round // workers ** (axis.colour - 1)
        blocks = first_partition(axis, workers, seed).blocks
        return [blocks[(worker + steps) % workers] for worker in range(workers)]

    def period(self, axes: Sequence[Axis], workers: int, seed: int) -> int | None:
        """Return n^c, c the largest colour."""
        return int(workers ** max(axis.colour for axis in axes))

    def scenarios(self, axes: Sequence[Axis], workers: int, seed: int) -> Scenarios:
        """Every unit is held by one worker in n; the axes move against each other, so they are independent."""
        return alike(axes, workers)
