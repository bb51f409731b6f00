"""A process group as torch's own strategies ask for one, and what goes through it, which torch does not tell."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from isthmus.trainer.wire.meter import Traffic
from isthmus.trainer.wire.sockets import Sockets

# Torch's own; gloo holds every message to what the group was made with, whatever is set later.
_AT_MOST = timedelta(minutes=30)
_WAITING = timedelta(days=1)  # whoever watches the workers decides when to wait no longer, and breaks the group off
_PREAMBLE = 144  # bytes that gloo sends beside a message: three headers of 48 (measured on tensors of known size)
_SEGMENT = 1 << 20  # bytes: gloo cuts what it sends to a neighbour into at least two messages, of at most so many


class Native:
    """Torch's group, and what this worker has moved through it since somebody last asked.

    With gloo the bytes are those at its sockets, its headers included. With NCCL, and where the system does not tell
    them, they are those that the arithmetic of :func:`all_reduce` and :func:`all_gather` gives, without headers.

    Attributes:
        group: of torch.
        workers: in it.
        since: when this worker began to wait in it; None while it does not.
    """

    def __init__(self, group: Any, sockets: Sockets | None = None) -> None:
        self.group = group
        self.workers: int = group.size()
        self.since: float | None = None
        self._sockets = sockets
        self._before = (0, 0) if sockets is None else sockets.moved()
        self._expected, self._seconds = Traffic(), 0.0

    def shut(self) -> None:
        """Break it off, from any thread."""
        if self._sockets is not None:
            self._sockets.shut()

    @property
    def broken(self) -> bool:
        """Whether another worker is gone, or it was broken off: what torch raises then is its way to say so."""
        return self._sockets is not None and not self._sockets.stand

    def expect(self, traffic: Traffic) -> None:
        """Note what a collective has to move."""
        self._expected += traffic

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Wait in a collective inside the block."""
        self.begin()
        try:
            yield
        finally:
            self.end()

    def begin(self) -> None:
        """Begin to wait: what comes from now on is not hidden behind computing."""
        self.since = time.monotonic()

    def end(self) -> None:
        """Wait no longer; from any thread."""
        if self.since is not None:
            self._seconds += time.monotonic() - self.since
            self.since = None

    def taken(self) -> tuple[Traffic, float]:
        """Return what was moved, and the seconds waited for it, since this was last asked."""
        found, seconds = self._expected, self._seconds
        self._expected, self._seconds = Traffic(), 0.0
        now = None if self._sockets is None else self._sockets.moved()
        if now is not None and self._before is not None and self.workers > 1:
            sent, received = (after - before for after, before in zip(now, self._before, strict=True))
            found, self._before = Traffic(sent, received, found.hops), now
        return found, seconds


def all_reduce(size: float, workers: int, headers: bool = True) -> Traffic:
    """Return what a worker moves when tensors of so many bytes are summed over all, in a ring: 2 (n - 1) / n of them.

    The same where gloo reduces and scatters, as it does so by summing everything on all workers.
    """
    return _ring(size, workers, 2, headers)


def all_gather(size: float, workers: int, headers: bool = True) -> Traffic:
    """Return what a worker moves when so many bytes are put together of equal parts: (n - 1) / n of them."""
    return _ring(size, workers, 1, headers, segment=sys.maxsize)


def _ring(size: float, workers: int, rounds: int, headers: bool, segment: int = _SEGMENT) -> Traffic:
    hops = rounds * (workers - 1)
    part = size / workers
    moved = hops * (part + headers * _PREAMBLE * max(2, -(-part // segment)))
    return Traffic(moved, moved, hops)


def native(store: dist.Store, index: int, workers: int) -> Native:
    """Return torch's group of all workers, over gloo: its default one, or beside one that a script has made another.

    Raises:
        RuntimeError: the others did not come.
    """
    hook = sys.excepthook  # torch would write a worker's number before every line of what Python says at the end
    try:
        with Sockets() as sockets:
            if dist.is_initialized():
                group = dist.new_group(backend="gloo", timeout=_AT_MOST)
            else:
                dist.init_process_group("gloo", store=store, rank=index, world_size=workers, timeout=_AT_MOST)
                group = dist.group.WORLD
    finally:
        sys.excepthook = hook
    with suppress(AttributeError, RuntimeError):  # not public; without it, torch itself gives up after the time above
        dist.distributed_c10d._set_pg_timeout(_WAITING, group)
    return Native(group, sockets)
