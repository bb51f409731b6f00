"""What a run does when a worker dies, freezes or does not come."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from isthmus.errors import check_integer, check_number


@dataclass(frozen=True)
class Faults:
    """What a run bears, and how long it waits.

    Attributes:
        min_workers: how many workers must be left for a run to go on; with fewer it stops, with a checkpoint. By
            default half of them, rounded up.
        deadline: seconds that the others wait for a worker that is silent before they go on without it; by default ten
            times the longest round so far, and at least 30.
        join_timeout: seconds that workers wait for each other at the start.
        copies: whether every worker keeps a copy of its neighbour's rows, so that a worker's death loses no round.
        spare: a folder to write rows and checkpoints to when the run's own cannot be written.

    Raises:
        InvalidInput: a value that breaks its rule.
    """

    min_workers: int | None = None
    deadline: float | None = None
    join_timeout: float = 60.0
    copies: bool = True
    spare: Path | None = None

    def __post_init__(self) -> None:
        if self.min_workers is not None:
            check_integer("min_workers", self.min_workers, at_least=1)
        if self.deadline is not None:
            check_number("deadline", self.deadline, above=0)
        check_number("join_timeout", self.join_timeout, above=0)
        object.__setattr__(self, "spare", None if self.spare is None else Path(self.spare))

    def least(self, workers: int) -> int:
        """Return how many of some workers must be left.

        >>> [Faults().least(workers) for workers in (1, 2, 3, 4)], Faults(min_workers=3).least(8)
        ([1, 1, 2, 2], 3)
        """
        return -(-workers // 2) if self.min_workers is None else self.min_workers
