"""What happened beside the rounds of a training (a worker lost, a checkpoint): marks on the axes of its curves."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any

from isthmus.records import Run
from isthmus.report.plots import Marks, number
from isthmus.report.wording import MISSING, plain, seconds

# event -> its words in a legend, colour and symbol; others are shown as "something else"
KINDS = {
    "lost": ("worker lost", "#B00020", "cross"),
    "joined": ("worker joined", "#2E7D32", "up"),
    "late": ("worker late", "#A65E00", "down"),
    "refused": ("block refused", "#6A1B9A", "square"),
    "absent": ("classes without a worker", "#5D4037", "cross"),
    "restored": ("rows from a checkpoint", "#00695C", "square"),
    "checkpoint": ("checkpoint", "#8A9099", "diamond"),
}
OTHER = ("something else", "#3A3F46", "diamond")
MEANING = (
    "Thin vertical lines are what happened beside the rounds: workers that were lost or came back, blocks that were "
    "refused, classes that were lost with their workers, rows that were taken from a checkpoint, checkpoints; the list "
    "stands with each run below."
)


def marks(runs: Sequence[Run], positions: Callable[[Run], list[Any]], time: bool = False) -> tuple[Marks, ...]:
    """Return the events of some runs on an axis, one set a kind.

    Args:
        runs: whose events.
        positions: where each row of a run is on that axis.
        time: whether the axis is time, on which an event has a place of its own; elsewhere it is at its round.
    """
    found: dict[tuple[str, str, str], list[tuple[float, str]]] = {}
    for run in runs:
        rounds, places = _steps(run, positions(run))
        for event in run.events:
            own, at = number(event.get("seconds")) if time else None, number(event.get("round"))
            before = bisect_right(rounds, at) - 1 if at is not None else -1
            place = own if own is not None else places[before] if before >= 0 else None
            if place is not None:
                what = KINDS.get(str(event.get("event")), OTHER)
                found.setdefault(what, []).append((place, f"{run.path.name}, {_words(event)}"))
    order = [kind for kind in (*KINDS.values(), OTHER) if kind in found]
    return tuple(
        Marks(name, tuple(x for x, _ in sorted(found[kind])), tuple(text for _, text in sorted(found[kind])), *look)
        for kind in order
        for name, *look in [kind]
    )


def event_rows(run: Run) -> list[tuple[str, ...]]:
    """Return a run's events as cells: round, time, worker, event, words."""
    return [
        (
            plain(event.get("round")),
            seconds(number(event.get("seconds"))),
            plain(event.get("worker")),
            plain(event.get("event")),
            plain(event.get("text")) if event.get("text") else "",
        )
        for event in run.events
    ]


def _steps(run: Run, positions: Sequence[Any]) -> tuple[list[float], list[float]]:
    """The rounds of the rows that have a place, and their places."""
    pairs = [(number(row.get("round")), number(at)) for row, at in zip(run.rows, positions, strict=True)]
    known = sorted((round, at) for round, at in pairs if round is not None and at is not None)
    return [round for round, _ in known], [at for _, at in known]


def _words(event: dict[str, Any]) -> str:
    """Return an event in short: "round 41: worker 2, was killed (signal 9)"."""
    parts = [f"worker {plain(event['worker'])}"] if event.get("worker") is not None else []
    parts += [plain(event[key]) for key in ("text",) if event.get(key)] or [plain(event.get("event"))]
    when = "" if event.get("round") is None else f"round {plain(event['round'])}: "
    return (when + ", ".join(parts)).replace(MISSING, "")[:200]
