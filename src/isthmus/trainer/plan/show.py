"""The plan of memory for people: a row a worker, one row for those that are alike."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from rich.box import SIMPLE
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
    """Return the plans as a table in MB; neighbours that need the same to two digits share a row, that of the first."""
    title = "memory each worker will need at most, in MB, beside Python and torch"
    shown = Table(title=title, title_justify="left", box=SIMPLE, collapse_padding=True, pad_edge=False)
    shown.add_column("worker", no_wrap=True)
    for name in (*_COLUMNS.values(), "all"):
        shown.add_column(name, justify="right", no_wrap=True)
    rows = [(*(plan.numbers()[name] for name in _COLUMNS), plan.total) for plan in plans]
    for _, group in groupby(range(len(plans)), key=lambda worker: [f"{number:.1e}" for number in rows[worker]]):
        workers = list(group)
        cells = (f"{number / 1e6:.3g}" if number < 1e8 else f"{number / 1e6:.0f}" for number in rows[workers[0]])
        shown.add_row(str(workers[0]) if len(workers) == 1 else f"{workers[0]}-{workers[-1]}", *cells)
    return shown
