"""What the C library does with memory that is freed: it keeps some of it, and the process then counts it as its own."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # of mallopt
_PASSING = 1 << 18  # bytes: what is larger goes back to the system when it is freed
_WORTH = 1 << 22
_LARGEST = 1 << 25  # what is larger always does: the C library takes no more
_ALL = (1 << 31) - 1  # as much as the C library can be told


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
    _give_back(_PASSING, _PASSING)
    try:
        yield
    finally:
        keep()


@contextmanager
def apart() -> Iterator[None]:
    """Inside the block, what is freed is kept for it; before and after it, all that is free goes back to the system.

    For work that takes and frees the same again and again, as steps do, but other tensors than they.
    """
    keep()
    try:
        yield
    finally:
        keep()


def keep() -> None:
    """Have what is freed kept from now on, as steps find it between two blocks of the above."""
    _give_back(_LARGEST, _ALL)


def _give_back(large: int, kept: int) -> None:
    """Give back to the system what is free, and from now on at once what is larger, and what is more than is kept."""
    library = _library()
    if library is not None:
        library.malloc_trim(0)
        library.mallopt(_MMAP_THRESHOLD, large)
        library.mallopt(_TRIM_THRESHOLD, kept)


@cache
def _library() -> Any:
    try:
        library = ctypes.CDLL(None)
        return library if library.malloc_trim and library.mallopt else None
    except (AttributeError, OSError, TypeError):  # another C library, or another system
        return None
