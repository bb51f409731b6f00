"""What one worker sends, receives and spends."""

from __future__ import annotations

import time
from dataclasses import astuple, dataclass


@dataclass(frozen=True)
class Traffic:
    """What one worker has to move.

    Attributes:
        sent, received: bytes.
        hops: how often something has to arrive before it can go on.
        beside: bytes of these, each way, that can travel while a backward pass still goes on.
    """

    sent: float = 0.0
    received: float = 0.0
    hops: float = 0.0
    beside: float = 0.0

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(*(one + another for one, another in zip(astuple(self), astuple(other), strict=True)))

    def times(self, number: float) -> Traffic:
        """Return that of as many alike."""
        return Traffic(*(number * each for each in astuple(self)))


@dataclass
class Meter:
    """Bytes without what stays with the worker itself; apart, sent and received together, those to look at the merged
    network and those of copies; ahead: those of the method, both ways, that travel while the worker computes; seconds
    computing, moving payload, waiting for others, and of the first those in steps; hops: how often something had to
    arrive before this worker could go on, but to look."""

    sent: int = 0
    received: int = 0
    viewing: int = 0
    copying: int = 0
    ahead: int = 0
    hops: int = 0
    compute: float = 0.0
    move: float = 0.0
    wait: float = 0.0
    stepping: float = 0.0
    _step: float | None = None

    def step_begins(self) -> bool:
        """Note that a step of the loop begins, unless one has begun; return whether it is so."""
        begins = self._step is None
        if begins:
            self._step = self._uncounted()
        return begins

    def step_ends(self) -> None:
        """Count the time since the step's beginning as computing, but for what was counted in it (an exchange)."""
        if self._step is not None:
            spent = self._uncounted() - self._step
            self.compute += spent
            self.stepping += spent
            self._step = None

    def _uncounted(self) -> float:
        return time.perf_counter() - self.compute - self.move - self.wait

    def meeting(self, seconds: float) -> None:
        """Add an exchange that carries no payload."""
        self.wait += seconds
        self.hops += 1

    def begun(self, moved: tuple[int, int], ahead: bool, seconds: float) -> None:
        """Add an exchange that goes on beside what follows: bytes sent and received, whether they are for the next
        round, and how long it took to begin."""
        self.sent += moved[0]
        self.received += moved[1]
        self.ahead += sum(moved) if ahead else 0
        self.move += seconds

    def landed(self, seconds: float, hop: bool, payload: bool) -> None:
        """Add the wait for the end of such an exchange: whether it is a hop of its own, and not only a meeting."""
        self.hops += hop
        self.move += seconds if payload else 0.0
        self.wait += 0.0 if payload else seconds

    def native(self, traffic: Traffic, seconds: float) -> None:
        """Add what torch's own parts have moved, and how long that was waited for."""
        self.sent += round(traffic.sent)
        self.received += round(traffic.received)
        self.hops += round(traffic.hops)
        self.move += seconds
        if self._step is None:  # else it is left out of the step
            self.compute -= seconds

    def count(self, moved: tuple[int, int], viewing: bool, copying: bool, seconds: float) -> None:
        """Add an exchange that does: bytes sent and received, and how long it took."""
        sent, received = moved
        if viewing or copying:
            self.viewing += viewing * (sent + received)
            self.copying += copying * (sent + received)
        else:
            self.sent += sent
            self.received += received
        self.hops += not viewing
        self.move += seconds
