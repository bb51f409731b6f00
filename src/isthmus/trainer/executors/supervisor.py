"""The workers of a run as their launcher sees them: started, watched, started again, ended."""

from __future__ import annotations

import logging
import os
import queue
import sched
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing.connection import wait
from typing import Any

from torch.distributed import PrefixStore, Store

from isthmus.errors import DataError, InvalidInput, WorkerError
from isthmus.trainer.executors.child import Child, Start
from isthmus.trainer.executors.worker import SIGNALS, Here, Raised, Returned

PREFIX = "isthmus"  # of the keys in the store
LEAVE = 9.0  # seconds that workers have to leave after a signal: all is over within ten
GRACE = 2.0  # seconds a worker has to end by SIGTERM before it is killed
SAME_SIGNAL = 0.3  # seconds in which a signal to a whole process group reaches all of it
PATIENCE = 20.0  # seconds after which a worker that only lost another is the cause itself
LOOK = 0.2  # seconds between looks into the store
LINGER = 5.0  # seconds after which others no longer wait for a worker that has returned
PAUSE = 0.1  # seconds before a worker is started again
EARLY, OFTEN, REST = 10.0, 3, 20.0  # one that dies so soon, so often in a row, waits so long, and twice that next time
SILENT = 60.0  # seconds after which the server that workers are forked from does not answer

_log = logging.getLogger("isthmus")


