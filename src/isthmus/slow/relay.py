"""When a packet arrives over slow lines: a pure calculation, whose clock is the caller's.

A host's line is a pipe each way. A packet's first bit leaves when all before it have left, travels for the delay, and
enters the other host's line when all have that came there before; its last bit follows at the slower of both rates. So
a packet that waits for nobody takes its length at the slower rate, once, and the delay. A sender's own bucket
(:mod:`isthmus.slow.bucket`) holds it to its rate, so that little waits here to leave; before the other host's line
packets of many may meet, and what finds too long a queue there is lost.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import count

from isthmus.line import Line
from isthmus.randomness import generator
from isthmus.slow.bucket import queue_seconds
from isthmus.slow.packet import target, wire_bytes


class Relay:
    """Packets between hosts that have all the same line.

    Args:
        hosts: how many.
        line: of each.
        loss: the fraction of packets that are lost on the way.
    """

    def __init__(self, hosts: int, line: Line, loss: float) -> None:
        self._line = line
        self._loss = loss
        self._draws = generator(0, "loss") if loss else None
        self._patience = queue_seconds(line.down)
        self._up = [0.0] * hosts  # when each host's line is free, each way
        self._down = [0.0] * hosts
        self._numbers = count()  # of packets, so that none is compared
        # (first bit there, number, last bit there, bits, target, packet) of those under way, the first to come first
        self._flying: list[tuple[float, int, float, int, int, bytes]] = []
        self._arriving: list[tuple[float, int, int, bytes]] = []  # (last bit there, number, target, packet)

    def take(self, now: float, source: int, packet: bytes) -> None:
        """Take a packet that a host has sent."""
        to = target(packet)
        if to is None or not 0 <= to < len(self._up) or self._is_lost():
            return
        bits, line = 8 * wire_bytes(packet), self._line
        start = max(now, self._up[source])
        self._up[source] = left = start + bits / line.up
        there = start + line.latency, next(self._numbers), left + line.latency
        heapq.heappush(self._flying, (*there, bits, to, packet))

    def due(self, now: float) -> Iterator[tuple[int, bytes]]:
        """Give (target, packet) of all whose last bit is there."""
        # nothing that is sent from now on can be at a host sooner than this
        while self._flying and self._flying[0][0] <= now + self._line.latency:
            first, number, last, bits, to, packet = heapq.heappop(self._flying)
            free = self._down[to]
            if free - first <= self._patience:
                self._down[to] = max(first, free) + bits / self._line.down
                heapq.heappush(self._arriving, (max(last, self._down[to]), number, to, packet))
        while self._arriving and self._arriving[0][0] <= now:
            _, _, to, packet = heapq.heappop(self._arriving)
            yield to, packet

    def next(self) -> float | None:
        """Return when there is something to do, None where nothing is under way."""
        arrives = self._arriving[0][0] if self._arriving else None
        if not self._flying:
            return arrives
        decided = self._flying[0][0] - self._line.latency
        return decided if arrives is None else min(decided, arrives)

    def _is_lost(self) -> bool:
        return self._draws is not None and self._draws.random() < self._loss
