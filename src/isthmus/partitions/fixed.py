"""One random partition for the whole run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from isthmus.partitions.law import Axis, Law, first_partition
from isthmus.partitions.partition import Indices


@dataclass(frozen=True)
class Fixed(Law):
    """The partition of round 0 for the whole run."""

    name = "fixed"
    label = "fixed pieces"
    meaning = "each worker keeps its piece for the whole run"
    by_row = False  # what nobody trains with the row keeps its first value, and counts as much as the rest

    def units(self, axis: Axis, workers: int, seed: int, round: int) -> Sequence[Indices]:
        """Return the blocks of round 0."""
        return first_partition(axis, workers, seed).blocks

    def period(self, axes: Sequence[Axis], workers: int, seed: int) -> int | None:
        """Return 1."""
        return 1
