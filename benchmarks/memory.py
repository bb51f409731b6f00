"""What every worker of a run needs in memory at most, measured from outside, beside what was planned.

    python -m benchmarks.memory

Real processes of `isthmus train`. While they run, the largest resident set of each (VmHWM) is read from /proc; from it
that of the same worker is taken in the same run with a tiny network, so that the interpreter, the libraries and what
they load at their first use do not count. Shown: that growth, what was planned, and the bytes of the whole network.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table
from torch import nn

from examples import networks
from isthmus.progress import progress
from isthmus.records import read_run

_EVERY = 0.01  # seconds between two looks


@dataclass(frozen=True)
class Options:
    """What to measure.

    Attributes:
        networks: mlp (64-4096-4096-10 on digits), gpt (50 million parameters on text).
        workers: numbers of workers.
        strategies: to train by.
        json: print one JSON object instead of a table.
    """

    networks: tuple[str, ...] = ("mlp", "gpt")
    workers: tuple[int, ...] = (4, 8)
    strategies: tuple[str, ...] = ("ist",)
    json: bool = False


@dataclass(frozen=True)
class Case:
    """One run: bytes by worker.

    Attributes:
        network, strategy, workers: what was trained, how.
        model: bytes of the whole network's parameters.
        planned: what the run said it would need.
        growth: what it needed, beyond the same run with a tiny network.
    """

    network: str
    strategy: str
    workers: int
    model: int
    planned: tuple[int, ...]
    growth: tuple[int, ...]


def mlp(width: int) -> list[str]:
    """Return the flags of a perceptron on digits."""
    return ["--data", "digits", "--widths", str(width), str(width), "--lr", "0.1"]


def gpt(factory: str) -> Callable[[Path], list[str]]:
    """Return the flags of a GPT on a text, which is written first."""

    def flags(folder: Path) -> list[str]:
        text = folder / "lines.txt"
        text.write_text("".join(f"The {n}th line says that {n} times {n} is {n * n}.\n" for n in range(2000)))
        data = ["--data", f"text:{text}", "--lr", "0.01", "--batch-size", "8"]
        return ["--model", f"benchmarks.memory:{factory}", *data]

    return flags


def large() -> tuple[nn.Module, Any]:
    """Return a GPT with 50 million parameters."""
    return networks.gpt(layers=7, width=768, heads=12)


def tiny() -> tuple[nn.Module, Any]:
    """Return a GPT with as many layers, and next to no parameters."""
    return networks.gpt(layers=7, width=24, heads=12)


# flags of the network that is measured, and of the tiny one that is run beside it
NETWORKS: Mapping[str, tuple[Callable[[Path], list[str]], Callable[[Path], list[str]]]] = {
    "mlp": (lambda _: mlp(4096), lambda _: mlp(16)),
    "gpt": (gpt("large"), gpt("tiny")),
}


def main(options: Options) -> None:
    """Measure and print."""
    kinds = [(n, s, w) for n in options.networks for s in options.strategies for w in options.workers]
    with progress("memory", len(kinds)) as advance:
        cases = []
        for kind in kinds:
            cases.append(measure(*kind))
            advance(1, f"{max(cases[-1].growth) / 1e6:.0f} MB")
    if options.json:
        print(json.dumps([asdict(case) for case in cases]))
    else:
        Console().print(table(cases))


def measure(network: str, strategy: str, workers: int) -> Case:
    """Return what one network and strategy need."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        # two rounds: the second is opened while the first piece is still there
        common = ["--strategy", strategy, "--workers", str(workers), "--rounds", "2", "--local-steps", "3"]
        big, small = ([*common, *make(place)] for make in NETWORKS[network])
        idle, _ = peaks(small, place / "tiny")
        most, summary = peaks(big, place / "run")
    growth = tuple(each - before for each, before in zip(most, idle, strict=True))
    planned = tuple(summary.get("planned_memory_bytes") or [0] * workers)
    return Case(network, strategy, workers, 4 * summary["model_parameters"], planned, growth)


def peaks(flags: list[str], out: Path) -> tuple[list[int], dict[str, Any]]:
    """Run `isthmus train`; return the largest resident set of every worker, and the summary."""
    command = [sys.executable, "-m", "isthmus", "train", "--out", str(out), "--json", *flags]
    seen: dict[int, int] = {}
    with tempfile.TemporaryFile() as said:
        run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said)
        while run.poll() is None:
            for process in below(run.pid):
                seen[process] = max(seen.get(process, 0), peak(process))
            time.sleep(_EVERY)
        said.seek(0)
        if run.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{said.read().decode()}")
    record = read_run(out)
    return [seen[process] for process in record.rows[0]["processes"]], record.summary


def below(process: int) -> list[int]:
    """Return a process's descendants."""
    found = []
    for children in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            own = [int(child) for child in children.read_text().split()]
        except OSError:  # it has ended
            continue
        found += own + [each for child in own for each in below(child)]
    return found


def peak(process: int) -> int:
    """Return the largest resident set of a process so far; 0 when it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)


def table(cases: list[Case]) -> Table:
    """Return the table for people."""
    shown = Table(title="memory of a worker in MB: growth over the same run with a tiny network, and planned")
    for column in ("network", "strategy", "workers", "whole network", "planned", "growth", "growth / planned (most)"):
        shown.add_column(column, justify="left" if column in ("network", "strategy") else "right")
    for case in cases:
        ratio = max(g / p if p else 0 for g, p in zip(case.growth, case.planned, strict=True))
        shown.add_row(
            case.network,
            case.strategy,
            str(case.workers),
            f"{case.model / 1e6:.0f}",
            *(" ".join(f"{each / 1e6:.0f}" for each in row) for row in (case.planned, case.growth)),
            f"{ratio:.2f}",
        )
    return shown


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
