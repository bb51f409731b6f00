"""What was planned against what was measured: six networks, every strategy, over a line that is really slow.

    python -m benchmarks.plan_errors        as root; alone on the machine; prints Markdown

Two hosts, five short rounds each. Bytes are those of the worker with the largest error, sent or received, in the mean
of the rounds after the first; seconds are those of a whole round without evaluations, in the same mean. Memory is what
stays from step to step, as the account has it, against what was planned to stay.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import tyro
from benchmarks.command import train_command

from isthmus.line import Line
from isthmus.progress import progress
from isthmus.records import Run, read_run
from isthmus.slow import hosts
from isthmus.strategies import STRATEGIES

IMAGES = {"data": "idx:/usr/share/datasets/fashion-mnist", "features": "standardized"}
NETWORKS: dict[str, dict[str, Any]] = {
    "perceptron 64-256-256-10": {"data": "digits", "widths": (256, 256)},
    "perceptron 784-2048-2048-10": {"data": IMAGES["data"], "widths": (2048, 2048)},
    "CNN": {**IMAGES, "model": "examples.networks:cnn"},
    "ResNet": {**IMAGES, "model": "examples.networks:resnet"},
    "GPT": {"data": "text:/usr/share/doc/anarchism/markdown", "model": "examples.networks:gpt", "optimizer": "adamw"},
    "graph network": {"data": "sbm", "model": "examples.networks:gcn", "batch_size": 64},
}


@dataclass(frozen=True)
class Options:
    """What to try.

    Attributes:
        networks, strategies: only those whose name contains this.
        rate, latency: of the line.
        rounds: of each run.
        local_steps: of each round.
        folder: where the runs are; those that are there are not made again.
    """

    networks: str = ""
    strategies: str = ""
    rate: str = "100mbit"
    latency: str = "10ms"
    rounds: int = 5
    local_steps: int = 10
    folder: Path = Path("runs/plan-errors")


def made(options: Options, network: str, strategy: str) -> Run | str:
    """Return a run over the line, or the line that it was refused with."""
    out = options.folder / f"{network.replace(' ', '-')}-{strategy}".lower()
    flags = {
        **NETWORKS[network], "strategy": strategy, "workers": 2, "rounds": options.rounds,
        "local_steps": options.local_steps,
    }  # fmt: skip
    return trained(out, flags, Line.of(options.rate, options.latency))


def trained(out: Path, flags: Mapping[str, Any], line: Line) -> Run | str:
    """Return a run of ``isthmus train`` on as many hosts as workers, made if it is not there, or why it was refused."""
    said = out.with_suffix(".log")
    if not (out / "summary.json").exists():
        shutil.rmtree(out, ignore_errors=True)
        out.parent.mkdir(parents=True, exist_ok=True)
        beside = {"out": out, "eval_every": 10_000, "checkpoint_every": 0, "join_timeout": 200}
        with hosts(flags["workers"], line) as net, said.open("w") as log:
            net.run(train_command({**flags, **beside}), stdout=log, stderr=log)
    run = read_run(out) if (out / "summary.json").exists() else None
    if run is None or run.status != "finished":
        return said.read_text().strip().splitlines()[-1].removeprefix("isthmus: ")
    return run


def error(measured: float, planned: float) -> float:
    """Return by how much something differs from the plan, as a share of it; infinite of nothing."""
    if planned:
        return measured / planned - 1
    return 0.0 if measured == 0 else math.inf


def errors(run: Run) -> tuple[float, float, float]:
    """Return by how much bytes, memory and seconds differ from the plan, as shares of it."""
    plan, rows = run.summary["planned"], run.rows[2:-1]  # the last row is evaluated before it is written
    moved = []
    for way in ("sent", "received"):
        columns = zip(plan[f"round_{way}_bytes"], zip(*(row[f"{way}_bytes"] for row in rows), strict=True), strict=True)
        moved += [error(mean(values), said) for said, values in columns]
    stayed = [error(m, p) for m, p in zip(run.summary["worker_memory_bytes"], plan["held_bytes"], strict=True)]
    return max(moved, key=abs), max(stayed, key=abs), mean(round_seconds(run)) / plan["round_seconds"] - 1


def round_seconds(run: Run) -> list[float]:
    """Return what every round took, but for the first and the last."""
    return [after["seconds"] - before["seconds"] for before, after in zip(run.rows[1:-2], run.rows[2:-1], strict=True)]


def main(options: Options) -> None:
    """Run, then print."""
    pairs = [(n, s) for n in NETWORKS if options.networks in n for s in STRATEGIES if options.strategies in s]
    print(f"| network | strategy | a round, measured (s) | bytes | memory held | seconds |\n{'|---' * 6}|")
    with progress("plan_errors", len(pairs)) as advance:
        for network, strategy in pairs:
            run = made(options, network, strategy)
            advance(1, f"{network}, {strategy}")
            if isinstance(run, str):
                print(f"| {network} | {strategy} | {run} | | | |")
                continue
            found = errors(run)
            seconds = (1 + found[2]) * run.summary["planned"]["round_seconds"]
            shown = " | ".join(f"{100 * each:+.2g} %" for each in found)
            print(f"| {network} | {strategy} | {seconds:.3g} | {shown} |")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
