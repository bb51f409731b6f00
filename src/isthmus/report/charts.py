"""Plots as interactive charts: plain data to plotly's figures."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from isthmus.report.plots import POINTS, Bars, Marks, Panel, Plot, Series, shade
from isthmus.report.wording import MISSING, label_lines

_DASHES = {"line": "solid", "dashed": "dash", "dotted": "dot", "dashdot": "dashdot"}
_POINTS: dict[str, dict[str, Any]] = {
    "squares": {"symbol": "square-open"},
    "crosses": {"symbol": "x-thin-open", "line": {"width": 2}},
}
_SYMBOLS = {"cross": "x-thin-open", "up": "triangle-up", "down": "triangle-down"}  # the others have their own names
_FONT = {"family": "system-ui, -apple-system, 'Segoe UI', 'Noto Sans', 'DejaVu Sans', sans-serif", "size": 13}
_WHOLE = {"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True}
_HEAD = 0.97  # of the height
_GRID, _AXIS = "#e6e8eb", "#8a9099"
_LEGEND_COLUMN = 26  # letters of a legend entry; about two entries fit beside one another


def chart(panel: Panel) -> go.Figure:
    """Return the panel as a plotly figure; every text in it is escaped, since plotly reads text as a kind of HTML."""
    return _bars(panel) if isinstance(panel, Bars) else _plot(panel)


def _plot(plot: Plot) -> go.Figure:
    figure = go.Figure()
    drawn = plot.drawn()
    for series in drawn:
        if series.low:
            figure.add_trace(_band(series))
    for series in drawn:
        figure.add_trace(_line(series, plot))
    marked = plot.marked() if drawn else ()
    for marks in marked:
        figure.add_traces([_stems(marks), _heads(marks)])
    named = [name for name in (*(series.name for series in drawn), *(marks.name for marks in marked)) if name]
    figure.update_layout(**_layout(named, 330), hovermode="closest")
    places, limits = [x for one in drawn for x in one.x], plot.y_range()
    figure.update_xaxes(_axis(plot.x_label, plot.x_scale) | _log_ticks(places, plot.x_scale, 1.7))
    figure.update_yaxes(_axis(plot.y_label, plot.y_scale) | _log_ticks(limits or (), plot.y_scale, 3.0))
    if limits is not None:
        logarithmic = plot.y_scale == "log"
        figure.update_yaxes(range=[math.log10(limit) if logarithmic else limit for limit in limits])
    if marked:  # an axis of their own, from the bottom to the top of whatever is shown
        figure.update_layout(yaxis2=_WHOLE)
    return figure


def _line(series: Series, plot: Plot) -> go.Scatter:
    few = 2 < len(series.x) <= 30
    points = series.style in POINTS
    mode = "markers" if points or len(series.x) == 1 else "lines+markers" if few else "lines"
    name, said = _text(series.name or series.group), _text(series.said or series.name or series.group)
    return go.Scatter(
        x=_short(series.x),
        y=_short(series.y),
        mode=mode,
        name=name,
        legendgroup=_text(series.group or series.name),
        showlegend=bool(series.name),
        line={"color": series.color, "width": 2, "dash": _DASHES.get(series.style, "solid")},
        marker={**_POINTS.get(series.style, {}), "color": series.color, "size": 5 if few and not points else 7},
        meta=series.key or None,
        customdata=[said] * len(series.x),
        hovertemplate="<b>%{customdata}</b><br>"
        f"{_hover(plot.x_label)}: %{{x:,.5~g}}<br>{_hover(plot.y_label)}: %{{y:,.4~g}}<extra></extra>",
    )


def _short(values: Sequence[float]) -> list[float]:
    """Numbers to seven digits, which is more than a screen can show: the page is a third shorter for it."""
    return [float(f"{value:.7g}") for value in values]


def _stems(marks: Marks) -> go.Scatter:
    """A thin line from bottom to top a mark."""
    return go.Scatter(
        x=[x for at in marks.x for x in (at, at, None)],
        y=[0, 1, None] * len(marks.x),
        yaxis="y2",
        mode="lines",
        name=_text(marks.name),
        legendgroup=_text(marks.name),
        showlegend=False,
        line={"color": marks.color, "width": 1},
        opacity=0.75,
        hoverinfo="skip",
    )


def _heads(marks: Marks) -> go.Scatter:
    """The symbols just under the top, which stand in the legend and answer the pointer."""
    return go.Scatter(
        x=marks.x,
        y=[_HEAD] * len(marks.x),
        yaxis="y2",
        mode="markers",
        name=_text(marks.name),
        legendgroup=_text(marks.name),
        showlegend=True,
        marker={"color": marks.color, "symbol": _SYMBOLS.get(marks.symbol, marks.symbol), "size": 8,
                "line": {"color": marks.color, "width": 1.5 * (marks.symbol == "cross")}},
        text=[_text(said) for said in marks.texts],
        hovertemplate=f"<b>{_hover(marks.name)}</b><br>%{{text}}<extra></extra>",
    )  # fmt: skip


def _band(series: Series) -> go.Scatter:
    red, green, blue = (int(series.color[at : at + 2], 16) for at in (1, 3, 5))
    return go.Scatter(
        x=_short(series.x + series.x[::-1]),
        y=_short(series.high + series.low[::-1]),
        mode="lines",
        line={"width": 0},
        fill="toself",
        fillcolor=f"rgba({red},{green},{blue},0.22)",
        name=_text(series.name),
        legendgroup=_text(series.group or series.name),
        showlegend=False,
        hoverinfo="skip",
        meta=series.key or None,
    )


def _bars(bars: Bars) -> go.Figure:
    figure = go.Figure()
    labels = ["<br>".join(map(_text, label_lines(label))) for label in bars.labels]
    for at, (name, values, texts) in enumerate(bars.groups):
        colors = [shade(color, 0.55 * at / max(1, len(bars.groups) - 1)) for color in bars.colors]
        figure.add_trace(
            go.Bar(
                y=list(range(len(labels))),
                x=[value or 0.0 for value in values],
                orientation="h",
                name=_text(name),
                marker={"color": colors},
                text=[_text(text or MISSING) for text in texts],
                textposition="outside",
                textfont={"size": 11},
                cliponaxis=False,
                customdata=labels,
                hovertemplate=f"<b>%{{customdata}}</b><br>{_hover(name)}: %{{text}}<extra></extra>",
            )
        )
    height = 110 + (22 * len(bars.groups) + 18) * len(labels)
    figure.update_layout(**_layout([name for name, _, _ in bars.groups], height), bargap=0.3)
    largest = max((value for _, values, _ in bars.groups for value in values if value is not None), default=1.0)
    figure.update_xaxes(**_axis(bars.value_label, "linear"), range=[0, 1.65 * largest or 1], nticks=5)
    ticks = {"tickvals": list(range(len(labels))), "ticktext": labels, "ticklabelstandoff": 6}
    figure.update_yaxes(**ticks, autorange="reversed", automargin=True)
    return figure


def _layout(legend: Sequence[str], height: int) -> dict[str, object]:
    rows = math.ceil(sum(1 + len(name) // _LEGEND_COLUMN for name in legend) / 2) if len(legend) > 1 else 0
    return {
        "template": "none",
        "font": _FONT,
        "height": height + 24 * rows,
        "margin": {"l": 62, "r": 14, "t": 26, "b": 52},
        "legend": {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom", "x": 0, "font": {"size": 12}},
        "hoverlabel": {"align": "left", "namelength": -1},
        "showlegend": len(legend) > 1,
        "dragmode": "zoom",
    }


def _axis(label: str, scale: str) -> dict[str, object]:
    return {
        "title": {"text": _text(label), "standoff": 8},
        "type": scale,
        "gridcolor": _GRID,
        "linecolor": _AXIS,
        "zeroline": False,
        "title_font_size": 13,
        "tickfont_size": 12,
        "automargin": True,
        "exponentformat": "SI",
        "minexponent": 3,
    }


def _log_ticks(values: Sequence[float], scale: str, most: float) -> dict[str, object]:
    """Powers of ten where numbers are very small or large, else numbers in full (0.2, where plotly writes a bare 2).

    ``most``: over how many powers of ten there is room for three labels in each.
    """
    positive = [value for value in values if value > 0 and scale == "log"]
    if not positive:
        return {}
    low, high = min(positive), max(positive)
    if low < 1e-4 or high > 1e13:
        return {"nticks": 8, "exponentformat": "power"}
    few = high > 10**most * low
    return {
        "dtick": 1 if few else "D2" if high > 10 * low else "D1",
        "tickformat": "~s" if low >= 1 else "~g",
        "minor": {"dtick": "D1" if few else 1, "ticks": "outside" if few else ""},
    }


def _text(text: str) -> str:
    """Escaped for plotly, which knows the entities of "<", ">" and "&" but shows that of a quotation mark as it is."""
    return html.escape(text, quote=False)


def _hover(label: str) -> str:
    """A label inside a hover template, where "%{" would start a variable."""
    return _text(label).replace("{", "&#123;").replace("}", "&#125;")
