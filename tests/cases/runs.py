"""Trainings for tests: the flags of `isthmus train` as keywords, in this process unless said otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import isthmus
from isthmus.records import Run

DIGITS: dict[str, Any] = {
    "model": "cases.trainable:digits", "workers": 2, "batch_size": 16, "local_steps": 5, "samples": 640, "lr": 0.05,
}  # fmt: skip
READER: dict[str, Any] = {
    "model": "cases.trainable:reader", "workers": 2, "batch_size": 8, "rounds": 2, "law": "fixed", "lr": 0.01,
}  # fmt: skip
# Of processes alone are votes and copies, and their own numbers.
TIMES = ("seconds", "compute_seconds", "communicate_seconds", "hops", "copying_bytes", "processes")


def trained(folder: Path, **flags: Any) -> Run:
    """The record of a run; a flag that is None is not given."""
    run = isthmus.train(out=folder, **{"executor": "serial", **flags})
    assert run is not None
    return run


def without_times(run: Run) -> list[dict[str, Any]]:
    """The rows without what no two runs have in common."""
    return [{key: value for key, value in row.items() if key not in TIMES} for row in run.rows]


def write_text(folder: Path) -> str:
    """The name of a small text as data."""
    lines = [f"The {n}th line says that {n} times {n} is {n * n}.\n" for n in range(300)]
    (folder / "lines.txt").write_text("".join(lines))
    return f"text:{folder / 'lines.txt'}"
