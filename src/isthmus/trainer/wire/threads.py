"""The threads that a library starts for itself, and when the system lets them run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def patient() -> Iterator[None]:
    """Have threads that are started inside the block let whoever wakes them finish what it does first.

    Gloo has a thread that reads what comes. It is woken by what another worker writes, on that worker's core if no
    other is free, and takes it from that worker. Where the writer holds the lock of a connection at the time, its own
    such thread finds something to read there, asks for the lock in vain, again and again, and keeps the lock's owner
    from going on, until its slice of time is over: some milliseconds each time (docs/design.md). Threads of Linux's
    "batch" kind are woken without taking a core from anybody, and get the same share of it. Anybody may make his own
    threads so; nothing is changed where the system has no such kind, or somebody has chosen another than the default.
    """
    before = _threads()
    try:
        yield
    finally:
        for thread in _threads() - before:
            with suppress(OSError):  # it has ended, or it is not allowed
                if os.sched_getscheduler(thread) == os.SCHED_OTHER:
                    os.sched_setscheduler(thread, os.SCHED_BATCH, os.sched_param(0))


def _threads() -> set[int]:
    """Return this process's threads, as the system numbers them; none where it is not Linux."""
    with suppress(OSError):
        return {int(name) for name in os.listdir("/proc/self/task")}
    return set()
