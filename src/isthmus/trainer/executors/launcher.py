"""Start one process a worker on this machine through torch's elastic launcher, and say in one line what went wrong.

The launcher's agent runs in the calling process and only supervises: it polls ten times a second, and when a worker
dies it ends the others. Nothing is restarted.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch.distributed as dist
from rich.console import Console
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from isthmus.errors import InvalidInput, WorkerError, check_integer
from isthmus.trainer.executors import loopback
from isthmus.trainer.executors.guard import check_guarded, check_importable, interactive
from isthmus.trainer.wire.group import LostPeer, backend, use_loopback_interface

Result = TypeVar("Result")
_SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT")
_GRACE = 5  # seconds a worker has to end before it is killed
# Loaded once, in the server that all workers are forked from. torch.optim loads torch._dynamo at its first use and an
# export networkx, which takes longer than a small training.
_PRELOADED = [__name__, "torch._dynamo", "networkx"]
_SAME_SIGNAL = 0.3  # seconds in which a signal to a whole process group reaches all of it
_PATIENCE = 20  # seconds a worker that only lost a peer waits for the launcher to end it


def launch(function: Callable[..., Result], *arguments: Any, workers: int = 4) -> Result:
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

    Raises:
        InvalidInput: called where a script is imported, without the guard; or a function that workers cannot import.
        WorkerError: a worker was killed or raised ("worker 2 was killed (signal 9)"); the others were ended.
        KeyboardInterrupt: on SIGINT, SIGTERM, SIGHUP or SIGQUIT, once all workers have ended.
    """
    check_integer("workers", workers, at_least=1)
    check_guarded()
    check_importable(function, arguments)
    method = "fork" if interactive() else "forkserver"
    loopback.register()
    multiprocessing.get_context("forkserver").set_forkserver_preload(_PRELOADED)
    with tempfile.TemporaryDirectory(prefix="isthmus-") as logs, _quiet_launcher(), _surroundings_restored():
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=workers,
            run_id="isthmus",
            rdzv_backend=loopback.BACKEND,
            max_restarts=0,
            start_method=method,
            logs_specs=DefaultLogsSpecs(log_dir=logs),
            signals_to_handle=",".join(_SIGNALS),
            shutdown_timeout=_GRACE,
        )
        try:
            result: Result = _supervise(config, function, arguments)
            return result
        except SignalException as error:
            raise KeyboardInterrupt from error


def _enter(entry: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """Be one worker: join the group, call, leave. The first failure the launcher sees must be the cause, so a worker
    that only lost a peer waits to be ended."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C goes to the whole group: end at once, without a traceback
    threading.Thread(target=_end_with_launcher, daemon=True).start()
    use_loopback_interface()
    dist.init_process_group(backend())
    try:
        return entry(*arguments)
    except LostPeer:
        time.sleep(_PATIENCE)
        raise
    finally:
        dist.destroy_process_group()


def _supervise(config: LaunchConfig, entry: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    try:
        return elastic_launch(config, _enter)(entry, arguments)[0]
    except ChildFailedError as error:
        worker, failure = error.get_first_failure()
        if failure.exitcode in (-signal.SIGINT, -signal.SIGTERM):
            time.sleep(_SAME_SIGNAL)  # it may have gone to all of us, and this worker was the faster
        _raise_bad_input(failure)
        raise WorkerError(f"worker {worker} {_how(failure)}") from error


def _how(failure: ProcessFailure) -> str:
    """Return how a worker ended, in a few words on one line."""
    if failure.exitcode < 0:
        return f"was killed (signal {-failure.exitcode})"
    message = _message(failure)
    return f"failed (exit code {failure.exitcode})" if message is None else f"failed ({message})"


def _raise_bad_input(failure: ProcessFailure) -> None:
    """Raise what a worker found wrong with its input as what it is: the fault is the input's, not the worker's."""
    kind, _, said = (_message(failure) or "").partition(": ")
    if kind in ("InvalidInput", "DataError"):
        raise InvalidInput(said)


def _message(failure: ProcessFailure) -> str | None:
    """Return what a worker raised, on one line."""
    if failure.exitcode < 0 or failure.error_file_data.get("message") == "<NONE>":
        return None
    message = failure.message["message"] if isinstance(failure.message, dict) else failure.message
    return " ".join(message.split())


def _end_with_launcher() -> None:
    """End this process when the launcher is gone, however that ended: no worker outlives its run."""
    launcher = multiprocessing.parent_process()
    if launcher is not None:
        launcher.join()
        os._exit(1)


@contextmanager
def _quiet_launcher() -> Iterator[None]:
    """Silence the launcher's own log, which tells every failure in some thirty lines; ours is one.

    Set before torch is loaded by the workers, the variables also silence its warnings and keep it on one thread.
    """
    logs = [logging.getLogger(name) for name in ("torch", "torch.distributed")]
    settings = [(log, log.handlers, log.propagate) for log in logs]
    for log in logs:
        log.handlers, log.propagate = [logging.NullHandler()], False
    before = {name: os.environ.get(name) for name in ("TORCH_CPP_LOG_LEVEL", "OMP_NUM_THREADS")}
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        for log, handlers, propagate in settings:
            log.handlers, log.propagate = handlers, propagate
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@contextmanager
def _surroundings_restored() -> Iterator[None]:
    """Give signals back to whoever handled them, and the terminal its cursor and a fresh line after a killed root."""
    on_main = threading.current_thread() is threading.main_thread()
    before = {name: signal.getsignal(getattr(signal, name)) for name in _SIGNALS}
    try:
        yield
    except BaseException:
        console = Console(stderr=True)
        if console.is_terminal:  # the root drew its progress line until it was ended
            console.show_cursor(True)
            console.line()
        raise
    finally:
        for name, handler in before.items():
            if on_main:
                signal.signal(getattr(signal, name), handler)
