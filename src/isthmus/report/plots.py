"""What a page shows, as plain data: series, plots, bars, tables, sections. The renderers draw them and decide nothing.

Colours are fixed here (Okabe and Ito's palette, distinguishable by colour-blind readers), and so is what happens to
numbers that an axis cannot show: points with a null are left out, values at or below a plot's floor are drawn at the
floor, long series are thinned; every such change is said in :attr:`Plot.notes`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from isthmus.errors import InvalidInput, check_choice
from isthmus.line import Line

_MORE_COLORS = ("#332288", "#117733", "#999933", "#44AA99", "#AA4499", "#661100")
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#882255", "#5B5B5B")
SCALES = ("linear", "log")
STYLES = ("line", "dashed", "dotted", "dashdot", "markers", "squares", "crosses")
POINTS = ("markers", "squares", "crosses")  # the styles without a line
LARGEST = 1e100  # a run that diverges goes to 1e308, where the arithmetic of axes itself overflows
MOST_POINTS = 1500  # a screen is about as many pixels wide
WIDE_SPREAD = 8  # curves whose ends are further apart than this factor need a logarithmic axis
MOST_MARKS = 300  # of one kind; more would be a wall
SYMBOLS = ("cross", "up", "down", "square", "diamond")


@dataclass(frozen=True)
class Series:
    """One curve: points, an optional band, and how it looks.

    Attributes:
        name: in the legend; empty for a curve that belongs to another of its ``group`` and needs no entry.
        x, y: finite numbers, the same count.
        low, high: the band around y, or empty.
        color: "#rrggbb".
        style: one of :data:`STYLES`.
        group: curves of one group are switched on and off together (default: the name).
        thinned: every how many-th point was kept.
        said: what a reader who points at it is told it is (default: the name).
        key: by which the page finds it again to draw it anew.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    color: str = PALETTE[0]
    style: str = "line"
    group: str = ""
    thinned: int = 1
    said: str = ""
    key: str = ""

    def __post_init__(self) -> None:
        check_choice("style", self.style, STYLES)
        counts = {len(self.x), len(self.y)}
        if len(counts) != 1 or any(len(side) not in (0, len(self.x)) for side in (self.low, self.high)):
            raise InvalidInput(f"`y`, `low` and `high` must have as many points as `x` ({len(self.x)})")
        if not all(math.isfinite(value) for values in (self.x, self.y, self.low, self.high) for value in values):
            raise InvalidInput("`x`, `y`, `low` and `high` must be finite numbers")


def number(value: Any) -> float | None:
    """Return ``value`` as a finite float, or None for anything else (null, text, a truth value, infinity).

    >>> [number(value) for value in (3, None, "3", float("nan"), True)]
    [3.0, None, None, None, None]
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        result = float(value)
    except OverflowError:
        return None
    return result if math.isfinite(result) else None


def curve(
    name: str, x: Sequence[Any], y: Sequence[Any], band: tuple[Sequence[Any], Sequence[Any]] | None = None, **look: str
) -> Series:
    """Return the series of the points that have both numbers, thinned to :data:`MOST_POINTS`.

    Args:
        name: in the legend.
        x, y: values, null where there is none.
        band: (low, high); a point whose band is missing gets one of width zero.
        look: color, style, group, said, key of :class:`Series`.

    >>> curve("loss", [0, 1, 2], [4.0, None, 1.0]).x
    (0.0, 2.0)
    """
    lows, highs = band if band is not None else (y, y)
    points = []
    for values in zip(x, y, lows, highs, strict=True):
        at, value, low, high = (number(item) for item in values)
        if at is not None and value is not None:
            points.append((at, value, value if low is None else low, value if high is None else high))
    step, places = thinning(len(points))
    kept = [points[at] for at in places]
    xs, ys, low_side, high_side = zip(*kept, strict=True) if kept else ((), (), (), ())
    sides = (low_side, high_side) if band is not None else ((), ())
    return Series(name, xs, ys, *sides, thinned=step, **look)  # type: ignore[arg-type]


def wide(series: Sequence[Series]) -> bool:
    """Return whether the curves' ends are so far apart that their x axis must be logarithmic."""
    ends = [one.x[-1] for one in series if one.x and one.x[-1] > 0]
    return bool(ends) and max(ends) > WIDE_SPREAD * min(ends)


def focus(series: Sequence[Series], finished: Sequence[Series]) -> tuple[float, float] | None:
    """Return the part of the y axis around the finished curves' ends, None where that is nearly all of it.

    The start would squeeze their differences to nothing.
    """
    values = [value for one in series for value in (*one.y, *one.low, *one.high)]
    ends = [one.y[-1] for one in finished if one.y]
    if len(ends) < 2:
        return None
    room = 2 * (max(ends) - min(ends)) + 0.04 * (max(values) - min(values))
    low, high = max(min(values), min(ends) - room), min(max(values), max(ends) + room)
    margin = 0.03 * (high - low)
    return (low - margin, high + margin) if high - low < 0.6 * (max(values) - min(values)) else None


