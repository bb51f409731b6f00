"""The plan of memory for people: a row a worker, one row for those that are alike."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from rich.console import Console
from rich.table import Table

from isthmus.trainer.plan.plan import Plan

_COLUMNS = {
    "home": "home",
    "piece": "piece",
    "gradients": "gradients",
    "state": "optimizer",
    "activations": "step",
    "way": "on the way",
    "data": "data",
}


def show(plans: Sequence[Plan]) -> None:
    """Print the plans of all workers on standard error."""
    Console(stderr=True).print(table(plans))


def table(plans: Sequence[Plan]) -> Table:
    """Return the plans as a table in MB; workers that need the same to a kilobyte share a row."""
    shown = Table(title="memory each worker will need at most, in MB, beside Python and torch", title_justify="left")
    shown.add_column("worker")
    for title in (*_COLUMNS.values(), "all"):
        shown.add_column(title, justify="right")
    rows = [(*(plan.numbers()[name] for name in _COLUMNS), plan.total) for plan in plans]
    cells = [tuple(f"{number / 1e6:.3g}" if number < 1e8 else f"{number / 1e6:.0f}" for number in row) for row in rows]
    for same, group in groupby(range(len(plans)), key=cells.__getitem__):
        workers = list(group)
        shown.add_row(str(workers[0]) if len(workers) == 1 else f"{workers[0]}-{workers[-1]}", *same)
    return shown
