"""Plans for people: of memory, a row a worker, one row for those that are alike; of a round, in words; of all
strategies, a row each."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import groupby

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from isthmus.line import Line
from isthmus.trainer.plan.forecast import Forecast
from isthmus.trainer.plan.outlook import Outlook
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


_LINES = (Line.of("1gbit"), Line.of("100mbit", "10ms"), Line.of("10mbit", "10ms"))  # where none is known


def show(forecast: Forecast) -> None:
    """Print what all workers will need, and what a round will cost, on standard error."""
    console = Console(stderr=True)
    console.print(table([load.plan for load in forecast.loads]))
    console.print(sentence(forecast), markup=False, highlight=False, soft_wrap=True)


def sentence(forecast: Forecast) -> str:
    """Return what a round will cost: bytes of the busiest worker, seconds of computing, and with what moves over the
    line that is known, or over some."""
    moved = max(forecast.moved, key=lambda each: each.sent + each.received)
    said = f"{shown_bytes(moved.sent)} sent and {shown_bytes(moved.received)} received by the busiest worker"
    if math.isnan(forecast.round_seconds):
        return f"a round: {said}"
    lines = _LINES if forecast.line == Line() else (forecast.line,)
    times = [shown_seconds(forecast.over(line).round_seconds) for line in lines]
    over = ", ".join(f"{time} over a line of {line.shown}" for time, line in zip(times, lines, strict=True))
    return f"a round: {said}, {shown_seconds(forecast.compute_seconds)} computing; in all {over}"


def show_outlook(outlook: Outlook) -> None:
    """Print what was found of all strategies on standard output."""
    console = Console()
    console.print(outlook_table(outlook))
    for line in remarks(outlook):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def outlook_table(outlook: Outlook) -> Table:
    """Return a row a strategy; bytes are those of the worker for which they are most."""
    config, line = outlook.config, outlook.line
    over = "a line that costs nothing (give --rate and --latency)" if line == Line() else f"a line of {line.shown}"
    title = f"{config.data_shown}, {config.workers} workers, {config.local_steps} local steps a round, over {over}"
    shown = Table(title=title, title_justify="left", box=SIMPLE, padding=0, show_edge=False)
    shown.add_column("strategy", no_wrap=True)
    for name in _ROUND:
        shown.add_column(name, justify="right", no_wrap=True)
    for each in outlook.prospects:
        if each.forecast is not None:
            shown.add_row(each.strategy.name, *(cell(each.forecast) for cell in _ROUND.values()))
    return shown


def remarks(outlook: Outlook) -> list[str]:
    """Return what the table does not say: what does not fit, what cannot be planned, how the numbers are known."""
    said = ["enough steps: local steps with which moving costs a tenth of computing"]
    said += [f"{each.strategy.name}: {each.problem}" for each in outlook.prospects if each.problem is not None]
    said += [f"{each.strategy.title}: {each.why}" for each in outlook.prospects if each.why]
    for each in outlook.prospects:
        if outlook.memory is not None and (over := each.over(outlook.memory)):
            room = shown_bytes(outlook.memory)
            said.append(f"{each.strategy.name} does not fit into {room}: it needs {shown_bytes(over)} more")
    found = [each.forecast for each in outlook.prospects if each.forecast is not None]
    if any(not each.all for each in found):
        said.append(f"workers looked at: {len(found[0].loads)} of {found[0].workers}, evenly spread")
    for how in dict.fromkeys(load.speed.how for each in found for load in each.loads):
        said.append(f"seconds of a step: {how}")
    return [*said, *outlook.notes]


_ROUND: dict[str, Callable[[Forecast], str]] = {
    "para-\nmeters": lambda found: shown_count(max(load.parameters for load in found.loads)),
    "\nheld": lambda found: shown_bytes(found.held_bytes),
    "\nneeded": lambda found: shown_bytes(found.needed_bytes),
    "sent +\nreceived": lambda found: shown_bytes(found.busiest_bytes),
    "com-\nputing": lambda found: shown_seconds(found.compute_seconds),
    "\na round": lambda found: shown_seconds(found.round_seconds),
    "samples\nper s": lambda found: _known(found.samples_per_second, shown_count),
    "enough\nsteps": lambda found: "never" if found.break_even is None else f"{found.break_even:,}",
}


def _known(value: float, form: Callable[[float], str]) -> str:
    return form(value) if math.isfinite(value) else "?"


def shown_count(count: float) -> str:
    """Return a number with three digits.

    >>> shown_count(999), shown_count(5824522)
    ('999', '5.82 M')
    """
    return _scaled(count, ("", " k", " M", " G", " T"))


def shown_bytes(count: float) -> str:
    """Return a number of bytes in decimal units, as network rates are given.

    >>> shown_bytes(999), shown_bytes(1.5e6), shown_bytes(999_900)
    ('999 B', '1.5 MB', '1 MB')
    """
    return _scaled(count, (" B", " kB", " MB", " GB", " TB"))


def _scaled(count: float, units: Sequence[str]) -> str:
    *smaller, largest = units
    for unit in smaller:
        if count < 999.5:
            return f"{count:.3g}{unit}"
        count /= 1000
    return f"{count:.3g}{largest}"


def shown_seconds(seconds: float) -> str:
    """Return seconds in words.

    >>> shown_seconds(0.0123), shown_seconds(2.5)
    ('12.3 ms', '2.5 s')
    """
    if math.isnan(seconds):
        return "?"
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


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
