"""Whose child a process is: on Linux the kernel ends a process together with its parent, even one that is frozen."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait

_DIE_WITH_PARENT, _ADOPT, _ADOPTS = 1, 36, 37  # of linux/prctl.h
SERVES = "ISTHMUS_SERVES"  # variable of a server: process id of whoever starts it
_PATIENCE = 10  # seconds in which whoever stands between a process and its new parent has long ended


@contextmanager
def adopting() -> Iterator[bool]:
    """Inside, a grandchild whose parent ends becomes this process's child; give whether that is so on this system."""
    before = ctypes.c_int(0)
    _prctl(_ADOPTS, ctypes.addressof(before))
    can = _prctl(_ADOPT, 1)
    try:
        yield can
    finally:
        _prctl(_ADOPT, before.value)


def die_with_parent(parent: int | None = None) -> None:
    """Have the kernel kill this process when the thread that it is a child of ends; without Linux, do nothing.

    Args:
        parent: whose child it is; if it is so no more, that one ended before the kernel was asked: this ends too.
    """
    if _prctl(_DIE_WITH_PARENT, signal.SIGKILL) and parent is not None and os.getppid() != parent:
        os._exit(1)


def wait_for_parent(parent: int) -> None:
    """Wait until this process is the child of another; if that one has ended, or will not have it, end this one."""
    deadline = time.monotonic() + _PATIENCE
    while os.getppid() != parent:
        if _ended(parent) or time.monotonic() > deadline:
            os._exit(1)
        time.sleep(0.001)


def _ended(pid: int) -> bool:
    """Return whether a process has ended, though its parent may not know; False where the system does not say."""
    if not hasattr(os, "pidfd_open"):
        return False
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(wait([process], 0))
    finally:
        os.close(process)


def _prctl(option: int, value: int) -> bool:
    if sys.platform != "linux":
        return False
    with suppress(OSError, AttributeError):
        return ctypes.CDLL(None).prctl(option, ctypes.c_ulong(value), 0, 0, 0) == 0
    return False