class Supervisor:
    """Starts a process a seat and sees to it until all have ended.

    Not elastic, the first failure ends the run. Elastic, a worker that dies is started again; the others are told
    through the store:

    ========================== ================================================================================
    out/<seat>/<incarnation>   set here: why that process is gone, or that it has returned
    lost/<seat>/<incarnation>  set by workers: that process is silent; it is killed here, and started again
    stop                       set here: the signal on which everybody leaves
    ========================== ================================================================================

    Args:
        store: that workers find each other through; hosted by this process.
        start: starts the process of a seat.
        workers: number of seats.
        elastic: whether workers come and go.
    """

    def __init__(self, store: Store, start: Start, workers: int, elastic: bool) -> None:
        self._store = PrefixStore(PREFIX, store)
        self._start_process = start
        self._workers = workers
        self._elastic = elastic
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()  # to make in this thread
        self._orders: queue.SimpleQueue[Child | None] = queue.SimpleQueue()  # to start, in another
        self._clock = sched.scheduler(time.monotonic)
        self._living: dict[int, Child] = {}
        self._due: set[int] = set()  # seats that will be started again
        self._early: Counter[int] = Counter()  # deaths in a row soon after the start
        self._results: dict[int, Any] = {}
        self._suspects: list[WorkerError] = []  # failures that may have a cause which is not known yet
        self._outcome: BaseException | None = None  # why everybody has to go
        self._server: int | None = None  # descriptor of the process that workers are forked from
        self._heard = 0.0  # when it last did so

    def run(self) -> Any:
        """Return the result of the lowest seat that has one other than None, once all have ended.

        Raises:
            InvalidInput, DataError: what a worker found wrong with its input.
            WorkerError: a worker failed, or none is left.
            KeyboardInterrupt: after a signal.
        """
        threading.Thread(target=self._start_in_turn, daemon=True).start()
        try:
            for seat in range(self._workers):
                self._start(seat, 0)
            if self._elastic:
                self._look()
            self._attend(lambda: bool(self._living or self._due))
            if self._suspects:  # the launcher may be about to hear what they have heard
                until = time.monotonic() + SAME_SIGNAL
                self._attend(lambda: self._outcome is None and time.monotonic() < until)
        finally:
            for child in self._living.values():
                child.kill()
            self._orders.put(None)
            for event in self._clock.queue:  # or this, and the store with it, would live on in a circle
                self._clock.cancel(event)
            if self._server is not None:
                os.close(self._server)
        return self._result()

    def signalled(self, number: int) -> None:
        """Take a signal; to be called from its handler."""
        self._calls.put(partial(self._signalled, number))

    def _attend(self, going: Callable[[], bool]) -> None:
        """Make the calls that are told or due as long as there is something to attend to."""
        while going():
            pause = self._clock.run(blocking=False)
            with suppress(queue.Empty):
                self._calls.get(timeout=LOOK if pause is None else min(pause, LOOK))()

    def _result(self) -> Any:
        results = [value for _, value in sorted(self._results.items()) if value is not None]
        if self._outcome is not None:
            raise self._outcome
        if self._suspects and not (self._elastic and results):
            raise self._suspects[0]
        return next(iter(results), None)

    def _start_in_turn(self) -> None:
        while (child := self._orders.get()) is not None:
            child.start(self._start_process, self._told, self._calls.put)

    def _start(self, seat: int, incarnation: int) -> None:
        self._due.discard(seat)
        if self._outcome is None and not (self._elastic and self._results):  # whoever comes too late finds nobody
            self._living[seat] = Child(seat, incarnation)
            self._orders.put(self._living[seat])

    def _told(self, child: Child, message: Here | Returned | Raised | None) -> None:
        if self._living.get(child.seat) is not child:  # given up while it was being started
            child.kill()
        elif message is None:
            del self._living[child.seat]
            self._ended(child)
        elif isinstance(message, Here):
            child.since = self._heard = time.monotonic()
            if self._server is None and message.server is not None:
                with suppress(ProcessLookupError):
                    self._server = os.pidfd_open(message.server)
        else:
            child.said = message
            if isinstance(message, Returned):
                self._results[child.seat] = message.value
            else:
                self._raised(child, message)

    def _raised(self, child: Child, message: Raised) -> None:
        """What a worker finds wrong with its input is raised as what it is: the fault is the input's, not its own."""
        kinds = {kind.__name__: kind for kind in (InvalidInput, DataError)}
        failure = WorkerError(f"worker {child.seat} failed ({message})")
        if message.kind in kinds:
            self._end(kinds[message.kind](message.text))
        elif child.incarnation and self._results:  # it came when the others were leaving
            self._suspects.append(failure)
        elif message.symptom:
            self._suspect(failure, PATIENCE)
        else:
            self._end(failure)

    def _ended(self, child: Child) -> None:
        code = child.reap()
        how = _how(child, code)
        if child.said is not None or self._outcome is not None:
            if isinstance(child.said, Returned):  # what it sent last may still be on its way to the others
                if self._elastic:
                    self._clock.enter(LINGER, 1, self._out, (child, "has left"))
            elif self._elastic:
                self._out(child, how)  # others may be about to save, and must not wait for it
            return
        if self._elastic:
            self._died(child, how)
        elif code is not None and -code in SIGNALS:  # it may have gone to all of us, and this worker was the faster
            self._suspect(WorkerError(f"worker {child.seat} {how}"), SAME_SIGNAL)
        else:
            self._end(WorkerError(f"worker {child.seat} {how}"))

    def _died(self, child: Child, how: str) -> None:
        """Tell the others that a process is gone, and start it again: soon, or later if it keeps dying."""
        seat = child.seat
        self._out(child, how)
        if self._results:
            self._suspects.append(WorkerError(f"worker {seat} {how} while the others were leaving"))
            return
        early = child.process is None or time.monotonic() - child.since < EARLY
        self._early[seat] = self._early[seat] + 1 if early else 0
        rests = min(self._early[seat] - OFTEN, 5)
        pause = PAUSE if rests < 0 else REST * 2**rests
        self._due.add(seat)
        if not self._living and all(self._early[each] >= OFTEN for each in self._due):
            self._end(WorkerError(f"worker {seat} {how}, and no worker is left"))
            return
        _log.warning("isthmus: worker %d %s; starting it again%s", seat, how, "" if rests < 0 else f" in {pause:g} s")
        self._clock.enter(pause, 1, self._start, (seat, child.incarnation + 1))

    def _out(self, child: Child, how: str) -> None:
        key = f"out/{child.seat}/{child.incarnation}"
        if not self._store.check([key]):
            self._store.set(key, how)

    def _look(self) -> None:
        """Kill whom the others have declared lost, and see to the process that workers are forked from."""
        self._clock.enter(LOOK, 1, self._look)
        for child in self._living.values():
            if child.process is not None and self._store.check([f"lost/{child.seat}/{child.incarnation}"]):
                child.kill()
        if self._server is None or self._outcome is not None:
            return
        asked = [max(child.since, self._heard) for child in self._living.values() if child.process is None]
        if wait([self._server], 0):
            state = "has died"
        elif asked and time.monotonic() - min(asked) > SILENT:
            state = "does not answer and is killed"
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._server, signal.SIGKILL)
        else:
            return
        _log.warning("isthmus: the process that workers are forked from %s; a new one is made when it is needed", state)
        os.close(self._server)
        self._server = None

    def _signalled(self, number: int) -> None:
        again, self._due = isinstance(self._outcome, KeyboardInterrupt), set()
        if self._outcome is None:
            self._outcome = KeyboardInterrupt()
            self._store.set("stop", f"signal {number}")
        if again or not self._living:
            self._kill()
        elif self._elastic:
            self._clock.enter(LEAVE, 1, self._kill)
        else:
            self._terminate()

    def _suspect(self, failure: WorkerError, patience: float) -> None:
        """Keep a failure that may have a cause which is not known yet; after some time it is the cause itself."""
        self._suspects.append(failure)
        self._clock.enter(patience, 1, self._end, (failure,))

    def _end(self, outcome: BaseException) -> None:
        """End everybody, for the first reason there was."""
        if self._outcome is None:
            self._outcome, self._due = outcome, set()
            self._kill() if self._elastic else self._terminate()

    def _terminate(self) -> None:
        for child in self._living.values():
            child.kill(signal.SIGTERM)
        self._clock.enter(GRACE, 1, self._kill)

    def _kill(self) -> None:
        for child in self._living.values():
            child.kill()
        self._clock.enter(GRACE, 1, self._living.clear)  # one that is still being started is killed when it comes


def _how(child: Child, code: int | None) -> str:
    """Return how a process ended, in a few words on one line."""
    if child.process is None:
        return f"could not be started ({child.trouble})"
    if code is None or code < 0:
        return f"was killed (signal {signal.SIGKILL if code is None else -code})"
    return f"failed (exit code {code})"
