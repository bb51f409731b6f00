"""Figures as files: plain data to matplotlib, one file a figure; PNG for the screen, PDF and SVG for a paper."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from PIL import Image

from isthmus.report.plots import POINTS, Bars, Figure, Marks, Panel, Plot, shade
from isthmus.report.wording import MISSING, label_lines, prefix_for

_SYMBOLS = {"cross": "x", "up": "^", "down": "v", "square": "s", "diamond": "D"}
_DASHES = {"line": "-", "dashed": "--", "dotted": ":", "dashdot": "-."}
_COLORS = 128
_POINTS = {"squares": {"marker": "s", "fillstyle": "none"}, "crosses": {"marker": "x"}}


@dataclass(frozen=True)
class Look:
    """Sizes in inches and points.

    Attributes:
        widths: of the whole figure with one, two, three panels beside one another.
        height: of a row of panels.
        heading, label, small: type of titles, of axes, of ticks and legends; ``heading`` is of the whole figure.
        line: width of a curve; marks and bars go with it.
        ink: of text.
        heads: whether the whole figure has its title over it; in a paper that is the caption's.
        settings: of matplotlib.
        file: what the file itself is given.
    """

    widths: tuple[float, float, float]
    height: float
    heading: float
    title: float
    label: float
    small: float
    line: float
    ink: str
    heads: bool
    settings: Mapping[str, Any]
    file: Mapping[str, Any] = field(default_factory=dict)


_FILE = {"dpi": 110, "pil_kwargs": {"optimize": True}}
_SCREEN = Look((5.2, 10.4, 15.6), 3.6, 13.0, 11.0, 10.0, 9.0, 1.7, "#3a3f46", True, {}, _FILE)
# The width of a column and of a page of two columns; letters stay letters, which a reader can search and an editor
# change; and no date, so that the same run gives the same file.
_TEXT = {
    "font.family": ["STIXGeneral", "serif"],
    "font.serif": ["Times New Roman", "Times", "Nimbus Roman", "Liberation Serif", "DejaVu Serif", "serif"],
    "mathtext.fontset": "stix",
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "isthmus",
    "legend.columnspacing": 3.0,  # room for the wider letters of a viewer that lacks the font
    "axes.linewidth": 0.5,
    "xtick.major.width": 0.5,
    "ytick.major.width": 0.5,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
}
_SIZES = ((3.25, 6.75, 6.75), 2.0, 9.0, 8.0, 8.0, 7.0, 1.0, "#000000", False, _TEXT)
LOOKS: dict[str, Look] = {
    "png": _SCREEN,
    "pdf": Look(*_SIZES, {"metadata": {"CreationDate": None}}),
    "svg": Look(*_SIZES, {"metadata": {"Date": None}}),
}


def draw_figure(figure: Figure, path: Path) -> None:
    """Draw one figure's panels side by side into one file, in the look of the format that its name ends with."""
    path.write_bytes(drawn(figure, path.suffix.removeprefix(".")))


def drawn(figure: Figure, kind: str) -> bytes:
    """Return the same as the bytes of a file of the format ``kind``."""
    file = BytesIO()
    look = LOOKS[kind]
    columns = len(figure.panels) if len(figure.panels) <= 3 else 2
    rows = math.ceil(len(figure.panels) / columns)
    settings: Any = {"font.size": look.label, **look.settings}
    with matplotlib.rc_context(settings):
        size = (look.widths[columns - 1], _height(figure.panels, look) * rows + 0.4 * look.heads)
        canvas = Canvas(figsize=size, layout="constrained")
        if look.heads:
            canvas.suptitle(_text(figure.title), fontsize=look.heading, color=look.ink)
        grid = canvas.subplots(rows, columns, squeeze=False).ravel().tolist()
        for axes, panel in zip(grid, figure.panels, strict=False):
            _frame(axes, panel, look)
            _bars(axes, panel, look) if isinstance(panel, Bars) else _plot(axes, panel, look)
        for axes in grid[len(figure.panels) :]:
            axes.set_axis_off()
        _legend(canvas, grid[: len(figure.panels)], look)
        canvas.savefig(file, format=kind, **look.file)
    return file.getvalue()


def still(figure: Figure) -> bytes:
    """Return the figure as a PNG of few colours, a third as large."""
    file = BytesIO()
    Image.open(BytesIO(drawn(figure, "png"))).convert("RGB").quantize(_COLORS).save(file, "png", optimize=True)
    return file.getvalue()


def _height(panels: Sequence[Panel], look: Look) -> float:
    scale = look.height / _SCREEN.height
    rows = [(len(panel.labels) * len(panel.groups) * 0.26 + 1.4) * scale for panel in panels if isinstance(panel, Bars)]
    return max([look.height, *rows])


def _frame(axes: Axes, panel: Panel, look: Look) -> None:
    axes.set_title(_text(panel.title), fontsize=look.title, color=look.ink)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e6e8eb", linewidth=0.47 * look.line, axis="x" if isinstance(panel, Bars) else "both")
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=look.small, colors=look.ink)


