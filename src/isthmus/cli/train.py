"""Train a network by IST or a rival over real processes; the run goes to a folder that `isthmus report` reads."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from rich.console import Console
from rich.table import Table

from isthmus.cli import status
from isthmus.errors import WorkerError
from isthmus.records import Run
from isthmus.trainer import TrainConfig, train
from isthmus.trainer.config import under_torchrun


@dataclass(frozen=True)
class Options(TrainConfig):
    """The flags of `isthmus train`."""

    json: bool = False
    """print the summary as JSON"""


def run(options: Options, command: list[str]) -> None:
    """Train, then print the table, or the summary as JSON; a failed worker is one line. Exit codes: ``cli.status``."""
    values = {field.name: getattr(options, field.name) for field in dataclasses.fields(TrainConfig)}
    try:
        done = train(TrainConfig(**values), command)
    except WorkerError as error:
        print(f"isthmus: {error}", file=sys.stderr)
        raise SystemExit(status.WORKER_FAILED) from None
    if done is not None:  # the root; other workers under torchrun have nothing to show
        _show(done, options.json)
    if under_torchrun():
        _leave()
    if done is not None:
        status.exit_unless_fine(done.status)


def _leave() -> NoReturn:
    """End this process here, its work done and written, without taking the interpreter apart.

    A thread of the process group that wakes up while Python shuts down is unwound through C++ that must not be: about
    one torchrun worker in a hundred was aborted so (SIGABRT, "terminate called without an active exception"), and
    torchrun then failed the whole run. (A run that diverged ends with 0 here, as torchrun makes an error of its own of
    any other code; the summary says it.) Workers that isthmus starts itself end in this way too, as all processes of
    multiprocessing do.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _show(run: Run, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"run": str(run.path), **run.summary}, indent=2))
    else:
        Console().print(table(run))


def table(run: Run) -> Table:
    """Return the result of a run as a table for people."""
    config, summary = run.config, run.summary
    law = f", law {config['law']}" if config["law"] else ""
    core = f", core {config['core']:g}" if config["core"] else ""
    model = f"{config['model']} on " if config["model"] else ""
    title = f"{model}{config['data']}: {config['strategy']}{law}{core}, {config['workers']} workers"
    shown = Table(title=title, show_header=False)
    for name, value in _lines(run, summary):
        shown.add_row(name, value)
    return shown


def _lines(run: Run, summary: dict[str, Any]) -> list[tuple[str, str]]:
    model, held = summary["model_parameters"], summary["worker_parameters"]
    search = summary["line_search"]
    scale = f"{summary['eval_scale']:.3g}"
    if search.get("held_out_loss") is not None:
        scale += f" (best on held-out data: {search['best_factor']:.3g} times that)"
    first = [word for word in ("sent", "received") if any(run.rows[0][f"{word}_bytes"])]
    return [
        ("status", summary["status"]),
        ("test accuracy", _percent(summary["test_accuracy"])),
        ("test loss", "not finite" if summary["test_loss"] is None else f"{summary['test_loss']:.4f}"),
        ("rounds, samples", f"{summary['rounds']}, {summary['samples']:,}"),
        ("peak learning rate", f"{run.config['lr']:g}"),
        ("parameters of the model", f"{model:,}"),
        ("of a worker (most)", f"{max(held):,} ({max(held) / model:.1%})"),
        *((f"{word} before the first round", _by_worker(run.rows[:1], f"{word}_bytes")) for word in first),
        ("sent a round, by worker", _by_worker(run.rows[1:], "sent_bytes")),
        ("received a round, by worker", _by_worker(run.rows[1:], "received_bytes")),
        ("evaluation scale", scale),
        ("seconds", f"{summary['seconds']:.1f} (computing {max(summary['compute_seconds']):.1f}, "
                    f"communicating {max(summary['communicate_seconds']):.1f})"),
        ("run", str(run.path)),
    ]


def _by_worker(rows: Sequence[dict[str, Any]], column: str) -> str:
    """Return the mean over rows of the bytes of each worker."""
    return ", ".join(_bytes(sum(each) / len(each)) for each in zip(*(row[column] for row in rows), strict=True))


def _percent(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2%}"


def _bytes(count: float) -> str:
    """Return a number of bytes in decimal units, as network rates are given."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
