"""Plots as interactive charts: plain data to plotly's figures."""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Sequence

import plotly.graph_objects as go

from isthmus.report.plots import Bars, Panel, Plot, Series, shade

_DASHES = {"line": "solid", "dashed": "dash", "dotted": "dot", "dashdot": "dashdot", "markers": "solid"}
_FONT = {"family": "system-ui, -apple-system, 'Segoe UI', 'Noto Sans', 'DejaVu Sans', sans-serif", "size": 13}
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
    named = [series.name for series in drawn if series.name]
    figure.update_layout(**_layout(named, 330), hovermode="closest")
    places, limits = [x for one in drawn for x in one.x], plot.y_range()
    figure.update_xaxes(**_axis(plot.x_label, plot.x_scale), **_log_ticks(places, plot.x_scale))
    figure.update_yaxes(**_axis(plot.y_label, plot.y_scale), **_log_ticks(limits or (), plot.y_scale))
    if limits is not None:
        figure.update_yaxes(range=[math.log10(limit) for limit in limits])
    return figure


def _line(series: Series, plot: Plot) -> go.Scatter:
    few = len(series.x) <= 30
    mode = "markers" if series.style == "markers" or len(series.x) == 1 else "lines+markers" if few else "lines"
    name = html.escape(series.name or series.group)
    return go.Scatter(
        x=series.x,
        y=series.y,
        mode=mode,
        name=name,
        legendgroup=html.escape(series.group or series.name),
        showlegend=bool(series.name),
        line={"color": series.color, "width": 2, "dash": _DASHES[series.style]},
        marker={"color": series.color, "size": 5 if few and series.style != "markers" else 7},
        customdata=[name] * len(series.x),
        hovertemplate="<b>%{customdata}</b><br>"
        f"{_hover(plot.x_label)}: %{{x:,.5~g}}<br>{_hover(plot.y_label)}: %{{y:,.4~g}}<extra></extra>",
    )


def _band(series: Series) -> go.Scatter:
    red, green, blue = (int(series.color[at : at + 2], 16) for at in (1, 3, 5))
    return go.Scatter(
        x=series.x + series.x[::-1],
        y=series.high + series.low[::-1],
        mode="lines",
        line={"width": 0},
        fill="toself",
        fillcolor=f"rgba({red},{green},{blue},0.22)",
        name=html.escape(series.name),
        legendgroup=html.escape(series.group or series.name),
        showlegend=False,
        hoverinfo="skip",
    )


def _bars(bars: Bars) -> go.Figure:
    figure = go.Figure()
    labels = ["<br>".join(html.escape(line) for line in textwrap.wrap(label, 22)) or "–" for label in bars.labels]
    for at, (name, values, texts) in enumerate(bars.groups):
        colors = [shade(color, 0.55 * at / max(1, len(bars.groups) - 1)) for color in bars.colors]
        figure.add_trace(
            go.Bar(
                y=list(range(len(labels))),
                x=values,
                orientation="h",
                name=html.escape(name),
                marker={"color": colors},
                text=[html.escape(text) for text in texts],
                textposition="outside",
                cliponaxis=False,
                customdata=labels,
                hovertemplate=f"<b>%{{customdata}}</b><br>{_hover(name)}: %{{text}}<extra></extra>",
            )
        )
    several = [name for name, _, _ in bars.groups] if len(bars.groups) > 1 else []
    figure.update_layout(**_layout(several, 110 + (22 * len(bars.groups) + 18) * len(labels)), bargap=0.3)
    figure.update_layout(showlegend=bool(several))
    largest = max((value for _, values, _ in bars.groups for value in values if value is not None), default=1.0)
    figure.update_xaxes(**_axis(bars.value_label, "linear"), range=[0, 1.3 * largest or 1], nticks=6)
    figure.update_yaxes(tickvals=list(range(len(labels))), ticktext=labels, autorange="reversed", automargin=True)
    return figure


def _layout(legend: Sequence[str], height: int) -> dict[str, object]:
    rows = math.ceil(sum(1 + len(name) // _LEGEND_COLUMN for name in legend) / 2)
    return {
        "template": "none",
        "font": _FONT,
        "height": height + 24 * rows,
        "margin": {"l": 62, "r": 14, "t": 12, "b": 52 + 24 * rows},
        "legend": {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom", "x": 0, "font": {"size": 12}},
        "hoverlabel": {"align": "left", "namelength": -1},
        "showlegend": True,
        "dragmode": "zoom",
    }


def _axis(label: str, scale: str) -> dict[str, object]:
    return {
        "title": {"text": html.escape(label), "standoff": 8},
        "type": scale,
        "gridcolor": _GRID,
        "linecolor": _AXIS,
        "zeroline": False,
        "automargin": True,
        "exponentformat": "power" if scale == "log" else "SI",
    }


def _log_ticks(values: Sequence[float], scale: str) -> dict[str, object]:
    """Whole powers of ten where a logarithmic axis spans two or more of them (its default crowds them with 2 and 5)."""
    positive = [value for value in values if value > 0 and scale == "log"]
    decades = math.log10(max(positive)) - math.log10(min(positive)) if positive else 0.0
    return {"dtick": max(1, math.ceil(decades / 7))} if decades >= 2 else {}


def _hover(label: str) -> str:
    """A label inside a hover template, where "%{" would start a variable."""
    return html.escape(label).replace("{", "&#123;").replace("}", "&#125;")
