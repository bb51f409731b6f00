"""How long a worker's steps take."""

from __future__ import annotations

from dataclasses import dataclass

MEASURED = 2  # rounds at least, after the first, in which much is done for the first time


@dataclass
class Pace:
    """What was spent from the end of the first round on.

    Attributes:
        rounds: that have ended.
        seconds: of a step; 0 as long as that is not known.

    >>> pace = Pace()
    >>> for spent, steps in ((9.0, 10), (10.0, 20), (11.0, 30)):
    ...     pace.mark(spent, steps)
    ...     print(pace.seconds)
    0.0
    0.0
    0.1
    """

    rounds: int = 0
    seconds: float = 0.0
    _began: tuple[float, int] = (0.0, 0)

    def mark(self, spent: float, steps: int) -> None:
        """Note the end of a round: seconds spent in steps so far, and how many have been made."""
        self.rounds += 1
        if self.rounds == 1:
            self._began = spent, steps
        made = steps - self._began[1]
        if self.rounds > MEASURED and made:
            self.seconds = (spent - self._began[0]) / made
