"""The link between workers that live in one process: seats at a table, where one worker at a time is at work.

Every worker runs its own function, from a script or from us, on a thread of its own, and goes on until it needs the
others; then the next one's turn comes. So one loop serves processes and this alike, and what is local to a thread
(gradient mode, autocast) stays with its worker. Torch's generators of random numbers are the process's: they are put
away and taken out with the turn, so that a worker draws the same numbers as in a process of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from isthmus.errors import IsthmusError, WorkerError
from isthmus.trainer.wire.exchange import Exchange, Same

_CLOSE = "every worker must end with training.close()"
_SEAT: ContextVar[Seat | None] = ContextVar("seat", default=None)


def seat() -> Seat | None:
    """Return the seat of the worker that this thread is, None outside of a table."""
    return _SEAT.get()


@dataclass(frozen=True)
class Noise:
    """The states of torch's generators: the CPU's, and those of the GPUs once one was in use."""

    cpu: Tensor
    gpus: Sequence[Tensor] = ()

    @classmethod
    def present(cls) -> Noise:
        """Return the states they have now."""
        return cls(torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else ())

    def put_back(self) -> None:
        """Give them these states; a GPU's that had none that of a process that has drawn nothing."""
        torch.set_rng_state(self.cpu)
        for gpu in range(torch.cuda.device_count() if torch.cuda.is_initialized() else 0):
            state = self.gpus[gpu] if self.gpus else torch.Generator(f"cuda:{gpu}").get_state()
            torch.cuda.set_rng_state(state, gpu)


class Seat(Same):
    """One worker's place."""

    shared = True

    def __init__(self, table: Table, index: int) -> None:
        self.index = index
        self.workers = table.workers
        self._table = table
        self._noise = Noise(torch.Generator().get_state())  # as that of a process that has drawn nothing

    def exchange(self, request: Exchange) -> list[Tensor]:
        """Leave the request, let the others work until all have left one, and return what they sent here."""
        self._noise = Noise.present()
        reply = self._table.trade(self.index, request)
        self._noise.put_back()
        return reply

    def run(self, function: Callable[..., Any], arguments: Sequence[Any]) -> None:
        """Be the worker: wait for the turn, call the function, keep what it returns or raises."""
        table = self._table
        _SEAT.set(self)
        torch.set_num_threads(1)
        # Torch has one thread for the backward passes on a GPU: a worker that exchanges gradients there would keep it
        # from the others. On the worker's own thread it waits for nobody.
        torch.autograd.set_multithreading_enabled(False)
        try:
            table.wait_turn(self.index)
            self._noise.put_back()
            table.results[self.index] = function(*arguments)
        except _Stopped:
            pass
        except BaseException as error:  # handed to the thread that asked, whatever it is
            table.fail(self.index, error)
        finally:
            table.leave(self.index)


class Table:
    """Where the workers of one process sit."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.results: list[Any] = [None] * workers
        self.failure: tuple[int, BaseException] | None = None
        self._changed = threading.Condition()
        self._turn = 0
        self._seated = set(range(workers))
        self._requests: dict[int, Exchange] = {}
        self._replies: dict[int, list[Tensor]] = {}
        self._stopped = False

    def run(self, function: Callable[..., Any], arguments: Sequence[Sequence[Any]]) -> list[Any]:
        """Call the function as every worker, each with its own arguments; return the results by worker.

        Raises:
            WorkerError: a worker failed; the message names it. What isthmus raises itself is raised as it is.
        """
        noise, threads = Noise.present(), torch.get_num_threads()
        seats = [Seat(self, index) for index in range(self.workers)]
        people = [
            threading.Thread(target=place.run, args=(function, mine), name=f"worker {place.index}", daemon=True)
            for place, mine in zip(seats, arguments, strict=True)
        ]
        try:
            for person in people:
                person.start()
            self._wait_for_all()
        finally:
            self._stop()
            started = [person for person in people if person.ident is not None]
            self._seated &= set(range(len(started)))
            self._wait_for_all()
            for person in started:
                person.join()
            noise.put_back()
            torch.set_num_threads(threads)
        if self.failure is not None:
            worker, error = self.failure
            if isinstance(error, IsthmusError) or not isinstance(error, Exception):
                raise error
            raise WorkerError(f"worker {worker} failed ({type(error).__name__}: {error})") from error
        return self.results

    def trade(self, worker: int, request: Exchange) -> list[Tensor]:
        """Leave a worker's request; when its turn comes again, return its reply."""
        with self._changed:
            if len(self._seated) < self.workers:
                gone = min(set(range(self.workers)) - self._seated)
                raise WorkerError(f"worker {gone} ended while worker {worker} waits for it: {_CLOSE}")
            self._requests[worker] = request
            if len(self._requests) == self.workers:
                self._deliver()
            self._pass_turn(worker)
        self.wait_turn(worker)
        return self._replies.pop(worker)

    def wait_turn(self, worker: int) -> None:
        """Wait until this worker may work."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._turn == worker)
            if self._stopped:
                raise _Stopped

    def fail(self, worker: int, error: BaseException) -> None:
        """Note the first failure; all others stop where they are."""
        with self._changed:
            self.failure = self.failure or (worker, error)
        self._stop()

    def leave(self, worker: int) -> None:
        """Get up: a worker is done. Nobody may still wait for it."""
        with self._changed:
            self._seated.discard(worker)
            waiting = sorted(self._requests)
            if waiting and not self._stopped:
                said = f"worker {worker} ended while worker {waiting[0]} waits for it: {_CLOSE}"
                self.failure = self.failure or (worker, WorkerError(said))
            self._pass_turn(worker)
        if self.failure is not None:
            self._stop()

    def _wait_for_all(self) -> None:
        """Wait until all have got up; not by ``join``: Python 3.11 takes a thread for ended if Ctrl-C breaks it."""
        with self._changed:
            while self._seated:
                self._changed.wait(0.2)  # short, so that Ctrl-C is heard

    def _pass_turn(self, worker: int) -> None:
        order = [(worker + step) % self.workers for step in range(1, self.workers + 1)]
        self._turn = next((other for other in order if other in self._seated), worker)
        self._changed.notify_all()

    def _stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _deliver(self) -> None:
        """Hand out copies before anybody goes on: a sender may write to what it sent."""
        for worker in range(self.workers):
            reply = [self._requests[other].send[worker].clone() for other in range(self.workers)]
            sizes = tuple(piece.numel() for piece in reply)
            if sizes != self._requests[worker].expect:
                asked = self._requests[worker].expect
                raise WorkerError(f"worker {worker} expected {asked} numbers from the others, was sent {sizes}")
            self._replies[worker] = reply
        self._requests.clear()


class _Stopped(BaseException):
    """Another worker failed, or the whole was interrupted: unwind."""
