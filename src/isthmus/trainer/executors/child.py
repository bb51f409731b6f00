"""One process of a worker as its launcher sees it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

from isthmus.trainer.executors.worker import Here, Raised, Returned


class Started(Protocol):
    """A process that was started, as multiprocessing has it; ``join`` waits for whoever forked the one that works."""

    @property
    def pid(self) -> int | None: ...

    @property
    def exitcode(self) -> int | None: ...

    @property
    def sentinel(self) -> int: ...

    def join(self) -> None: ...


Start = Callable[[int, int], tuple[Started, Connection]]  # (seat, incarnation) -> process, line to it
Told = Callable[["Child", Here | Returned | Raised | None], None]  # the last message, at the end, is None
Tell = Callable[[Callable[[], None]], None]


class Child:
    """The process of a worker, told apart by seat and incarnation.

    Two threads wait for it, as each may stand still: a frozen server does not answer, and a worker may be frozen in
    the middle of a message. What they have to tell are calls, made in the launcher's own thread.
    """

    def __init__(self, seat: int, incarnation: int) -> None:
        self.seat = seat
        self.incarnation = incarnation
        self.since = time.monotonic()
        self.process: int | None = None
        self.said: Returned | Raised | None = None
        self.trouble: Raised | None = None  # why it could not be started
        self._doomed = False
        self._started: Started | None = None

    def start(self, start: Start, told: Told, tell: Tell) -> None:
        """Start the process; may stand still. ``told(child, message)`` is called for each message, the last is None."""
        line: Connection | None = None
        try:
            started, line = start(self.seat, self.incarnation)
            here: Here = line.recv()
        except Exception as error:
            self.trouble = Raised.of(error)
            if line is not None:
                line.close()
            tell(partial(told, self, None))
            return
        self._started, self.process = started, here.process
        if self._doomed:
            self.kill()
        if here.process != started.pid:
            started.join()  # whoever forked it; from then on it is our own child
        with suppress(OSError):
            line.send(None)
        tell(partial(told, self, here))
        threading.Thread(target=self._listen, args=(started, line, told, tell), daemon=True).start()

    def kill(self, how: int = signal.SIGKILL) -> None:
        """Send a signal; a process that is not there yet is killed when it comes."""
        self._doomed = self._doomed or how == signal.SIGKILL
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.kill(self.process, how)

    def reap(self) -> int | None:
        """Return the exit code of a process that has ended, -n by signal n; None where nobody knows."""
        if self.process is None or self._started is None:
            return None
        if self.process == self._started.pid:
            self._started.join()
            return self._started.exitcode
        try:
            return os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])
        except ChildProcessError:
            return None

    def _listen(self, started: Started, line: Connection, told: Told, tell: Tell) -> None:
        assert self.process is not None
        adopted = self.process != started.pid
        try:
            sentinel = os.pidfd_open(self.process) if adopted else started.sentinel
        except ProcessLookupError:  # somebody else waits for all children of this process
            tell(partial(told, self, None))
            return
        sources: list[Any] = [line, sentinel]
        while line in (ready := wait(sources)) or sentinel not in ready:
            message = _receive(line)
            if message is None:
                sources.remove(line)
            else:
                tell(partial(told, self, message))
        tell(partial(told, self, None))
        line.close()
        if adopted:
            os.close(sentinel)


def _receive(line: Connection) -> Returned | Raised | None:
    """Return a worker's next message, None at the end of the line; the worker may go once it has been read."""
    try:
        message: Returned | Raised = line.recv()
    except (OSError, EOFError):
        return None
    except Exception as error:  # what was returned cannot be made again here
        message = Raised.of(error)
    with suppress(OSError):
        line.send(None)
    return message
