"""What was worked out before a run, beside what it then took."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from isthmus.records import Run
from isthmus.report.curves import Curve
from isthmus.report.plots import Table, number
from isthmus.report.wording import mean, scaled, seconds, worst

_BEFORE = 2  # row 0 and the first round, in which things are made ready


def planned_tables(found: Sequence[Curve]) -> tuple[Table, ...]:
    """Return the table of all curves whose runs have a plan; none where none has."""
    rows = [row for one in found for row in _rows(one)]
    caption = (
        "Of the worker that has most of it; bytes and seconds are means over the rounds after the first, and over "
        "seeds; evaluations are left out. The difference is that of the measured number from the planned one."
    )
    columns = ("strategy", "what", "planned", "measured", "difference")
    return (Table("Planned and measured", caption, columns, tuple(rows), "llrrr"),) if rows else ()


def _rows(one: Curve) -> list[tuple[str, ...]]:
    result: list[tuple[str, ...]] = []
    for words, name, measured, show in _QUANTITIES:
        pairs = [(_plan(run, name), measured(run)) for run in one.runs]
        known = [(plan, found) for plan, found in pairs if plan is not None and found is not None]
        plan = mean([plan for plan, _ in known] or [plan for plan, _ in pairs])
        found = mean([found for _, found in known])
        if plan is not None:
            result.append((one.label, words, show(plan), show(found), _difference(plan, found)))
    return result


def _plan(run: Run, name: str) -> float | None:
    plan = run.summary.get("planned")
    return worst(plan.get(name)) if isinstance(plan, dict) else None


def _difference(plan: float, found: float | None) -> str:
    """
    >>> _difference(100.0, 98.0), _difference(3.0, 3.0)
    ('-2.0 %', '+0.0 %')
    """
    return "–" if found is None or not plan else f"{100 * (found - plan) / plan:+.1f} %"


def _a_round(column: str) -> Callable[[Run], float | None]:
    """Bytes a round of the worker that has most of them."""

    def measured(run: Run) -> float | None:
        rows = [row.get(column) for row in run.rows[_BEFORE:]]
        whole = [row for row in rows if isinstance(row, list)]
        workers = max(map(len, whole), default=0)
        return worst([mean([number(row[at]) for row in whole if at < len(row)]) for at in range(workers)])

    return measured


def _seconds_a_round(run: Run) -> float | None:
    """Computing and exchanges of the slowest worker of each round; evaluations are left out."""
    rows = [(row.get("compute_seconds"), row.get("communicate_seconds")) for row in run.rows[_BEFORE:]]
    return mean([
        worst([(number(one) or 0.0) + (number(other) or 0.0) for one, other in zip(computing, moving, strict=False)])
        for computing, moving in rows
        if isinstance(computing, list) and isinstance(moving, list)
    ])  # fmt: skip


_QUANTITIES: tuple[tuple[str, str, Callable[[Run], float | None], Callable[[Any], str]], ...] = (
    ("memory", "memory_bytes", lambda run: worst(run.summary.get("measured_peak_bytes")), lambda n: scaled(n, "B")),
    ("sent a round", "round_sent_bytes", _a_round("sent_bytes"), lambda n: scaled(n, "B")),
    ("received a round", "round_received_bytes", _a_round("received_bytes"), lambda n: scaled(n, "B")),
    ("seconds a round", "round_seconds", _seconds_a_round, seconds),
)
