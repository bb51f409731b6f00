"""Runs of kind "figure": panels straight from rows."""

from __future__ import annotations

from typing import Any

from isthmus.records import Run
from isthmus.report.plots import (
    SCALES,
    STYLES,
    Bars,
    Figure,
    Panel,
    Plot,
    Section,
    Series,
    curve,
    cycle_colors,
    number,
    slug,
)
from isthmus.report.strategies import COLORS
from isthmus.report.wording import plain


def figure_section(run: Run) -> Section:
    """Return a section with the one figure that the run describes."""
    name = plain(run.config.get("figure", run.path.name))
    title = plain(run.config.get("title", name))
    described = run.config.get("panels")
    panels = [panel for panel in described if isinstance(panel, dict)] if isinstance(described, list) else []
    colors = cycle_colors((plain(row.get("series")) for row in run.rows), COLORS)
    drawn = tuple(_panel(panel, run, colors) for panel in panels)
    figure = Figure(slug(name), title, plain(run.config.get("caption", "")), drawn)
    warnings = () if run.rows else ("This run has no rows: it ended before it computed anything.",)
    return Section(slug(f"figure {name}"), title, warnings=warnings, figures=(figure,) if drawn and run.rows else ())


def _panel(panel: dict[str, Any], run: Run, colors: dict[str, str]) -> Panel:
    rows = [row for row in run.rows if row.get("panel") == panel.get("name")]
    names = list(dict.fromkeys(plain(row.get("series")) for row in rows))
    title, x_label, y_label = (plain(panel.get(key, "")) for key in ("title", "x_label", "y_label"))
    if rows and all(isinstance(row.get("x"), str) for row in rows):
        return _bars(title, y_label, rows, names, colors)
    x_scale, y_scale = (
        scale if (scale := panel.get(key)) in SCALES else "linear" for key in ("x_scale", "y_scale")
    )  # fmt: skip
    series = tuple(_series(name, [row for row in rows if plain(row.get("series")) == name], colors) for name in names)
    return Plot(title, x_label, y_label, series, x_scale, y_scale, _floor(series))


def _floor(series: tuple[Series, ...]) -> float:
    """16 digits below the smallest curve's largest value: what lies lower is rounding noise."""
    return 1e-16 * min((peak for one in series if (peak := max(one.y, default=0.0)) > 0), default=0.0)


def _series(name: str, rows: list[dict[str, Any]], colors: dict[str, str]) -> Series:
    style = next((row["style"] for row in rows if row.get("style") in STYLES), "line")
    x, y, low, high = ([row.get(key) for row in rows] for key in ("x", "y", "low", "high"))
    banded = any(number(value) is not None for value in low + high)
    return curve(name, x, y, (low, high) if banded else None, color=colors[name], style=style)


def _bars(title: str, y_label: str, rows: list[dict[str, Any]], names: list[str], colors: dict[str, str]) -> Bars:
    labels = tuple(dict.fromkeys(row["x"] for row in rows))
    values = {(row["x"], plain(row.get("series"))): number(row.get("y")) for row in rows}
    groups = tuple(
        (
            name,
            tuple(values.get((label, name)) for label in labels),
            tuple("" if values.get((label, name)) is None else plain(values[label, name]) for label in labels),
        )
        for name in names
    )
    shown = tuple(COLORS.get(label, colors[names[0]]) for label in labels)
    return Bars(title, y_label, labels, shown, groups)
