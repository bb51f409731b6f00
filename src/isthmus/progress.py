"""A progress line on a terminal, nothing anywhere else."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Advance(Protocol):
    """Called with the steps done since the last call and an optional note shown at the line's end."""

    def __call__(self, steps: int = 1, note: str = "") -> None: ...


@contextmanager
def progress(title: str, total: int) -> Iterator[Advance]:
    """Show one line on standard error while the block runs; silent when standard error is not a terminal.

    Args:
        title: what is being done, in a few words.
        total: number of steps.
    """
    line = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
    with line:
        task = line.add_task(title, total=total, note="")

        def advance(steps: int = 1, note: str = "") -> None:
            line.update(task, advance=steps, note=note)

        yield advance
