"""How far each way of training goes, by plan: with the number of workers, with the width, over a fast and a slow line.

    python -m benchmarks.growth            tables as Markdown, and docs/images/growth.png
    python -m benchmarks.growth --few      a corner of it, in a few seconds
    python -m benchmarks.growth --measure  as root, alone on the machine: as far as one machine goes, measured

But for the last, nothing is run: bytes, memory and seconds are those of `isthmus.plan` for a perceptron 784-W-W-10 at a
given rate of computing. A way is worth it where a worker's memory suffices and all workers together see more samples in
a second than one would that trains the whole network alone. How much a sample is worth is another question, which only
runs answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import tyro
from benchmarks.plan_errors import round_seconds, trained

import isthmus
from isthmus.line import Line, parse_size
from isthmus.progress import progress
from isthmus.strategies import STRATEGIES
from isthmus.trainer.plan.forecast import Forecast

DATA = "idx:/usr/share/datasets/fashion-mnist"
WAYS = ("data-parallel", "fsdp", "local-sgd", "narrow", "ist")  # from the most to the least traffic, but for fsdp
_STEPS = 4  # where rounds are measured: gradients that travel in every step take minutes
LINES = {"1 Gbit/s, 1 ms": Line.of("1gbit", "1ms"), "20 Mbit/s, 20 ms": Line.of("20mbit", "20ms")}


@dataclass(frozen=True)
class Options:
    """What to plan.

    Attributes:
        few: only a corner of the grid.
        measure: train over a slow line instead, for a few rounds, and hold what that took against the plan before it.
        most: workers where it is measured, on the cores of this machine.
        strategies: only those whose name contains this, where it is measured.
        folder: where the runs are; those that are there are not made again.
        local_steps, batch_size: of every worker.
        flops: operations a second of a worker.
        memory: of a worker.
        figure: where the map goes.
    """

    few: bool = False
    measure: bool = False
    most: int = 16
    strategies: str = ""
    folder: Path = Path("runs/growth")
    local_steps: int = 100
    batch_size: int = 32
    flops: float = 5e10
    memory: str = "2GB"
    figure: Path = Path("docs/images/growth.png")

    @property
    def workers(self) -> Sequence[int]:
        """Numbers of workers."""
        return (2, 4) if self.few else (2, 4, 8, 16, 64, 250, 1000)

    @property
    def widths(self) -> Sequence[int]:
        """Units of both hidden layers."""
        return (512,) if self.few else (512, 2048, 8192)


def planned(options: Options, workers: int, width: int) -> dict[str, Forecast | None]:
    """Return what is planned of every way; None where it is impossible."""
    outlook = isthmus.plan(
        WAYS, data=DATA, widths=(width, width), workers=workers, local_steps=options.local_steps,
        batch_size=options.batch_size, flops=options.flops, features="standardized",
    )  # fmt: skip
    return {each.strategy.name: each.forecast for each in outlook.prospects}


def gain(ways: dict[str, Forecast | None], way: str, line: Line, memory: int) -> float:
    """Return samples a second of all workers, against those of one that trains the whole network alone; 0 where a way
    is impossible or does not fit."""
    found, dense = ways[way], ways["local-sgd"]
    if found is None or dense is None or found.needed_bytes > memory:
        return 0.0
    alone = dense.local_steps * dense.batch_size / dense.compute_seconds
    return found.over(line).samples_per_second / alone


def main(options: Options) -> None:
    """Plan, print, draw."""
    cells = [(workers, width) for width in options.widths for workers in options.workers]
    found: dict[tuple[int, int], dict[str, Forecast | None]] = {}
    with progress("growth", len(cells)) as advance:
        for cell in cells:
            found[cell] = planned(options, *cell)
            advance(1, f"{cell[0]} workers, width {cell[1]}")
    for width in options.widths:
        print(f"\n### 784-{width}-{width}-10, {options.local_steps} local steps of {options.batch_size} samples\n")
        print("MB that the busiest worker sends and receives in a round / MB of memory that a worker needs:\n")
        print(f"| workers | {' | '.join(STRATEGIES[way].label for way in WAYS)} |")
        print("|---:|" + "---:|" * len(WAYS))
        for workers in options.workers:
            row = [found[workers, width][way] for way in WAYS]
            texts = ["-" if f is None else f"{_mb(f.busiest_bytes)} / {_mb(f.needed_bytes)}" for f in row]
            print(f"| {workers} | {' | '.join(texts)} |")
        for name, line in LINES.items():
            print(f"\nSamples a second against one worker alone, over {name} (-: not possible, or not in "
                  f"{options.memory}):\n")  # fmt: skip
            print(f"| workers | {' | '.join(STRATEGIES[way].label for way in WAYS)} |")
            print("|---:|" + "---:|" * len(WAYS))
            for workers in options.workers:
                memory = parse_size("memory", options.memory)
                gains = [gain(found[workers, width], way, line, memory) for way in WAYS]
                print(f"| {workers} | {' | '.join(map(_times, gains))} |")
    draw(options, found)


def measured(options: Options) -> None:
    """Train every way on 2, 4, 8, ... hosts over the slower line, on two every width over the faster; print what it
    took."""
    fast, slow = LINES
    cells = [(slow, workers, options.widths[0]) for workers in options.workers if workers <= options.most]
    cells += [(fast, options.workers[0], width) for width in options.widths]
    pairs = [(cell, way) for cell in cells for way in WAYS if options.strategies in way]
    print(f"{_STEPS} local steps of {options.batch_size} samples; by plan / measured:\n")
    print("| line | workers | units | | MB a round, busiest | MB held, busiest | a round (s) | computing (s) |")
    print("|---|---:|---:|---|---:|---:|---:|---:|")
    with progress("growth", len(pairs)) as advance:
        for (name, workers, width), way in pairs:
            flags = {
                "data": DATA, "widths": (width, width), "strategy": way, "workers": workers, "rounds": 4,
                "local_steps": _STEPS, "batch_size": options.batch_size, "features": "standardized",
            }  # fmt: skip
            out = options.folder / f"{LINES[name].down:.0f}-{workers}w-{width}-{way}"
            run = trained(out, flags, LINES[name])
            advance(1, f"{workers} workers, {way}")
            row = f"| {name} | {workers} | {width} | {STRATEGIES[way].label} |"
            if isinstance(run, str):
                print(f"{row} {run} | | | |")
                continue
            plan, rows = run.summary["planned"], run.rows[2:-1]  # the last is evaluated before it is written
            moved = [max(map(sum, zip(each["sent_bytes"], each["received_bytes"], strict=True))) for each in rows]
            busiest = max(map(sum, zip(plan["round_sent_bytes"], plan["round_received_bytes"], strict=True)))
            held = [max(each) for each in (plan["held_bytes"], run.summary["worker_memory_bytes"])]
            print(f"{row} {_mb(busiest)} / {_mb(mean(moved))} | {_mb(held[0])} / {_mb(held[1])} | "
                  f"{plan['round_seconds']:.3g} / {mean(round_seconds(run)):.3g} | "
                  f"{mean(max(each['compute_seconds']) for each in rows):.3g} |")  # fmt: skip


def _mb(count: float) -> str:
    return f"{count / 1e6:.3g}" if count < 1e9 else f"{count / 1e6:,.0f}"


def _times(value: float) -> str:
    return "-" if not value else f"{value:,.0f}x" if value >= 10 else f"{value:.2g}x"


def draw(options: Options, found: dict[tuple[int, int], dict[str, Forecast | None]]) -> None:
    """Draw which ways are feasible where: a dot a way in every cell of workers and width, a panel a line."""
    from matplotlib.figure import Figure

    memory = parse_size("memory", options.memory)
    picture = Figure(figsize=(11, 4.6), layout="constrained", dpi=110)
    panels = picture.subplots(1, len(LINES), sharey=True)
    for panel, (name, line) in zip(panels, LINES.items(), strict=True):
        for (workers, width), ways in found.items():
            column, row = options.workers.index(workers), options.widths.index(width)
            for place, way in enumerate(WAYS):
                value = gain(ways, way, line, memory)
                x = column + (place - (len(WAYS) - 1) / 2) * 0.16
                color = STRATEGIES[way].color if value else "#b0b4ba"
                if not value:
                    panel.scatter(x, row, s=14, color=color, marker="x", linewidths=1.0)
                elif value < 1:
                    panel.scatter(x, row, s=30, facecolors="none", edgecolors=color, linewidths=1.2)
                else:
                    panel.scatter(x, row, s=24 + 26 * math.log10(value), color=color)
        panel.set_title(f"line of {name}", fontsize=11)
        panel.set_xticks(range(len(options.workers)), [str(each) for each in options.workers])
        panel.set_yticks(range(len(options.widths)), [str(each) for each in options.widths])
        panel.set_xlim(-0.6, len(options.workers) - 0.4)
        panel.set_ylim(-0.5, len(options.widths) - 0.5)
        panel.set_xlabel("workers")
        panel.grid(True, axis="y", color="#eceef0")
        panel.set_axisbelow(True)
    panels[0].set_ylabel("units of each hidden layer")
    shown = [STRATEGIES[way] for way in WAYS]
    handles = [panels[0].scatter([], [], s=80, color=each.color, label=each.label) for each in shown]
    picture.legend(handles=handles, loc="outside lower center", ncols=len(WAYS), frameon=False)
    picture.suptitle(
        "Full: more samples a second than one worker alone (the larger, the more). Ring: fewer. "
        f"Cross: not possible, or not in {options.memory}.", fontsize=10,
    )  # fmt: skip
    options.figure.parent.mkdir(parents=True, exist_ok=True)
    picture.savefig(options.figure)
    print(f"\n{options.figure}")


if __name__ == "__main__":
    chosen = tyro.cli(Options, description=__doc__)
    measured(chosen) if chosen.measure else main(chosen)
