"""What one worker keeps, and says, of what happens to the workers of its training."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from isthmus.trainer.membership.link import Change
from isthmus.trainer.rounds.events import Event

_log = logging.getLogger("isthmus")
_SHOWN = 5  # classes that are named
REPEATED = 3  # rounds in a row from which on it is said that a worker's blocks are refused again and again


@dataclass
class News:
    """Events, as they come.

    Attributes:
        events: all of them so far.
        restored: what is to be said of rows that come from a checkpoint, when it is known whose they were.
    """

    events: list[Event] = field(default_factory=list)
    restored: str = ""
    _refusals: dict[int, int] = field(default_factory=dict)

    def changed(self, change: Change, number: int, absent: Sequence[int], workers: int, aloud: bool) -> None:
        """Keep who is gone and who has come.

        Args:
            change: of the workers.
            number: of the round.
            absent: classes that nobody has any more.
            workers: how many take part now.
            aloud: whether it is this worker that says so.
        """
        told = len(self.events)
        for seat, why in change.lost.items():
            self.events.append(Event("lost", number, seat, why))
        if self.restored and change.lost:
            self.events.append(Event("restored", number, min(change.lost), self.restored))
        self.restored = ""
        for seat in change.joined:
            self.events.append(Event("joined", number, seat, "takes part again"))
        if absent:
            few = ", ".join(map(str, absent[:_SHOWN])) + ", ..." * (len(absent) > _SHOWN)
            text = f"leaves {len(absent)} classes without a worker: {few}"
            self.events.append(Event("absent", number, min(change.lost), text))
        for event in self.events[told:] if aloud else ():
            _log.warning("isthmus: worker %d %s (round %d, %d take part)", event.seat, event.text, number, workers)

    def refused(self, number: int, refused: Mapping[int, str], aloud: bool) -> None:
        """Keep whose blocks were refused in a round, and why."""
        self._refusals = {seat: self._refusals.get(seat, 0) + 1 for seat in refused}
        for seat, why in refused.items():
            again = f", {self._refusals[seat]} rounds in a row" if self._refusals[seat] >= REPEATED else ""
            self.events.append(Event("refused", number, seat, why + again))
            if aloud:
                _log.warning("isthmus: the block of worker %d is refused (round %d): %s", seat, number, why + again)
