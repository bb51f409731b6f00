"""A picture as plain data: panels, and rows of points."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from isthmus.lab.arrays import Array
from isthmus.lab.simulate import Simulation

_NORMAL_95 = 1.96


@dataclass(frozen=True)
class Panel:
    """One set of axes."""

    name: str
    title: str
    x_label: str
    y_label: str
    x_scale: str = "linear"
    y_scale: str = "log"


@dataclass(frozen=True)
class Figure:
    """A picture: what it shows, its axes and its points.

    Attributes:
        name: for files.
        title: one line.
        caption: what to see in it.
        panels: axes.
        rows: one dict a point: panel, series, x, y, and low, high, style.
    """

    name: str
    title: str
    caption: str
    panels: tuple[Panel, ...]
    rows: list[dict[str, Any]] = field(default_factory=list, repr=False)

    @property
    def config(self) -> dict[str, Any]:
        """Configuration of the figure's run."""
        panels = [vars(panel) for panel in self.panels]
        return {"figure": self.name, "title": self.title, "caption": self.caption, "panels": panels}

    def add(
        self,
        panel: str,
        series: str,
        x: ArrayLike,
        y: ArrayLike,
        style: str = "line",
        band: tuple[Array, Array] | None = None,
    ) -> None:
        """Add one curve (``style`` line, dashed or markers); points that are not finite are left out."""
        xs, ys = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
        for place in np.flatnonzero(np.isfinite(ys)):
            row = {"panel": panel, "series": series, "x": float(xs[place]), "y": float(ys[place]), "style": style}
            if band is not None and np.isfinite([band[0][place], band[1][place]]).all():
                row |= {"low": float(band[0][place]), "high": float(band[1][place])}
            self.rows.append(row)

    def add_simulation(self, panel: str, series: str, run: Simulation, scale: float = 1.0) -> None:
        """Add a simulated mean gap with its 95 % band, multiplied by ``scale``."""
        half = _NORMAL_95 * run.standard_error
        low, high = np.maximum(run.mean_gap - half, 0.0), run.mean_gap + half
        shown = np.unique(np.linspace(0, run.gap.shape[1] - 1, 31).round().astype(int))
        band = (scale * low[shown], scale * high[shown])
        self.add(panel, series, shown, scale * run.mean_gap[shown], "markers", band)
