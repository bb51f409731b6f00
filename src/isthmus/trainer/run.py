"""A training from its configuration to its record, under whichever executor."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from isthmus.errors import InvalidInput, IsthmusError, RecordError, WorkerError, missing_dependency
from isthmus.records import Run, RunWriter, fresh_folder, read_run
from isthmus.trainer.checkpoint.manifest import checkpoints, folder_name, number_of
from isthmus.trainer.config import TrainConfig
from isthmus.trainer.config.again import FOLDER, after_restart, of_run
from isthmus.trainer.config.flags import command as command_of
from isthmus.trainer.config.flags import record
from isthmus.trainer.config.run import under_torchrun

try:
    import torch

    from isthmus.trainer import work
    from isthmus.trainer.checkpoint.read import choose
    from isthmus.trainer.executors.in_turn import run_in_turn
    from isthmus.trainer.executors.launcher import launch
    from isthmus.trainer.executors.processes import export_worker, run_worker
    from isthmus.trainer.executors.signals import heeding
    from isthmus.trainer.membership.link import Elastic, join, leave
    from isthmus.trainer.plan.traffic import Nobody
    from isthmus.trainer.store.whole import check_path
    from isthmus.trainer.strategies import Worker, part_of
    from isthmus.trainer.task.setup import Setup, set_up
    from isthmus.trainer.task.verified import check_cut
    from isthmus.trainer.wire.exchange import Alone, Link, LostPeer, drive
    from isthmus.trainer.wire.meter import Meter
    from isthmus.trainer.wire.rendezvous import shared
except ImportError as error:
    raise missing_dependency("training", error) from error

_HEARD = 2.0  # seconds in which a worker that is gone may have said why

_log = logging.getLogger("isthmus")


def run(config: TrainConfig, command: list[str] | None = None) -> Run | None:
    """Run one training; return its record, or None on a worker under torchrun that is not worker 0.

    Raises:
        InvalidInput, DataError: before any process starts or folder is made.
        WorkerError: a worker was killed or failed; says which, in which round, and where the rows so far are.
    """
    if under_torchrun():
        return _join(config, command)
    serial = config.executor == "serial"
    # so that bad data or a bad network is one line now rather than one per worker later
    setup = set_up(config, torch.device("cpu") if serial else None)
    check_cut(setup)
    if config.strategy.by_class:  # whether its last layer can be made, and fits
        part_of(config.strategy, Worker(Nobody(0, config.workers), setup.network, config.seed))
    with _writer(config, command) as writer, _terminate_as_interrupt():
        try:
            if serial:
                summary = _serially(setup, writer)
            else:
                del setup  # each worker loads for itself; this process only supervises
                elastic = config.strategy.elastic
                told = launch(run_worker, config, writer.path, workers=config.workers, elastic=elastic)
                summary = told or {}
        except WorkerError as error:
            rows = _rows_of(writer.path)
            when = f"in round {rows}" if rows else "while starting"
            raise WorkerError(f"{error} {when}; rows so far are in {writer.path}") from error
        _finish(writer, summary)
    return read_run(writer.path)


def export(folder: Path, path: Path, number: int | None) -> Path:
    """Write the network of a run's checkpoint; see :func:`isthmus.trainer.export_run`."""
    config, target = of_run(folder), check_path(path)
    place = folder / FOLDER
    if number is not None:
        place /= folder_name(number)
        if not place.is_dir():
            there = ", ".join(str(number_of(each)) for each in checkpoints(folder / FOLDER)[::-1])
            raise InvalidInput(f"`checkpoint` must be one of {there}, got {number}")
    source, wrong = drive(choose(place, Alone(), torch.device("cpu")), Alone(), Meter())
    for line in wrong:
        _log.warning("isthmus: %s; exporting %s", line, source.path.name)
    config = replace(config, workers=source.workers)
    if config.executor == "serial":
        setup = set_up(config, torch.device("cpu"))
        run_in_turn(work.export, [(setup, source.path, target)] * config.workers)
    else:
        launch(export_worker, config, source.path.absolute(), target, workers=config.workers, elastic=False)
    return target


def _serially(setup: Setup, writer: RunWriter) -> dict[str, Any]:
    workers = range(setup.config.workers)
    return run_in_turn(work.work, [(setup, (lambda: writer) if worker == 0 else None) for worker in workers])[0]


def _join(config: TrainConfig, command: list[str] | None) -> Run | None:
    """Be the one worker that torchrun started here."""
    config = after_restart(config)  # before the others are there, of which one will write to the folder
    try:
        link = join(config.faults.join_timeout)
        if link.seats != config.workers:
            raise InvalidInput(
                f"`workers` must be the number of processes that were started, {link.seats}, got {config.workers}"
            )
        with _stopping(link):
            if link.seat != 0:
                _check_told(run_worker(config, None) or {})
                return None
            with _writer(config, command) as writer:
                summary = run_worker(config, writer.path, verifies=True) or {}
                _finish(writer, summary)
            _check_told(summary)
            return read_run(writer.path)
    except IsthmusError as error:
        leave()  # the others notice
        raise shared(error, wait=_HEARD if isinstance(error, LostPeer) else 0.0) from error


def _check_told(summary: dict[str, Any]) -> None:
    """Raise where a run has ended because it was told to."""
    if summary.get("status") == "interrupted":
        raise KeyboardInterrupt


@contextmanager
def _stopping(link: Link) -> Iterator[None]:
    """Have all workers save and leave when one is told to end."""
    if not isinstance(link, Elastic):
        yield
        return
    with heeding(lambda number: link.stop_all(f"signal {number}")):
        yield


def _writer(config: TrainConfig, command: list[str] | None) -> RunWriter:
    if config.resume:
        assert config.out is not None
        return RunWriter.again(config.out, record(config), command, config.faults.spare)
    folder = config.out or fresh_folder(config.name)
    made = command_of(config) if command is None else command
    return RunWriter(folder, "train", {**record(config), "out": folder}, made, config.replace, config.faults.spare)


def _rows_of(folder: Path) -> int:
    """Return how many rows a run that failed has; 0 also where its folder is gone."""
    try:
        return len(read_run(folder).rows)
    except RecordError:
        return 0


def _finish(writer: RunWriter, summary: dict[str, Any]) -> None:
    writer.finish(summary, status=str(summary["status"]))


@contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """Treat SIGTERM and SIGHUP as Ctrl-C inside the block, so that a run that is told to end records that it was."""
    on_main = threading.current_thread() is threading.main_thread()
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP)} if on_main else {}
    before = {each: handler for each, handler in before.items() if handler is not signal.SIG_IGN}  # nohup
    for each in before:
        signal.signal(each, signal.default_int_handler)
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
