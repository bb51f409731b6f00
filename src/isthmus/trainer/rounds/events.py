"""What happens to the workers of a training."""

from __future__ import annotations

from dataclasses import dataclass


class Stopped(KeyboardInterrupt):
    """The run was told to stop, and has done so between two rounds."""


@dataclass(frozen=True)
class Event:
    """Something that happened to the workers.

    Attributes:
        what: "lost", "joined", "refused": what it had made of its block was no numbers, or too large; "absent":
            it was the last that owned some classes (class-cut); or "restored": what it was home to is as old as the
            last checkpoint.
        round: number of the round.
        seat: of the worker.
        text: more of it.
    """

    what: str
    round: int
    seat: int
    text: str
