"""A training from its configuration to its record, under whichever executor."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from isthmus.errors import InvalidInput, WorkerError, missing_dependency
from isthmus.records import Run, RunWriter, fresh_folder, read_run
from isthmus.trainer.config import TrainConfig, under_torchrun

try:
    import torch.distributed as dist

    from isthmus.trainer.executors.launcher import launch
    from isthmus.trainer.executors.processes import attach, backend, run_worker
    from isthmus.trainer.executors.serial import run_serial
    from isthmus.trainer.setup import set_up
except ImportError as error:
    raise missing_dependency("training", error) from error


def run(config: TrainConfig, command: list[str] | None = None) -> Run | None:
    """Run one training; return its record, or None on a worker under torchrun that is not the root.

    Raises:
        InvalidInput, DataError: before any process starts or folder is made.
        WorkerError: a worker was killed or failed; says which, in which round, and where the rows so far are.
    """
    set_up(config)  # so that bad data or a bad network is one line now rather than one per worker later
    if under_torchrun():
        return _join(config, command)
    with _writer(config, command) as writer, _terminate_as_interrupt():
        try:
            summary = _run_here(config, writer)
        except WorkerError as error:
            rows = read_run(writer.path).rows
            when = f"in round {len(rows)}" if rows else "while starting"
            raise WorkerError(f"{error} {when}; rows so far are in {writer.path}") from error
        _finish(writer, summary)
    return read_run(writer.path)


def _run_here(config: TrainConfig, writer: RunWriter) -> dict[str, Any]:
    if config.executor == "serial":
        return run_serial(config, writer)
    set_up.cache_clear()  # each worker loads for itself; this process only supervises
    summary: dict[str, Any] = launch(_run_launched, (config, writer.path), config.workers)
    return summary


def _run_launched(config: TrainConfig, folder: Path) -> dict[str, Any]:
    return run_worker(config, attach(folder))


def _join(config: TrainConfig, command: list[str] | None) -> Run | None:
    """Be the one worker that torchrun started here."""
    world = int(os.environ["WORLD_SIZE"])
    if world != config.workers:
        raise InvalidInput(f"`workers` must be the number of processes torchrun started, {world}, got {config.workers}")
    dist.init_process_group(backend())
    try:
        if dist.get_rank() != 0:
            run_worker(config, None)
            return None
        with _writer(config, command) as writer:
            _finish(writer, run_worker(config, writer))
        return read_run(writer.path)
    finally:
        dist.destroy_process_group()


def _writer(config: TrainConfig, command: list[str] | None) -> RunWriter:
    folder = config.out or fresh_folder(config.name)
    return RunWriter(folder, "train", {**config.resolved(), "out": folder}, command, config.replace)


def _finish(writer: RunWriter, summary: dict[str, Any]) -> None:
    writer.finish(summary, status=str(summary["status"]))


@contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C inside the block, so that a run that is told to end records that it was interrupted."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
