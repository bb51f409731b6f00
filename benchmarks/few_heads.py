"""Whether heads that are too few for the workers are better cut inside, or attention left whole.

    python -m benchmarks.few_heads        prints Markdown: the loss after a short run, by seed

A small GPT with three heads, and one with four, on four workers. ``--cut ffn`` leaves attention whole.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from benchmarks.command import train_command
from torch import Tensor, nn

from examples import networks
from isthmus.progress import progress
from isthmus.records import read_run

RUN: dict[str, Any] = {
    "data": "text:/usr/share/doc/anarchism/markdown", "strategy": "ist", "workers": 4, "executor": "serial",
    "optimizer": "adamw", "clip": 1, "lr": 0.003, "schedule": "constant", "batch_size": 8, "local_steps": 20,
    "rounds": 25, "eval_every": 5, "checkpoint_every": 0, "verify": False,
}  # fmt: skip
CUTS: dict[str, dict[str, Any]] = {"by default": {}, "attention whole": {"cut": "ffn"}}
LAWS = ("fixed", "uniform")


def three() -> tuple[nn.Module, tuple[Tensor]]:
    """Fewer heads than workers."""
    return networks.gpt(layers=2, width=96, heads=3)


def four() -> tuple[nn.Module, tuple[Tensor]]:
    """As many."""
    return networks.gpt(layers=2, width=96, heads=4)


@dataclass(frozen=True)
class Options:
    """What to run.

    Attributes:
        seeds: number of seeds, 0 first.
        jobs: runs at a time.
        folder: where the runs are; those that are there are not made again.
    """

    seeds: int = 2
    jobs: int = 2
    folder: Path = Path("runs/few-heads")


def settings() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield every network under every law and cut, by name."""
    for network in (three, four):
        for law in LAWS:
            for cut, flags in CUTS.items():
                model = f"benchmarks.few_heads:{network.__name__}"
                yield f"{network.__name__} heads | {law} | {cut}", {"model": model, "law": law, **flags}


def loss(out: Path, flags: Mapping[str, Any]) -> float:
    """Return the test loss of a run, in nats a byte."""
    if not (out / "summary.json").exists():
        done = subprocess.run(train_command({**RUN, **flags, "out": out}), capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stderr)
    return float(read_run(out).summary["test_loss"])


def main(options: Options) -> None:
    """Run, print."""
    print("| network | law | cut | loss, by seed |\n|---|---|---|---|")
    rows = list(settings())
    with progress("few_heads", len(rows)) as advance, ThreadPoolExecutor(options.jobs) as pool:
        for name, flags in rows:
            slug = name.replace(" | ", "-").replace(" ", "-")
            seeds = range(options.seeds)
            places = [options.folder / f"{slug}-{seed}" for seed in seeds]
            losses = pool.map(loss, places, [{**flags, "seed": seed} for seed in seeds])
            print(f"| {name} | {', '.join(f'{each:.2f}' for each in losses)} |", flush=True)
            advance(1, name)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
