"""The pieces of one random partition, passed on from worker to worker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from isthmus.partitions.law import Axis, Law, Scenarios, first_partition
from isthmus.partitions.partition import Indices


@dataclass(frozen=True)
class Rotated(Law):
    """The pieces of round 0, passed on one worker a round."""

    name = "rotated"
    label = "rotated pieces"
    meaning = "the pieces stay and move to the next worker every round, so each sees all the data"
    by_row = False  # what nobody trains with the row keeps its first value, and counts as much as the rest

    def units(self, axis: Axis, workers: int, seed: int, round: int) -> Sequence[Indices]:
        """Return the blocks of round 0, passed on ``round`` times."""
        blocks = first_partition(axis, workers, seed).blocks
        return [blocks[(worker + round) % workers] for worker in range(workers)]

    def period(self, axes: Sequence[Axis], workers: int, seed: int) -> int | None:
        """Return n."""
        return workers

    def scenarios(self, axes: Sequence[Axis], workers: int, seed: int) -> Scenarios:
        """One scenario a piece: who holds it of one axis holds it of all, whatever the round."""
        return self.counted(axes, workers, seed, [0])
