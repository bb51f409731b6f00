"""Threads that stand beside a worker's own."""

from __future__ import annotations

import threading
from collections.abc import Callable

_STACK = 1 << 20  # bytes: these call little, and the usual eight megabytes count where memory is limited


def beside(work: Callable[[], None], name: str) -> threading.Thread:
    """Return a thread that does not keep its process alive, begun."""
    before = threading.stack_size(_STACK)
    try:
        thread = threading.Thread(target=work, name=name, daemon=True)
        thread.start()
    finally:
        threading.stack_size(before)
    return thread
