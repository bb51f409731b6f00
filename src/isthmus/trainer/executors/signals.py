"""Signals to a worker without a supervisor: the first asks all workers to stop, the second ends this one at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from isthmus.trainer.executors.worker import SIGNALS

_INTERRUPTED = 130


@contextmanager
def heeding(stop: Callable[[int], None]) -> Iterator[None]:
    """Inside the block, call a function with the number of the first signal that tells this process to end.

    It is called on a thread beside: Python's own handlers wait for an exchange that the main thread is in, which may be
    the very thing that does not end.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = {each: signal.getsignal(each) for each in SIGNALS}
    for each, handler in before.items():
        if handler is not signal.SIG_IGN:  # nohup's SIGHUP
            signal.signal(each, _later)
    woken = signal.set_wakeup_fd(writer)
    threading.Thread(target=_listen, args=(reader, stop), daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(woken)
        for each, handler in before.items():
            signal.signal(each, handler)
        os.close(writer)


def _listen(reader: int, stop: Callable[[int], None]) -> None:
    asked = False
    while said := os.read(reader, 1):
        if asked:
            os._exit(_INTERRUPTED)
        asked = True
        stop(said[0])
    os.close(reader)


def _later(number: int, frame: FrameType | None) -> None: ...