def thinning(count: int) -> tuple[int, list[int]]:
    """Return every how many-th of ``count`` points is drawn, and which: the first and the last always.

    >>> thinning(3)
    (1, [0, 1, 2])
    """
    step = max(1, math.ceil(count / MOST_POINTS))
    return step, sorted({*range(0, count, step), *range(count)[-1:]})


@dataclass(frozen=True)
class Marks:
    """Moments of one kind on the x axis: a thin line from bottom to top each, and a symbol at its head.

    Attributes:
        name: in the legend.
        x: finite numbers.
        texts: what each says, as many.
        color: "#rrggbb".
        symbol: one of :data:`SYMBOLS`.
    """

    name: str
    x: tuple[float, ...]
    texts: tuple[str, ...]
    color: str
    symbol: str

    def __post_init__(self) -> None:
        check_choice("symbol", self.symbol, SYMBOLS)
        if len(self.x) != len(self.texts) or not all(map(math.isfinite, self.x)):
            raise InvalidInput("`x` must be finite numbers, as many as `texts`")


@dataclass(frozen=True)
class Plot:
    """One set of axes with curves.

    Attributes:
        title, x_label, y_label: words on the plot.
        series: the curves.
        x_scale, y_scale: "linear" or "log".
        floor: on a logarithmic y axis, smaller values (zero and negative rounding noise too) are drawn here.
            0 means that values which are not positive are left out.
        focus: limits of the y axis when the page opens, or None for all of it.
        marks: moments on the x axis.
    """

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    x_scale: str = "linear"
    y_scale: str = "linear"
    floor: float = 0.0
    focus: tuple[float, float] | None = None
    marks: tuple[Marks, ...] = ()

    def __post_init__(self) -> None:
        check_choice("x_scale", self.x_scale, SCALES)
        check_choice("y_scale", self.y_scale, SCALES)

    def drawn(self) -> tuple[Series, ...]:
        """Return the series as they can be drawn on these axes; empty ones are left out."""
        return tuple(series for series in map(self._drawable, self.series) if series.x)

    def marked(self) -> tuple[Marks, ...]:
        """Return the marks as they can be drawn on these axes; those that are nowhere on them are left out."""
        return tuple(marks for marks in map(self._markable, self.marks) if marks.x)

    @property
    def has_points(self) -> bool:
        """Whether there is anything to draw."""
        return bool(self.drawn())

    def y_range(self) -> tuple[float, float] | None:
        """Return the limits of y: the focus, or on a logarithmic axis those of the curves (a band may reach zero)."""
        values = [value for series in self.drawn() for value in (*series.y, *series.high)]
        if self.focus is not None or self.y_scale == "linear" or not values:
            return self.focus
        lowest = min(value for series in self.drawn() for value in series.y)
        decades = math.log10(max(values)) - math.log10(lowest)
        margin = 10 ** max(0.08 * decades, 0.05)
        return lowest / margin, max(values) * margin

    @property
    def notes(self) -> tuple[str, ...]:
        """What is not shown as it was recorded, in sentences."""
        said = []
        lowest = min((value for series in self.series for value in series.y), default=1.0)
        if self.y_scale == "log" and lowest < self.floor and self.floor:
            said.append(f"Values below {self.floor:.0e} are rounding noise and drawn at {self.floor:.0e}.")
        if self.y_scale == "log" and lowest <= 0 and not self.floor:
            said.append("Values that are not above zero cannot be shown on a logarithmic axis.")
        if self.x_scale == "log" and any(value <= 0 for series in self.series for value in series.x):
            said.append("A logarithmic axis has no zero: the starting point is left out.")
        if any(abs(value) > LARGEST for series in self.series for value in (*series.x, *series.y)):
            said.append(f"Values beyond {LARGEST:.0e} are left out.")
        if self.focus is not None:
            said.append("The vertical axis shows where the curves differ; double-click a picture for all of it.")
        step = max((series.thinned for series in self.series), default=1)
        if step > 1:
            said.append(f"Long curves are drawn with one point in {step}.")
        if any(len(marks.x) > MOST_MARKS for marks in self.marks):
            said.append(f"Of what happened beside the rounds the first {MOST_MARKS} of a kind are drawn.")
        return tuple(said)

    def _markable(self, marks: Marks) -> Marks:
        least = 1 / LARGEST if self.x_scale == "log" else -LARGEST
        kept = [each for each in zip(marks.x, marks.texts, strict=True) if least < each[0] < LARGEST][:MOST_MARKS]
        return replace(marks, x=tuple(x for x, _ in kept), texts=tuple(text for _, text in kept))

    def _drawable(self, series: Series) -> Series:
        low, high = series.low or series.y, series.high or series.y
        points = [point for point in zip(series.x, series.y, low, high, strict=True) if max(map(abs, point)) <= LARGEST]
        if self.x_scale == "log":
            points = [point for point in points if point[0] > 1 / LARGEST]
        if self.y_scale == "log":
            raised = [(x, max(y, self.floor), max(bottom, self.floor), top) for x, y, bottom, top in points]
            points = [(x, y, max(bottom, y * 1e-6), max(top, y)) for x, y, bottom, top in raised if y > 1 / LARGEST]
        xs, ys, lows, highs = zip(*points, strict=True) if points else ((), (), (), ())
        banded = bool(series.low or series.high)
        return replace(series, x=xs, y=ys, low=lows if banded else (), high=highs if banded else ())


