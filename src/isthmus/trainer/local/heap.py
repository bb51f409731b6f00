"""What the C library does with memory that is freed: it keeps some of it, and the process then counts it as its own."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # of mallopt
_AT_ONCE = 1 << 18  # bytes: what is larger goes back to the system when it is freed
_WORTH = 1 << 22
_USUAL = 1 << 25  # what the C library comes to by itself when large tensors come and go


@contextmanager
def passing(size: int = _WORTH) -> Iterator[None]:
    """Inside the block, what is freed goes back to the system; also what was freed before it.

    For work that comes and goes and needs other tensors than a step: where it alternates with steps, each would else
    keep what it needs at most. Steps themselves take and free the same again and again, and are faster if it is kept.
    Does nothing where the C library is not glibc.

    Args:
        size: bytes of what is worked on; of a few megabytes it is not worth the time.
    """
    if size < _WORTH:
        yield
        return
    _give_back(_AT_ONCE)
    try:
        yield
    finally:
        keep()


def keep() -> None:
    """Have what is freed kept from now on, as steps find it between two blocks of the above."""
    _give_back(_USUAL)


def _give_back(threshold: int) -> None:
    library = _library()
    if library is not None:
        library.malloc_trim(0)
        library.mallopt(_MMAP_THRESHOLD, threshold)
        library.mallopt(_TRIM_THRESHOLD, threshold)


@cache
def _library() -> Any:
    try:
        library = ctypes.CDLL(None)
        return library if library.malloc_trim and library.mallopt else None
    except (AttributeError, OSError, TypeError):  # another C library, or another system
        return None
