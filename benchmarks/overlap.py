"""What `--overlap True` brings over a slow line: seconds of a round with and without it, by plan and measured.

    python -m benchmarks.overlap        as root; alone on the machine; prints Markdown

Four hosts train a perceptron 64-2048-2048-10 under laws that deal new pieces every round, and under one that does not.
The weights that come out must be the same to the bit, which is checked.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import tyro
from benchmarks.plan_errors import round_seconds, trained

import isthmus
from isthmus.line import Line
from isthmus.progress import progress
from isthmus.records import Run
from isthmus.trainer.plan.forecast import Forecast

LAWS = ("uniform", "rolling", "block")
LINES = {"100 Mbit/s": "100mbit", "10 Mbit/s": "10mbit"}
FLAGS: dict[str, Any] = {"data": "digits", "widths": (2048, 2048), "strategy": "ist", "workers": 4, "rounds": 7}


@dataclass(frozen=True)
class Options:
    """What to try.

    Attributes:
        local_steps: by line, as many as keep a worker busy for about as long as its line.
        folder: where the runs are; those that are there are not made again.
    """

    local_steps: tuple[int, int] = (100, 800)
    folder: Path = Path("runs/overlap")


def main(options: Options) -> None:
    """Run, then print."""
    print("| law | line | H | computing, without, with (s) | a round (s) | with (s) | saved | by plan | sent ahead |")
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|")
    with progress("overlap", 2 * len(LAWS) * len(LINES)) as advance:
        for (name, rate), steps in zip(LINES.items(), options.local_steps, strict=True):
            for law in LAWS:
                runs = []
                for overlap in (False, True):
                    flags = {**FLAGS, "law": law, "local_steps": steps, "overlap": overlap}
                    out = options.folder / f"{law}-{rate}-{'with' if overlap else 'without'}"
                    runs.append(trained(out, flags, Line.of(rate, "10ms")))
                    advance(1, f"{law}, {name}")
                print(compared(law, name, steps, runs), flush=True)


def compared(law: str, line: str, steps: int, runs: list[Run | str]) -> str:
    """Return the row of two runs, or why there is none."""
    without, ahead = runs
    if isinstance(without, str) or isinstance(ahead, str):
        return f"| {law} | {line} | {steps} | {ahead if isinstance(ahead, str) else without} |" + " |" * 5
    if without.summary["weights_sha256"] != ahead.summary["weights_sha256"]:
        sys.exit(f"overlap: {law} over {line} gives other weights with --overlap")
    measured = [mean(round_seconds(run)) for run in (without, ahead)]
    computing = [mean(mean(row["compute_seconds"]) for row in run.rows[2:-1]) for run in (without, ahead)]
    planned = [planned_seconds(law, line, steps, overlap, computing[0]) for overlap in (False, True)]
    rows = ahead.rows[2:-1]
    moved = sum(sum(row["sent_bytes"]) + sum(row["received_bytes"]) for row in rows)
    share = sum(sum(row["ahead_bytes"]) for row in rows) / moved
    return (f"| {law} | {line} | {steps} | {computing[0]:.2f}, {computing[1]:.2f} | {measured[0]:.2f} | "
            f"{measured[1]:.2f} | {100 * (1 - measured[1] / measured[0]):.0f} % | "
            f"{100 * (1 - planned[1] / planned[0]):.0f} % | {100 * share:.0f} % |")  # fmt: skip


def planned_seconds(law: str, line: str, steps: int, overlap: bool, computing: float) -> float:
    """Return what is planned of a round, if the steps take as long as was measured: each run has measured the machine
    by itself, and by more than what is to be seen here."""
    flags = {name: value for name, value in FLAGS.items() if name not in ("strategy", "rounds")}

    def planned(flops: float) -> Forecast:
        outlook = isthmus.plan(("ist",), **flags, law=law, local_steps=steps, overlap=overlap, flops=flops)
        found = outlook.prospects[0].forecast
        assert found is not None
        return found

    flops = 1e9 * planned(1e9).compute_seconds / computing
    return planned(flops).over(Line.of(LINES[line], "10ms")).round_seconds


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
