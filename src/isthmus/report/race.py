"""Who gets there first over a line: a training's first picture, and a table of times to a target."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from scipy.special import stdtrit

from isthmus.line import Line
from isthmus.records import Run
from isthmus.report.curves import Curve, averaged, drawn_rows, traffic
from isthmus.report.model import COMMON, View, line_of, overlaps, rounds, seconds
from isthmus.report.plots import POINTS, Figure, Plot, Race, Series, Table, focus, number, wide
from isthmus.report.wording import MISSING, mean, percent, plain, scaled, times
from isthmus.report.wording import seconds as shown_seconds

_LEVEL = 0.975  # two-sided 95 %
_LINES = {
    "in a data centre": Line.of("10gbit", "0.1ms"),
    "in a house": Line.of("1gbit", "1ms"),
    "between towns": COMMON,
    "slow": Line.of("10mbit", "10ms"),
    "at home, by cable": Line.of("100mbit", "15ms", up="20mbit"),
    "by satellite": Line.of("100mbit", "300ms", up="10mbit"),
}


@dataclass(frozen=True)
class Measure:
    """What is learned, as a picture shows it.

    Attributes:
        column: of the rows.
        label: of the axis.
        words: in a sentence.
        factor: from a row to the axis.
        best: the best of several values.
    """

    column: str
    label: str
    words: str
    factor: float
    rises: bool

    def best(self, values: Sequence[float]) -> float:
        """Return the best of some values."""
        return max(values) if self.rises else min(values)

    def plain_below(self, values: Sequence[float]) -> float:
        """Return the worst of some values, made a little worse so that it is a plain number.

        A share is rounded down to whole percents, a loss up to two digits.
        """
        if self.rises:
            return math.floor(100 * min(values) + 1e-9) / 100
        unit = 10.0 ** (math.floor(math.log10(max(values))) - 1) if max(values) > 0 else 1.0
        return float(f"{math.ceil(max(values) / unit - 1e-9) * unit:.2g}")

    def show(self, value: float) -> str:
        """Return a value in words."""
        return percent(value, 2).replace(".00 ", " ") if self.rises else plain(value)

    def reached(self, run: Run, target: float) -> int | None:
        """Return the row at which a run first was as good as a target, None where it never was."""
        values = [number(row.get(self.column)) for row in run.rows]
        good = (at for at, value in enumerate(values) if value is not None and self._as_good(value, target))
        return next(good, None)

    def _as_good(self, value: float, target: float) -> bool:
        return value >= target if self.rises else value <= target


ACCURACY = Measure("test_accuracy", "test accuracy (%)", "accuracy", 100.0, rises=True)
LOSS = Measure("test_loss", "test loss", "loss", 1.0, rises=False)


def race(found: Sequence[Curve], measure: Measure, view: View) -> Race | None:
    """Return the first picture of some curves and its table; None where there is nothing to draw."""
    runs = [run for one in found for run in one.runs]
    line = view.first(runs)
    plot = _plot(found, measure, line)
    if not plot.has_points:
        return None
    goal = _target(found, measure) if view.target is None else view.target
    entries = [_Entry(one, tuple(measure.reached(run, goal) for run in one.runs)) for one in found]
    lines = _lines(runs)
    caption = (
        "Who gets how far after how many seconds, were the workers' hosts joined by the line in the box. "
        f"{'Higher' if measure.rises else 'Lower'} and further left is better. The curves are a model, worked out from "
        f"what the runs recorded.{_points(found)}"
    )
    figure = Figure("time", f"Test {measure.words} against seconds", caption, (plot,))
    return Race(
        line=line,
        figure=figure,
        table=_table(entries, measure, goal, line),
        lines=lines,
        model=_MODEL.format(_OVERLAPS * any(map(overlaps, runs))),
        courses={
            "curves": [_course(one, measure) for one in found],
            "entries": [entry.record() for entry in entries],
        },
    )


_MODEL = (
    "The seconds up to a round are a sum over the rounds so far. Of each round it has the seconds that the slowest "
    "worker computed, on the machine where the run was made; the larger of 8 × bytes sent / rate up and 8 × bytes "
    "received / rate down, of the workers that sent and received most; and the latency times the hops: how often "
    "something had to arrive before a worker could go on. {}Evaluations take no time. The first round has also what a "
    "program makes ready when it starts. On a logarithmic axis the start at 0 s is left out."
)
_OVERLAPS = (
    "Strategies that compute while their messages are on the way have the larger of computing and moving instead of "
    "their sum. "
)


def _points(found: Sequence[Curve]) -> str:
    return " Single marks are measured: what a run took that was made over a line." * any(
        line for line, _ in over_lines(found)
    )


def over_lines(found: Sequence[Curve]) -> list[tuple[Line | None, Curve]]:
    """Return the curves by the line that their runs were made over; None where that is not known."""
    result = []
    for one in found:
        for line in dict.fromkeys(map(line_of, one.runs)):
            result.append((line, replace(one, runs=tuple(run for run in one.runs if line_of(run) == line))))
    return result


def recorded_seconds(run: Run) -> list[Any]:
    """Return, row by row, the seconds since a run began, as it measured them."""
    return [row.get("seconds") for row in run.rows]


def _places(run: Run) -> list[Any]:
    return list(range(len(run.rows)))


def _plot(found: Sequence[Curve], measure: Measure, line: Line) -> Plot:
    column, factor = measure.column, measure.factor
    curves = [
        averaged(one, lambda run: seconds(run, line), column, factor, key=f"curve {at}") for at, one in enumerate(found)
    ]
    finished = [drawn for one, drawn in zip(found, curves, strict=True) if one.runs[0].status == "finished"]
    scale = "log" if wide(curves) else "linear"
    series = [without_start(one) if scale == "log" else one for one in curves]
    shown = tuple(one for one in series if max(one.x, default=0.0) > 0)  # a start alone is no curve
    shown += tuple(_measured(found, measure))
    return Plot("", f"seconds over {line.shown}", measure.label, shown, x_scale=scale, focus=focus(curves, finished))


def without_start(series: Series) -> Series:
    """Return a series without the points at no time at all, which a logarithmic axis cannot show."""
    kept = [at for at, x in enumerate(series.x) if x > 0]
    x, y, low, high = (
        tuple(side[at] for at in kept if side) for side in (series.x, series.y, series.low, series.high)
    )  # fmt: skip
    return replace(series, x=x, y=y, low=low, high=high)


def _measured(found: Sequence[Curve], measure: Measure) -> list[Series]:
    """The points of runs that were made over a known line; one entry of the legend for each line."""
    known = [(line, one) for line, one in over_lines(found) if line is not None]
    lines = list(dict.fromkeys(line for line, _ in known))
    result: list[Series] = []
    for line, one in known:
        words = f"measured over {line.shown}"
        look = {"style": POINTS[lines.index(line) % len(POINTS)], "said": f"{one.label}, {words}", "group": words}
        first = all(series.group != words for series in result)
        drawn = averaged(one, recorded_seconds, measure.column, measure.factor, name=words * first, **look)
        drawn = without_start(drawn)  # it is there on every axis that the page may choose
        result += [replace(drawn, low=(), high=())] if drawn.x else []
    return result


def _lines(runs: Sequence[Run]) -> tuple[tuple[str, Line], ...]:
    known = dict.fromkeys(line for line in map(line_of, runs) if line is not None)
    return tuple([("measured", line) for line in known] + list(_LINES.items()))


def _target(found: Sequence[Curve], measure: Measure) -> float:
    """A level that the mean of every finished curve reaches."""
    ended = [one for one in found if one.runs[0].status == "finished"] or found
    drawn = [averaged(one, _places, measure.column, 1.0).y for one in ended]
    return measure.plain_below([measure.best(y) for y in drawn if y])


@dataclass(frozen=True)
class _Entry:
    """When the runs of a curve reached the target: the row of each, None of those that did not."""

    curve: Curve
    rows: tuple[int | None, ...]

    @property
    def hits(self) -> list[tuple[Run, int]]:
        return [(run, at) for run, at in zip(self.curve.runs, self.rows, strict=True) if at is not None]

    def seeds(self) -> list[list[int]]:
        """The places in :attr:`hits` of each seed: a seed may have been run over several lines."""
        seeds = [plain(run.config.get("seed")) for run, _ in self.hits]
        return [[at for at, other in enumerate(seeds) if other == seed] for seed in dict.fromkeys(seeds)]

    def margin(self) -> float:
        """What the standard deviation over seeds is multiplied by: t / sqrt(n); 0 for one seed."""
        count = len(self.seeds())
        return float(stdtrit(count - 1, _LEVEL)) / math.sqrt(count) if count > 1 else 0.0

    def seconds(self, line: Line) -> tuple[float, float] | None:
        """Mean over seeds and half the width of its confidence interval; None where no run reached it."""
        taken = [seconds(run, line)[at] for run, at in self.hits]
        if not taken or not all(map(math.isfinite, taken)):
            return None
        means = [mean([taken[at] for at in places]) or 0.0 for places in self.seeds()]
        return mean(means) or 0.0, self.margin() * statistics.stdev(means) if len(means) > 1 else 0.0

    def record(self) -> dict[str, Any]:
        """What the page needs to compute :meth:`seconds`: for each hit its run's place in the curve and its row."""
        hits = [(place, at) for place, at in enumerate(self.rows) if at is not None]
        return {"hits": hits, "seeds": self.seeds(), "margin": self.margin()}


