"""A comparison as the rows of a figure: convergence, what the target costs, and the memory it takes."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from isthmus.lab.compare.settings import Comparison

_AXES = {
    "rounds": "rounds",
    "bits": "bits up and down per worker",
    "bits_total": "bits up and down, all workers",
    "up": "bits up per worker",
    "down": "bits down per worker",
    "up_total": "bits up, all workers",
    "down_total": "bits down, all workers",
    "work": "floating-point operations per worker",
    "gradients": "gradients per worker",
}


def figure_config(settings: Comparison, over: str | None = None) -> dict[str, Any]:
    """Return the config of a run of kind "figure": its panels, and the settings it was made with."""
    convergence = _panel("convergence", "relative gap", _AXES[settings.x_axis], "(f - f*)/(f(x0) - f*)")
    cost = _panel("cost", f"to reach {settings.target:g}", _AXES["bits"], "numbers held by a worker")
    panels = [{**convergence, "y_scale": "log"}, {**cost, "x_scale": "log"}]
    if over is not None:
        panels = [{**_panel("sweep", f"bits to reach {settings.target:g}", over, _AXES["bits"]), "y_scale": "log"}]
    return {
        **asdict(settings),
        "figure": "compare" if over is None else f"compare-{over}",
        "title": "Compressed gradients, compressed models, anchored IST",
        "caption": "Means over seeds with 95 % bands; dashed what theory says. A method missing from the second panel "
        "does not reach the target.",
        "panels": panels,
    }


def figure_rows(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of the panels "convergence" and "cost"."""
    rows: list[dict[str, Any]] = []
    for one in results:
        curve = one["curve"]
        for x, y, low, high in zip(curve["x"], curve["y"], curve["low"], curve["high"], strict=True):
            rows.append(_row("convergence", one["title"], x, y, "line", low=low, high=high))
        for bound in one["bounds"]:
            series = f"{one['title']}: {'exact' if bound['kind'] == 'tight' else 'bound'}"
            rows += [_row("convergence", series, x, y, "dashed") for x, y in zip(bound["x"], bound["y"], strict=True)]
        if one["bits"] is not None:
            rows.append(_row("cost", one["title"], one["bits"], one["memory"], "markers"))
    return rows


def sweep_rows(results: list[dict[str, Any]], values: list[float]) -> list[dict[str, Any]]:
    """Return the rows of the panel "sweep": bits to the target, one point a value; none where it was not reached."""
    return [
        _row("sweep", one["title"], value, one["bits"], "line")
        for one, value in zip(results, values, strict=True)
        if one["bits"] is not None
    ]


def _panel(name: str, title: str, x: str, y: str) -> dict[str, Any]:
    return {"name": name, "title": title, "x_label": x, "y_label": y, "x_scale": "linear", "y_scale": "linear"}


def _row(panel: str, series: str, x: float, y: float, style: str, **band: float) -> dict[str, Any]:
    return {"panel": panel, "series": series, "x": x, "y": y, "style": style, **band}
