"""How long a run would take over another line: a model, from the numbers that it recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from isthmus.errors import InvalidInput, check_number
from isthmus.line import Line
from isthmus.records import Run
from isthmus.report.strategies import STRATEGIES
from isthmus.report.wording import plain, worst

COMMON = Line.of("100mbit", "10ms")
_MICROSECONDS = 6  # digits of computing: the page holds the same numbers, and they shall be short


@dataclass(frozen=True)
class View:
    """What a reader asked for.

    Attributes:
        line: drawn first, None for that of the runs.
        target: accuracy as a share, or loss, to which times are given; None for one that all reach.

    Raises:
        InvalidInput: a target that is not positive.
    """

    line: Line | None = None
    target: float | None = None

    def __post_init__(self) -> None:
        if self.target is not None:
            check_number("target", self.target, above=0.0)

    def first(self, runs: Sequence[Run]) -> Line:
        """Return the line to draw first: the one asked for, else the one that runs were made over, else a common one.

        Runs that were made over no known line do not count; where those that were differ, it is the common one.
        """
        known = {line for line in map(line_of, runs) if line is not None}
        return self.line or (known.pop() if len(known) == 1 else COMMON)


def line_of(run: Run) -> Line | None:
    """Return the line that a run was made over, None where it is not known."""
    record = run.environment.get("line")
    try:
        return Line.read(record) if isinstance(record, dict) else None
    except InvalidInput:
        return None


def seconds(run: Run, line: Line) -> list[float]:
    """Return, row by row, after how many seconds a run would be as far over a line.

    Formula: the sum over rounds of max(c, line.seconds(a / 2, a / 2, 0)) + line.seconds(s - a / 2, r - a / 2, h), or of
    the larger of the two for a strategy that computes while its messages are on the way; c, s, r, a, h as
    :func:`rounds` has them. Evaluations take no time.
    """
    total, result = 0.0, []
    for computing, sent, received, ahead, hops in zip(*rounds(run).values(), strict=True):
        half = ahead / 2
        moving = line.seconds(max(0.0, sent - half), max(0.0, received - half), hops)
        beside = max(computing, line.seconds(half, half, 0.0))
        total += max(beside, moving) if overlaps(run) else beside + moving
        result.append(total)
    return result


def rounds(run: Run) -> dict[str, list[float]]:
    """Return what the model knows of a run, one number a row: the largest of all workers' in each column.

    Seconds of computing, bytes sent, bytes received (of both the copies that workers keep of each other's rows too),
    bytes of these that travelled beside computing, and hops; 0 where a row does not say.
    """
    columns = {name: [worst(row.get(name)) or 0.0 for row in run.rows] for name in _COLUMNS}
    for at, row in enumerate(run.rows):  # copies for the case that a worker is lost: as many each way
        copies = (worst(row.get("copying_bytes")) or 0.0) / 2
        columns["sent_bytes"][at] += copies
        columns["received_bytes"][at] += copies
    return columns | {_COLUMNS[0]: [round(value, _MICROSECONDS) for value in columns[_COLUMNS[0]]]}


def overlaps(run: Run) -> bool:
    """Whether the run's strategy computes while its messages are on the way."""
    known = STRATEGIES.get(plain(run.config.get("strategy")))
    return known is not None and known.overlaps


_COLUMNS = ("compute_seconds", "sent_bytes", "received_bytes", "ahead_bytes", "hops")
