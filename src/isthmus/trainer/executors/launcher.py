"""Run a function in processes of this machine, and say in one line what went wrong."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from rich.console import Console

from isthmus.errors import check_integer
from isthmus.trainer.executors.child import Started
from isthmus.trainer.executors.guard import check_guarded, check_importable
from isthmus.trainer.executors.kin import adopting
from isthmus.trainer.executors.loopback import HOST, loopback_store
from isthmus.trainer.executors.nursery import nursery
from isthmus.trainer.executors.supervisor import Supervisor
from isthmus.trainer.executors.worker import SIGNALS, Task
from isthmus.trainer.wire.resolver import ask_again_soon

Result = TypeVar("Result")


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
    task = Task(os.getpid(), False, elastic, {}, function, arguments)
    with _environment(), adopting() as adopts, closing(nursery(task, adopts)) as made:
        store = loopback_store()
        shared = {
            "WORLD_SIZE": str(workers),
            "LOCAL_WORLD_SIZE": str(workers),
            "MASTER_ADDR": HOST,
            "MASTER_PORT": str(store.port),
            "TORCHELASTIC_USE_AGENT_STORE": "True",
            "RES_OPTIONS": os.environ["RES_OPTIONS"],
        }

        def start(seat: int, incarnation: int) -> tuple[Started, Connection]:
            own = {"RANK": str(seat), "LOCAL_RANK": str(seat), "TORCHELASTIC_RESTART_COUNT": str(incarnation)}
            return made.start(replace(task, variables={**shared, **own}))

        supervisor = Supervisor(store, start, workers, elastic)
        with _signals_to(supervisor):
            result: Result = supervisor.run()
            return result


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
