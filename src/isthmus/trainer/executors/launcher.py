"""Run a function in processes of this machine, and say in one line what went wrong."""

from __future__ import annotations

import gc
import multiprocessing
import multiprocessing.forkserver
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from rich.console import Console

from isthmus.errors import check_integer
from isthmus.trainer.executors.guard import check_guarded, check_importable, interactive
from isthmus.trainer.executors.kin import adopting
from isthmus.trainer.executors.loopback import HOST, loopback_store
from isthmus.trainer.executors.supervisor import Supervisor
from isthmus.trainer.executors.worker import SIGNALS, Task, enter
from isthmus.trainer.wire.resolver import ask_again_soon

Result = TypeVar("Result")
# Loaded once, in the server that all workers are forked from. torch.optim loads torch._dynamo at its first use and an
# export networkx, which takes longer than a small training.
_PRELOADED = ["isthmus.trainer.executors.server", __name__, "torch._dynamo", "networkx"]


def launch(function: Callable[..., Result], *arguments: Any, workers: int = 4, elastic: bool = True) -> Result:
    """Run ``function(*arguments)`` in as many processes of this machine, joined in a group; return worker 0's result.

    ::

        def job(rate): ...                       # isthmus.Training(...) around a loop

        if __name__ == "__main__":               # each worker imports the script first
            print(isthmus.launch(job, 0.1, workers=4))

    Works from a notebook too: the workers are then forked from it.

    Args:
        function: at the top level of a script or module, as the workers import it by name.
        arguments: what it is called with, the same for all.
        workers: number of processes.
        elastic: whether a worker that dies is started again while the others go on.

    Raises:
        InvalidInput: called where a script is imported, without the guard; or a function that workers cannot import.
        WorkerError: a worker was killed or raised ("worker 2 was killed (signal 9)"); the others were ended.
        KeyboardInterrupt: on SIGINT, SIGTERM, SIGHUP or SIGQUIT, once all workers have ended.
    """
    check_integer("workers", workers, at_least=1)
    check_guarded()
    check_importable(function, arguments)
    with _environment(), adopting() as adopts:
        store = loopback_store()
        context, adopted = _context(adopts)
        shared = {
            "WORLD_SIZE": str(workers),
            "LOCAL_WORLD_SIZE": str(workers),
            "MASTER_ADDR": HOST,
            "MASTER_PORT": str(store.port),
            "TORCHELASTIC_USE_AGENT_STORE": "True",
            "RES_OPTIONS": os.environ["RES_OPTIONS"],
        }

        def start(seat: int, incarnation: int) -> tuple[BaseProcess, Connection]:
            own = {"RANK": str(seat), "LOCAL_RANK": str(seat), "TORCHELASTIC_RESTART_COUNT": str(incarnation)}
            return _start(context, Task(os.getpid(), adopted, elastic, {**shared, **own}, function, arguments))

        supervisor = Supervisor(store, start, workers, elastic)
        with _signals_to(supervisor):
            result: Result = supervisor.run()
            return result


def _context(adopts: bool) -> tuple[BaseContext, bool]:
    """Return how processes are made, and whether these have to be adopted to be children of this one.

    A server that has everything loaded already forks them in no time; where its children cannot become ours, its end
    would be theirs, so there every process loads for itself.
    """
    if interactive():
        return multiprocessing.get_context("fork"), False
    if not (adopts and hasattr(os, "pidfd_open")):
        return multiprocessing.get_context("spawn"), False
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    multiprocessing.forkserver.ensure_running()
    return context, True


def _start(context: BaseContext, task: Task) -> tuple[BaseProcess, Connection]:
    ours, theirs = context.Pipe()
    collects = gc.isenabled()
    gc.disable()  # until a forked process has put aside what is not its own
    try:
        process = context.Process(target=enter, args=(task, theirs))  # type: ignore[attr-defined]
        process.start()
    except BaseException:
        ours.close()
        raise
    finally:
        if collects:
            gc.enable()
        theirs.close()
    return process, ours


@contextmanager
def _environment() -> Iterator[None]:
    """Set what must be there before workers load torch: no lines of its own, one thread, quick questions for names."""
    before = {name: os.environ.get(name) for name in ("TORCH_CPP_LOG_LEVEL", "OMP_NUM_THREADS", "RES_OPTIONS")}
    ask_again_soon()
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@contextmanager
def _signals_to(supervisor: Supervisor) -> Iterator[None]:
    """Tell the supervisor of signals; afterwards give the terminal its cursor and a fresh line after a killed root."""
    on_main = threading.current_thread() is threading.main_thread()
    before = {each: signal.getsignal(each) for each in SIGNALS} if on_main else {}
    before = {each: handler for each, handler in before.items() if handler is not signal.SIG_IGN}  # nohup's SIGHUP
    for each in before:
        signal.signal(each, lambda number, _: supervisor.signalled(number))
    try:
        yield
    except BaseException:
        console = Console(stderr=True)
        if console.is_terminal:  # the root drew its progress line until it was ended
            console.show_cursor(True)
            console.line()
        raise
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
