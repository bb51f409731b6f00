"""Figures as PNG files: plain data to matplotlib, one file a figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from isthmus.report.plots import Bars, Figure, Panel, Plot, shade
from isthmus.report.wording import MISSING, label_lines, prefix_for

_DASHES = {"line": "-", "dashed": "--", "dotted": ":", "dashdot": "-.", "markers": "none"}
_DPI = 110
_INK = "#3a3f46"


def draw_figure(figure: Figure, path: Path) -> None:
    """Draw one figure's panels side by side into one PNG file."""
    columns = len(figure.panels) if len(figure.panels) <= 3 else 2
    rows = math.ceil(len(figure.panels) / columns)
    canvas = Canvas(figsize=(5.2 * columns, _height(figure.panels) * rows + 0.4), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(canvas)
    canvas.suptitle(_text(figure.title), fontsize=13, color=_INK)
    grid = canvas.subplots(rows, columns, squeeze=False).ravel().tolist()
    for axes, panel in zip(grid, figure.panels, strict=False):
        _frame(axes, panel)
        _bars(axes, panel) if isinstance(panel, Bars) else _plot(axes, panel)
    for axes in grid[len(figure.panels) :]:
        axes.set_axis_off()
    _legend(canvas, grid[: len(figure.panels)])
    canvas.savefig(path, format="png", pil_kwargs={"optimize": True})


def _height(panels: Sequence[Panel]) -> float:
    rows = [len(panel.labels) * len(panel.groups) * 0.26 + 1.4 for panel in panels if isinstance(panel, Bars)]
    return max([3.6, *rows])


def _frame(axes: Axes, panel: Panel) -> None:
    axes.set_title(_text(panel.title), fontsize=11, color=_INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e6e8eb", linewidth=0.8, axis="x" if isinstance(panel, Bars) else "both")
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9, colors=_INK)


def _plot(axes: Axes, plot: Plot) -> None:
    axes.set_xlabel(_text(plot.x_label))
    axes.set_ylabel(_text(plot.y_label))
    axes.set_xscale(plot.x_scale)
    axes.set_yscale(plot.y_scale)
    for series in plot.drawn():
        marker = "o" if series.style == "markers" or len(series.x) == 1 else ""
        if series.low:
            axes.fill_between(series.x, series.low, series.high, color=series.color, alpha=0.22, linewidth=0)
        axes.plot(
            series.x,
            series.y,
            color=series.color,
            linestyle=_DASHES[series.style],
            marker=marker,
            markersize=4,
            linewidth=1.7,
            label=_text(series.name) if series.name else "_",
        )
    limits = plot.y_range()
    if limits is not None:
        axes.set_ylim(*limits)
    for axis, scale in ((axes.xaxis, plot.x_scale), (axes.yaxis, plot.y_scale)):
        _ticks(axis, scale)
    if not plot.drawn():
        axes.text(0.5, 0.5, "nothing to show", transform=axes.transAxes, ha="center", color=_INK)


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


def _bars(axes: Axes, bars: Bars) -> None:
    thickness = 0.8 / len(bars.groups)
    for at, (name, values, texts) in enumerate(bars.groups):
        places = [row - 0.4 + thickness * (at + 0.5) for row in range(len(bars.labels))]
        colors = [shade(color, 0.55 * at / max(1, len(bars.groups) - 1)) for color in bars.colors]
        drawn = axes.barh(places, [value or 0.0 for value in values], thickness * 0.92, color=colors)
        drawn.set_label(_text(name) if len(bars.groups) > 1 else "_")
        axes.bar_label(drawn, [_text(text or MISSING) for text in texts], padding=3, fontsize=8, color=_INK)
    axes.set_yticks(range(len(bars.labels)), ["\n".join(map(_text, label_lines(label))) for label in bars.labels])
    axes.invert_yaxis()
    axes.set_xlabel(_text(bars.value_label))
    axes.margins(x=0.2)


def _legend(canvas: Canvas, grid: Sequence[Axes]) -> None:
    """One legend below all panels where one of them shows all that the others show, otherwise one in each."""
    entries = [axes.get_legend_handles_labels() for axes in grid]
    handles, labels = max(entries, key=lambda entry: len(entry[1]))
    if all(set(others) <= set(labels) for _, others in entries):
        if labels:
            widest = 0.5 + 0.085 * max(map(len, labels))  # inches: the line and its words
            columns = min(3, len(labels), max(1, int(canvas.get_figwidth() / widest)))
            canvas.set_figheight(canvas.get_figheight() + 0.2 * math.ceil(len(labels) / columns))
            canvas.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=9, frameon=False)
        return
    for axes, (handles, labels) in zip(grid, entries, strict=True):
        if labels:
            axes.legend(handles, labels, fontsize=8, frameon=False)


def _text(text: str) -> str:
    """Text as it stands: a dollar sign would start a formula, and a leading underscore hides a legend's entry."""
    return ("\u200b" + text if text.startswith("_") else text).replace("$", r"\$")
