"""Analyze IST on two quadratics, train one network by every strategy on digits, and write one page about it all.

Each step is a command of its own, printed before it runs: copy a line to run or change it.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from isthmus.cli import status
from isthmus.errors import IsthmusError
from isthmus.progress import progress
from isthmus.records import Run, read_run

ANALYSES = {
    "breast-cancer": "--problem data --data breast-cancer --workers 4",
    "gaussian": "--problem gaussian --dim 200 --workers 10",
}
TRAININGS = {name: f"--strategy {name}" for name in ("data-parallel", "local-sgd", "narrow", "ist")}


@dataclass(frozen=True)
class Options:
    """The main job on data that comes along.

    Attributes:
        out: folder for the runs and the page.
        replace: replace an earlier demo's runs.
    """

    out: Path = Path("runs/demo")
    replace: bool = False


def run(options: Options, command: list[str]) -> None:
    """Run every step, then print what came out and where the page is."""
    steps = list(_steps(options))
    with progress("demo", len(steps)) as advance:
        for arguments in steps:
            print(f"$ isthmus {shlex.join(arguments)}", flush=True)
            done = subprocess.run([sys.executable, "-m", "isthmus", *arguments], capture_output=True, text=True)
            if done.returncode not in (status.FINE, status.DIVERGED):
                said = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
                raise IsthmusError(f"`isthmus {shlex.join(arguments)}` failed: {said}")
            advance()
    console = Console()
    console.print(_analyses([read_run(options.out / name) for name in ANALYSES]))
    console.print(_trainings([read_run(options.out / name) for name in TRAININGS]))
    console.print(f"The page, with every curve: {options.out / 'report' / 'index.html'}", soft_wrap=True)


def _steps(options: Options) -> Iterator[list[str]]:
    tail = ["--replace"] if options.replace else []
    for name, flags in ANALYSES.items():
        yield ["analyze", *flags.split(), "--out", str(options.out / name), *tail]
    for name, flags in TRAININGS.items():
        yield ["train", "--data", "digits", "--workers", "4", *flags.split(), "--out", str(options.out / name), *tail]
    runs = [str(options.out / name) for name in [*ANALYSES, *TRAININGS]]
    yield ["report", *runs, "--out", str(options.out / "report")]


def _analyses(runs: list[Run]) -> Table:
    table = Table(title="IST on a quadratic: where it stops, as a share of the initial gap f(x0) - f*")
    table.add_column("problem")
    for column in ("workers", "fixed point (exact)", "after the last round (simulated)"):
        table.add_column(column, justify="right")
    for run in runs:
        last = run.summary["final_simulated_gap"] / run.summary["initial_gap"]
        gap = run.summary["fixed_point_relative_gap"]
        table.add_row(run.path.name, str(run.config["workers"]), f"{100 * gap:.3g} %", f"{100 * last:.3g} %")
    return table


def _trainings(runs: list[Run]) -> Table:
    table = Table(
        title="Four strategies on digits: 4 workers, the same number of samples",
        caption="Busiest worker. One seed: differences of a few test images are chance.",
    )
    table.add_column("strategy")
    for column in ("test accuracy", "sent", "parameters held", "seconds"):
        table.add_column(column, justify="right")
    for run in runs:
        summary = run.summary
        table.add_row(
            run.path.name,
            f"{100 * summary['test_accuracy']:.1f} %",
            f"{max(summary['sent_bytes']) / 1e6:.2f} MB",
            f"{max(summary['worker_parameters']):,}",
            f"{summary['seconds']:.1f}",
        )
    return table
