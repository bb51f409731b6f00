"""How processes of workers are made: forked from a server that has all loaded, forked from here, or each on its own.

A process that is forked from one with threads may find locks taken that nobody will ever release, so none is forked
from a process that keeps torch's store.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import multiprocessing.forkserver
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext, ForkProcess
from typing import Protocol

from isthmus.errors import WorkerError
from isthmus.trainer.executors.child import Started
from isthmus.trainer.executors.guard import interactive
from isthmus.trainer.executors.kin import SERVES, die_with_parent
from isthmus.trainer.executors.worker import SIGNALS, Task, enter, heed_nothing

# Loaded once, in the server that all workers are forked from. torch.optim loads torch._dynamo at its first use and an
# export the others, which takes longer than a small training. Python passes over what a version does not have.
_PRELOADED = [
    "isthmus.trainer.executors.server", "isthmus.trainer.executors.launcher", "torch._dynamo", "torch.export._trace",
    "networkx", "sympy.tensor.tensor",
]  # fmt: skip
_LONGEST = 1 << 16  # bytes of the variables of a worker


class Nursery(Protocol):
    """Makes processes."""

    def start(self, task: Task) -> tuple[Started, Connection]:
        """Start a process that does a task; return it and the line to it."""
        ...

    def close(self) -> None:
        """Make no more."""
        ...


def nursery(task: Task, adopts: bool) -> Nursery:
    """Return how processes are made here; to be called before there is a store.

    A server that has everything loaded already forks them in no time; where its children cannot become ours, its end
    would be theirs, so there every process loads for itself.

    Args:
        task: what all of them are to do.
        adopts: whether a grandchild becomes a child of this process.
    """
    adopts = adopts and hasattr(os, "pidfd_open")
    if interactive():
        return Forked(replace(task, adopted=True)) if adopts else Own(multiprocessing.get_context("fork"))
    if not adopts:
        return Own(multiprocessing.get_context("spawn"))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    os.environ[SERVES] = str(os.getpid())
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        del os.environ[SERVES]
    return Own(context, adopted=True)


@dataclass(frozen=True)
class Own:
    """Makes processes as Python does; what each needs is handed to it.

    Attributes:
        context: how.
        adopted: whether they have to be adopted to be children of this process.
    """

    context: BaseContext
    adopted: bool = False

    def start(self, task: Task) -> tuple[Started, Connection]:
        """Start a process."""
        ours, theirs = self.context.Pipe()
        try:
            with _without_collecting():
                task = replace(task, adopted=self.adopted)
                process = self.context.Process(target=enter, args=(task, theirs))  # type: ignore[attr-defined]
                process.start()
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return process, ours

    def close(self) -> None:
        """Leave a server for the next run."""


class Forked:
    """Makes processes from one that was forked from here at the start, as a notebook's functions are only here.

    Args:
        task: what all of them are to do; nothing of it is handed on but the variables, so it may hold anything.
    """

    def __init__(self, task: Task) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with _without_collecting():
            self._server = ForkProcess(target=self._serve, args=(theirs, task))
            self._server.start()
        theirs.close()

    def start(self, task: Task) -> tuple[Started, Connection]:
        """Have the server fork a process."""
        ours, theirs = multiprocessing.Pipe()
        try:
            socket.send_fds(self._ours, [json.dumps(task.variables).encode()], [theirs.fileno()])
        except OSError as error:
            ours.close()
            raise WorkerError("the process that workers are forked from is gone") from error
        finally:
            theirs.close()
        return _Grandchild(self._ours), ours

    def close(self) -> None:
        """End the server."""
        self._ours.close()
        self._server.kill()  # it may be frozen
        self._server.join()

    def _serve(self, line: socket.socket, task: Task) -> None:
        gc.freeze()
        gc.enable()
        self._ours.close()
        die_with_parent(task.launcher)
        for each in SIGNALS:
            signal.signal(each, heed_nothing)
        while True:
            said, handles, *_ = socket.recv_fds(line, _LONGEST, 1)
            if not said:
                return
            with Connection(handles[0]) as handed, _without_collecting():
                process = ForkProcess(target=enter, args=(replace(task, variables=json.loads(said)), handed))
                process.start()
            process.join()
            line.send(b"forked")


@dataclass(frozen=True)
class _Grandchild:
    """A process that a server of our own has forked, and left to us.

    Attributes:
        server: the line to it.
    """

    server: socket.socket
    pid: None = None
    exitcode: None = None
    sentinel: int = -1

    def join(self) -> None:
        """Wait until it is our own child."""
        self.server.recv(_LONGEST)


@contextmanager
def _without_collecting() -> Iterator[None]:
    """Destroy nothing around a fork, until the new process has put aside what is not its own."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
