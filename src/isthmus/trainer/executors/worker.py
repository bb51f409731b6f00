"""One worker's process: it is tied to its launcher, calls a function and tells what came of it."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from isthmus.trainer.executors.kin import die_with_parent, wait_for_parent
from isthmus.trainer.membership.link import RunOver
from isthmus.trainer.wire.exchange import LostPeer

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


@dataclass(frozen=True)
class Task:
    """What a worker is to do.

    Attributes:
        launcher: process id of whoever it belongs to.
        adopted: whether it is forked from a server, and becomes the launcher's child all the same.
        elastic: whether workers come and go; then it heeds no signal that can be ignored, as its launcher tells it
            when to stop, and finds the others itself.
        variables: of its environment.
        function: to call.
        arguments: of the function.
    """

    launcher: int
    adopted: bool
    elastic: bool
    variables: dict[str, str]
    function: Callable[..., Any]
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Here:
    """A process says that it is there: its id, and that of the server it was forked from."""

    process: int
    server: int | None


@dataclass(frozen=True)
class Returned:
    """A function returned."""

    value: Any


@dataclass(frozen=True)
class Raised:
    """A function raised.

    Attributes:
        kind: name of the exception's type.
        text: its message, on one line.
        symptom: whether another worker's end is the cause.
    """

    kind: str
    text: str
    symptom: bool

    @classmethod
    def of(cls, error: BaseException) -> Raised:
        """Return what is told of an exception."""
        return cls(type(error).__name__, " ".join(str(error).split()), isinstance(error, LostPeer))

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}" if self.text else self.kind


def enter(task: Task, line: Connection) -> None:
    """Be one worker; what it has to tell goes down the line."""
    gc.freeze()  # what a launcher that was forked has left over is not ours to destroy: a store would end its threads
    gc.enable()
    if task.adopted:
        _fork_again(line)
    else:
        line.send(Here(os.getpid(), None))
    _set_signals(task.elastic)
    if not task.adopted:  # else there is a kernel that sees to it
        threading.Thread(target=_end_with_launcher, daemon=True).start()
    wait_for_parent(task.launcher)
    die_with_parent()
    wait_for_parent(task.launcher)  # it may have ended before the kernel was told
    try:
        line.recv()  # nobody works unknown to the launcher, which might start another in its place
    except (OSError, EOFError):
        return
    os.environ.update(task.variables)
    said = _call(task)
    try:
        line.send(said)
    except OSError:  # the launcher is gone
        return
    except Exception as error:  # what it returned cannot be handed to another process
        line.send(Raised.of(error))
    with suppress(OSError, EOFError):
        line.recv()  # until it is read: a tensor is, from this process's memory


def _call(task: Task) -> Returned | Raised:
    try:
        return Returned(task.function(*task.arguments))
    except RunOver:  # it was started again when the others had finished
        return Returned(None)
    except BaseException as error:
        return Raised.of(error)


def _fork_again(line: Connection) -> None:
    """Go on in a grandchild of the server, which the launcher adopts: the server's end is then not the worker's."""
    server, process = os.getppid(), os.fork()
    if process:
        with suppress(OSError):  # the launcher is gone
            line.send(Here(process, server))
        os._exit(0)


def _set_signals(elastic: bool) -> None:
    """Ctrl-C goes to launcher and workers alike. End at once, without a traceback; or leave it to the launcher."""
    for each in SIGNALS:
        if signal.getsignal(each) is not signal.SIG_IGN:
            signal.signal(each, heed_nothing if elastic else signal.SIG_DFL)
    if elastic:  # processes that the function forks may be told to end by it
        os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))


def heed_nothing(*_: Any) -> None:
    """Do nothing. A handler of Python's, unlike SIG_IGN, is not handed down to programs that a worker starts."""


def _end_with_launcher() -> None:
    """End this process when the launcher is gone, where the kernel does not."""
    launcher = multiprocessing.parent_process()
    if launcher is not None:
        launcher.join()
        os._exit(1)