def _plot(axes: Axes, plot: Plot, look: Look) -> None:
    axes.set_xlabel(_text(plot.x_label))
    axes.set_ylabel(_text(plot.y_label))
    axes.set_xscale(plot.x_scale)
    axes.set_yscale(plot.y_scale)
    for series in plot.drawn():
        points = series.style in POINTS or len(series.x) == 1
        marker: dict[str, Any] = _POINTS.get(series.style, {"marker": "o"}) if points else {}
        if series.low:
            axes.fill_between(series.x, series.low, series.high, color=series.color, alpha=0.22, linewidth=0)
        axes.plot(
            series.x,
            series.y,
            color=series.color,
            linestyle=_DASHES.get(series.style, "none"),
            markersize=2.35 * look.line,
            linewidth=look.line,
            label=_text(series.name) if series.name else "_",
            **marker,
        )
    limits = plot.y_range()
    if limits is not None:
        axes.set_ylim(*limits)
    for marks in plot.marked() if plot.drawn() else ():
        _marks(axes, marks, look)
    for axis, scale in ((axes.xaxis, plot.x_scale), (axes.yaxis, plot.y_scale)):
        _ticks(axis, scale)
    if not plot.drawn():
        axes.text(0.5, 0.5, "nothing to show", transform=axes.transAxes, ha="center", color=look.ink)


def _marks(axes: Axes, marks: Marks, look: Look) -> None:
    """Thin lines from bottom to top, under the curves, with a symbol near their heads."""
    axes.plot(
        [x for at in marks.x for x in (at, at, at, math.nan)],
        [0.0, 0.97, 1.0, math.nan] * len(marks.x),
        transform=axes.get_xaxis_transform(),
        color=marks.color,
        alpha=0.75,
        linewidth=0.5 * look.line,
        marker=_SYMBOLS[marks.symbol],
        markersize=2.7 * look.line,
        markevery=slice(1, None, 4),
        zorder=1.5,
        label=_text(marks.name),
    )


def _ticks(axis: Axis, scale: str) -> None:
    """Numbers in full where they are neither very small nor very large; matplotlib's powers of ten elsewhere."""
    low, high = sorted(axis.get_view_interval())
    if scale == "log" and (low < 1e-4 or high > 1e13):
        return
    if scale == "log":
        axis.set_major_locator(LogLocator(subs=(1.0,) if high > 1e3 * low else (1.0, 2.0, 5.0)))
        axis.set_minor_formatter(NullFormatter())
    if scale == "log" or max(abs(low), abs(high)) >= 1e4:
        axis.set_major_formatter(FuncFormatter(_tick))


def _tick(value: float, _: int | None) -> str:
    """
    >>> _tick(0.2, None), _tick(2e6, None)
    ('0.2', '2M')
    """
    size, letter = prefix_for(value) if abs(value) >= 1e4 else (1.0, "")
    return f"{value / size:g}{letter}"


def _bars(axes: Axes, bars: Bars, look: Look) -> None:
    thickness = 0.8 / len(bars.groups)
    for at, (name, values, texts) in enumerate(bars.groups):
        places = [row - 0.4 + thickness * (at + 0.5) for row in range(len(bars.labels))]
        colors = [shade(color, 0.55 * at / max(1, len(bars.groups) - 1)) for color in bars.colors]
        drawn = axes.barh(places, [value or 0.0 for value in values], thickness * 0.92, color=colors)
        drawn.set_label(_text(name) if len(bars.groups) > 1 else "_")
        said = [_text(text or MISSING) for text in texts]
        axes.bar_label(drawn, said, padding=3, fontsize=look.small - 1, color=look.ink)
    axes.set_yticks(range(len(bars.labels)), ["\n".join(map(_text, label_lines(label))) for label in bars.labels])
    axes.invert_yaxis()
    axes.set_xlabel(_text(bars.value_label))
    axes.margins(x=0.2)


def _legend(canvas: Canvas, grid: Sequence[Axes], look: Look) -> None:
    """One legend below all panels where one of them shows all that the others show, otherwise one in each."""
    entries = [axes.get_legend_handles_labels() for axes in grid]
    handles, labels = max(entries, key=lambda entry: len(entry[1]))
    if all(set(others) <= set(labels) for _, others in entries):
        if labels:
            widest = (0.5 + 0.085 * max(map(len, labels))) * look.small / 9  # inches: the line and its words
            columns = min(3, len(labels), max(1, int(canvas.get_figwidth() / widest)))
            canvas.set_figheight(canvas.get_figheight() + 0.2 * look.small / 9 * math.ceil(len(labels) / columns))
            small: Any = {"fontsize": look.small, "frameon": False}
            canvas.legend(handles, labels, loc="outside lower center", ncols=columns, **small)
        return
    for axes, (handles, labels) in zip(grid, entries, strict=True):
        if labels:
            axes.legend(handles, labels, fontsize=look.small - 1, frameon=False)


def _text(text: str) -> str:
    """Text as it stands: a dollar sign would start a formula, and a leading underscore hides a legend's entry."""
    return ("\u200b" + text if text.startswith("_") else text).replace("$", r"\$")