def _table(entries: Sequence[_Entry], measure: Measure, goal: float, line: Line) -> Table:
    taken = [entry.seconds(line) for entry in entries]
    known = [pair[0] for pair in taken if pair is not None]
    rows = []
    for entry, pair in zip(entries, taken, strict=True):
        seeds = len({plain(run.config.get("seed")) for run in entry.curve.runs})
        hit = len(entry.seeds())
        at = mean([number(run.rows[row].get("round")) for run, row in entry.hits])
        spent = mean([traffic(run)[row] for run, row in entry.hits])
        rows.append((
            entry.curve.label,
            f"{hit} of {seeds}",
            plain(None if at is None else round(at, 1)),
            scaled(spent, "B"),
            "not reached" if pair is None else said(*pair) + ", one seed" * (hit == 1),
            MISSING if pair is None else ratio(pair[0], min(known)),
            MISSING if pair is None else ratio(max(known), pair[0]),
        ))  # fmt: skip
    columns = ("strategy", "seeds that reached it", "rounds", "bytes, busiest worker", "seconds over the line",
               "of the fastest", "faster than the slowest")  # fmt: skip
    caption = (
        "Until the first evaluation that was as good; means over the seeds that reached it, ± half of the 95 % "
        "confidence interval by Student's t. Seconds are the model's, over the line in the box."
    )
    return Table(f"To a test {measure.words} of {measure.show(goal)}", caption, columns, tuple(rows), "lrrrrrr")


def said(middle: float, margin: float) -> str:
    """Return seconds and their margin in words.

    >>> said(75.2, 1.25), said(3.0, 0.0)
    ('75 s ± 1.25', '3 s')
    """
    known = margin > 1e-9 * middle  # less is rounding
    return shown_seconds(middle) + (f" ± {shown_seconds(margin).removesuffix(' s')}" if known else "")


def ratio(larger: float, smaller: float) -> str:
    """Return how many times one duration is the other, or that one of them is none."""
    return times(larger, smaller) if smaller > 0 else MISSING


def _course(one: Curve, measure: Measure) -> dict[str, Any]:
    """A curve as ``page.js`` draws it anew: what is on its y axis, and of each run the rows of the points."""
    drawn = averaged(one, _places, measure.column, measure.factor)
    places = drawn_rows(one, measure.column)
    if any(len(at) != len(drawn.y) for at in places):  # a number that no axis can show was left out
        return {"y": [], "low": [], "high": [], "overlaps": False, "runs": []}
    runs = [{"at": at, **rounds(run)} for run, at in zip(one.runs, places, strict=True)]
    return {"y": drawn.y, "low": drawn.low, "high": drawn.high, "overlaps": overlaps(one.runs[0]), "runs": runs}
