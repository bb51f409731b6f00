"""Draw coupling.png beside this file: the weights of one transformer block, coloured by the worker that holds them.

    python docs/figures/coupling.py                                                  (in the project's folder)

Nothing is drawn by hand: the block is traced and cut, and every entry takes its colour from the workers' index sets.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray

import isthmus

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))
from examples.networks import gpt  # noqa: E402

WORKERS, CORE, SHOWN = 3, 0.25, 1
COLORS = ["#b9bec6", "#0072B2", "#E69F00", "#009E73"]  # held by all, then one a worker
INK, MUTED = "#3a3f46", "#6b727c"
TENSORS = ("qkv", "out", "up", "down")  # of the first block
GAP = 7  # cells between two tensors


def main() -> None:
    torch.manual_seed(0)
    network, args = gpt(layers=1, width=8, heads=4, context=4, vocabulary=10)
    coupling = isthmus.trace(network, args)
    partition = coupling.partition(WORKERS, seed=4, law="fixed", core=CORE)
    parts = [isthmus.cut(network, coupling, partition, worker) for worker in range(WORKERS)]
    whole = {name: holders(name, tuple(p.shape), parts) for name, p in network.state_dict().items()}
    piece = {name: entries[held(entries.shape, parts[SHOWN], name)] for name, entries in whole.items()}

    figure = Figure(figsize=(12.5, 10.2), dpi=110)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    axes.set_aspect("equal")
    axes.set_xlim(-8, 87)
    axes.set_ylim(77.5, 0)  # downwards, as the rows of a matrix are numbered
    headline = "One transformer block: units that belong together are cut together"
    axes.text(-4, 2.6, headline, fontsize=15, color=INK, weight="bold")
    reading = "Rows are outputs, columns inputs, the strip beside a weight its bias. A quarter of each axis is shared."
    axes.text(-4, 4.8, reading, fontsize=11, color=MUTED)
    places = draw_row(axes, whole, top=12)
    join(axes, places["qkv"], places["out"], "4 heads: rows of q, k and v, columns of out")
    join(axes, places["up"], places["down"], "32 feed-forward units: rows of up, columns of down")
    for number, name in enumerate("qkv"):
        axes.text(-1, 12 + 8 * number + 4, name, ha="right", va="center", fontsize=12, color=INK)
    few, many = (sum(v.size for name, v in tensors.items() if name.startswith("blocks")) for tensors in (piece, whole))
    axes.text(-4, 52.2, f"What worker {SHOWN} trains: the same block, dense and small", fontsize=13, color=INK)
    axes.text(-4, 54.6, f"{few:,} of {many:,} parameters, norms included", fontsize=11, color=MUTED)
    draw_row(axes, piece, top=56.5, across=places)
    labels = ["held by all, and averaged", *(f"worker {worker}" for worker in range(WORKERS))]
    handles = [Patch(color=color, label=label) for color, label in zip(COLORS, labels, strict=True)]
    place = (places["down"][0] - 1, 28)
    where = {"loc": "upper left", "bbox_to_anchor": place, "bbox_transform": axes.transData}
    axes.legend(handles=handles, frameon=False, fontsize=11, labelcolor=INK, **where)
    figure.savefig(HERE / "coupling.png", pil_kwargs={"optimize": True})


def holders(name: str, shape: tuple[int, ...], parts: list[isthmus.Subnetwork]) -> NDArray[np.int64]:
    """Return for every entry of a tensor 1 + the worker that holds it, or 0 where all do."""
    count, last = np.zeros(shape, int), np.zeros(shape, int)
    for worker, part in enumerate(parts):
        mine = held(shape, part, name)
        count[mine] += 1
        last[mine] = worker + 1
    assert set(np.unique(count)) <= {1, WORKERS}, f"{name}: an entry is held by some workers, not by one or all"
    return np.where(count == 1, last, 0)


def held(shape: tuple[int, ...], part: isthmus.Subnetwork, name: str) -> tuple[NDArray[np.int64], ...]:
    """Return the index of what a worker holds of a tensor."""
    return np.ix_(*(range(n) if kept is None else kept for n, kept in zip(shape, part.indices[name], strict=True)))


def draw_row(
    axes: Axes, tensors: dict[str, NDArray[np.int64]], top: float, across: dict[str, tuple[float, float]] | None = None
) -> dict[str, tuple[float, float]]:
    """Draw weights and biases from left to right; return where each weight begins and ends."""
    places, left = {}, 0.0
    for name in TENSORS:
        weight, bias = tensors[f"blocks.0.{name}.weight"], tensors[f"blocks.0.{name}.bias"]
        if across:
            left = across[name][0]
        rows, columns = weight.shape
        draw(axes, weight, left, top)
        draw(axes, bias[:, None], left + columns + 1, top)
        middle = left + (columns + 2) / 2
        label = f"{name}\n{rows} × {columns}"
        axes.text(middle, top + rows + 0.7, label, ha="center", va="top", fontsize=11, color=INK)
        places[name] = (left, left + columns)
        left += columns + 2 + GAP
    return places


def draw(axes: Axes, values: NDArray[np.int64], left: float, top: float) -> None:
    rows, columns = values.shape
    edges = (left + np.arange(columns + 1), top + np.arange(rows + 1))
    axes.pcolormesh(*edges, values, cmap=ListedColormap(COLORS), vmin=-0.5, vmax=3.5, edgecolors="white", linewidth=0.6)
    axes.add_patch(Rectangle((left, top), columns, rows, fill=False, edgecolor=INK, linewidth=0.8))


def join(axes: Axes, start: tuple[float, float], end: tuple[float, float], label: str) -> None:
    """Draw a bracket over two tensors whose units are the same."""
    a, b = (sum(place) / 2 for place in (start, end))
    axes.plot([a, a, b, b], [11.4, 9.6, 9.6, 11.4], color=MUTED, linewidth=1.2)
    axes.text((a + b) / 2, 8.6, label, ha="center", va="bottom", fontsize=11, color=INK)


if __name__ == "__main__":
    main()