@dataclass(frozen=True)
class Bars:
    """Horizontal bars: one row a label, one bar a group in each row.

    Attributes:
        title, value_label: words on the plot.
        labels: of the rows, from the top.
        colors: one a label.
        groups: (name, values, texts at the bars' ends); None is no bar.
    """

    title: str
    value_label: str
    labels: tuple[str, ...]
    colors: tuple[str, ...]
    groups: tuple[tuple[str, tuple[float | None, ...], tuple[str, ...]], ...]

    @property
    def has_points(self) -> bool:
        """Whether there is anything to draw."""
        return any(value is not None for _, values, _ in self.groups for value in values)

    def __post_init__(self) -> None:
        counts = {len(self.labels), len(self.colors), *(len(part) for group in self.groups for part in group[1:])}
        if len(counts) != 1:
            raise InvalidInput(f"`labels`, `colors`, values and texts must be equally many, got {sorted(counts)}")


Panel = Plot | Bars


@dataclass(frozen=True)
class Figure:
    """Panels that are read together, and what they say in plain words; one PNG."""

    name: str
    title: str
    caption: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Table:
    """Cells of text; ``align`` has one letter a column: l (left) or r (right)."""

    title: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    align: str

    def __post_init__(self) -> None:
        counts = {len(self.columns), len(self.align), *(len(row) for row in self.rows)}
        if len(counts) != 1:
            raise InvalidInput(f"`columns`, `align` and every row must be equally long, got {sorted(counts)}")


@dataclass(frozen=True)
class Race:
    """A picture against seconds and its table, which the page draws anew for the line that a reader chooses.

    Attributes:
        line: for which they are drawn first.
        figure: one plot.
        table: its last three columns hang on the line.
        lines: (words, line) that a reader may choose.
        model: how the seconds are worked out, in words.
        courses: the recorded numbers, as plain data, from which ``page.js`` computes the same.
    """

    line: Line
    figure: Figure
    table: Table | None
    lines: tuple[tuple[str, Line], ...]
    model: str
    courses: dict[str, Any]


@dataclass(frozen=True)
class Section:
    """A chapter of the page: headline numbers first, then words, pictures and tables.

    Attributes:
        name: short and safe in a file's name and a link.
        title, intro: words.
        headlines: (number, what it says).
        warnings: what the reader must know before believing the numbers.
        terms: (word, meaning).
        race: the picture that comes first.
        more: pictures that are folded away.
    """

    name: str
    title: str
    intro: str = ""
    headlines: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    terms: tuple[tuple[str, str], ...] = ()
    race: Race | None = None
    more: tuple[Figure, ...] = ()

    @property
    def pictures(self) -> tuple[Figure, ...]:
        """All figures, in the order of the page."""
        return (*([] if self.race is None else [self.race.figure]), *self.figures, *self.more)


def slug(text: str) -> str:
    """Return ``text`` as a short name that is safe in a path and in a link.

    >>> slug("../Idx: Fashion MNIST")
    'idx-fashion-mnist'
    """
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:48] or "unnamed"


def cycle_colors(names: Iterable[str], known: dict[str, str] | None = None) -> dict[str, str]:
    """Return a colour for each distinct name, in order of appearance: the known ones keep theirs for themselves.

    "NAME: ..." is drawn in the colour of "NAME" where that is there too: a bound looks like what it bounds.
    """
    distinct = list(dict.fromkeys(names))
    fixed = {name: color for name, color in (known or {}).items() if name in distinct}
    free = [color for color in (*PALETTE, *_MORE_COLORS) if color not in (known or {}).values()]
    colors: dict[str, str] = {}
    for name in distinct:
        owner = name.partition(": ")[0]
        if name in fixed or owner not in distinct or owner == name:
            colors[name] = fixed.get(name) or free[(len(colors) - len(fixed.keys() & colors.keys())) % len(free)]
    return {name: colors.get(name) or colors[name.partition(": ")[0]] for name in distinct}


def shade(color: str, amount: float) -> str:
    """Return ``color`` mixed with white (amount > 0) or black (amount < 0).

    >>> shade("#0072B2", 0.5)
    '#7fb8d8'
    """
    target = 255 if amount > 0 else 0
    parts = [int(color[at : at + 2], 16) for at in (1, 3, 5)]
    return "#" + "".join(f"{int(part + (target - part) * abs(amount)):02x}" for part in parts)
