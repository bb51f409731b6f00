"""When a run is saved."""

from __future__ import annotations

from dataclasses import dataclass

from isthmus.errors import check_integer

INTERVAL = 120.0  # seconds of work
_SHARE = 0.05  # of the time that saving may take


@dataclass(frozen=True)
class Saving:
    """Checkpoints of a run.

    Attributes:
        every: rounds between two of them; 0 for none; by default they are about two minutes of work apart, further
            where writing one takes more than a twentieth of that.
        keep: how many are left, the last ones.

    Raises:
        InvalidInput: a value that breaks its rule.
    """

    every: int | None = None
    keep: int = 2

    def __post_init__(self) -> None:
        if self.every is not None:
            check_integer("checkpoint_every", self.every, at_least=0)
        check_integer("keep_checkpoints", self.keep, at_least=1)

    def due(self, round: int, since: float, cost: float) -> bool:
        """Return whether to save after a round.

        Args:
            round: how many have been merged.
            since: seconds since the last checkpoint was written, or since the start.
            cost: seconds that took.

        >>> [Saving(every=3).due(round, 0.0, 0.0) for round in (1, 2, 3, 6)]
        [False, False, True, True]
        >>> [Saving().due(5, since, cost) for since, cost in ((119, 1), (121, 1), (121, 10), (201, 10))]
        [False, True, False, True]
        """
        if self.every is None:
            return since >= max(INTERVAL, cost / _SHARE)
        return self.every > 0 and round % self.every == 0
