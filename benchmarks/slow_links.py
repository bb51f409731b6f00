"""Which way of training gets there first over a slow link: rounds that each needs, times seconds of a round over a link
that is really slow.

    python -m benchmarks.slow_links curves    how many rounds each needs to a target (the link does not change that)
    python -m benchmarks.slow_links links     how long a round takes over shaped links (as root; alone on the machine)
    python -m benchmarks.slow_links whole     some whole runs over shaped links, against the product of the two
    python -m benchmarks.slow_links show      tables as Markdown, and the figure

Every variant has its own best learning rate and local steps, from one grid for all. The rate is chosen by accuracy on
training data held out, the local steps by the time to the target over the link in question, both under a seed of their
own. The schedule is constant, so that when a target is reached does not hang on how long a run was to be. Runs that
exist are not made again.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from isthmus.progress import progress
from isthmus.records import Run, is_run, read_run

DATA = "idx:/usr/share/datasets/fashion-mnist"
TUNING_SEED = 100
LINES = {"100 Mbit/s": ("100mbit", "10ms"), "10 Mbit/s": ("10mbit", "10ms")}


@dataclass(frozen=True)
class Variant:
    """One way to train.

    Attributes:
        flags: of ``isthmus train``.
        every_step: whether it communicates in every step, so that local steps change nothing but when it is looked at.
        as_in: the variant whose course it has, to rounding, and whose rounds are taken.
        processes: whether its course needs a process a worker.
    """

    flags: Mapping[str, Any]
    every_step: bool = False
    as_in: str = ""
    processes: bool = False


@dataclass(frozen=True)
class Task:
    """What is trained to what accuracy, and over what grid.

    Attributes:
        flags: of ``isthmus train``, for all variants.
        target: test accuracy.
        rates, steps: learning rates and local steps to choose from.
        variants: by name.
    """

    flags: Mapping[str, Any]
    target: float
    rates: Sequence[float]
    steps: Sequence[int]
    variants: Mapping[str, Variant]


_DENSE = {
    "DDP": Variant({"strategy": "data-parallel"}, every_step=True),
    "DDP, fp16": Variant({"strategy": "ddp", "hook": "fp16"}, every_step=True, as_in="DDP"),
    "DDP, PowerSGD": Variant({"strategy": "ddp", "hook": "powersgd"}, every_step=True, processes=True),
    "FSDP2": Variant({"strategy": "fsdp"}, every_step=True, as_in="DDP"),
    "local SGD": Variant({"strategy": "local-sgd"}),
    "DiLoCo": Variant({"strategy": "diloco"}),
}
_PIECES = {
    "narrow": Variant({"strategy": "narrow"}),
    "narrow, core 1/4": Variant({"strategy": "narrow", "core": 0.25}),
    "IST block": Variant({"strategy": "ist", "law": "block"}),
    "IST block, core 1/4": Variant({"strategy": "ist", "law": "block", "core": 0.25}),
    "IST fixed, core 1/4": Variant({"strategy": "ist", "law": "fixed", "core": 0.25}),
}
TASKS = {
    "mlp": Task(
        {"data": DATA, "widths": (2048, 2048), "batch_size": 32},
        0.86,
        (0.03, 0.1, 0.3),
        (20, 100),
        {**_DENSE, **_PIECES, "shallow": Variant({"strategy": "local-sgd", "widths": (860,)})},
    ),
}
OVER = {"DDP": {"strategy": "ddp"}}  # what stands for a course over a link: torch's own


@dataclass(frozen=True)
class Options:
    """What to do.

    Attributes:
        what: curves, links, whole, or show.
        task: which network.
        workers: number of workers.
        samples: budget of a run over all workers.
        seeds: number of seeds, 0 first.
        jobs: runs at a time.
        only: variants whose name contains this.
        folder: where the runs are.
    """

    what: tyro.conf.Positional[str] = "show"
    task: str = "mlp"
    workers: int = 4
    samples: int = 160_000
    seeds: int = 3
    jobs: int = 2
    only: str = ""
    folder: Path = Path("runs/slow-links")

    @property
    def place(self) -> Path:
        """The folder of this task."""
        return self.folder / f"{self.task}-{self.workers}w"


def slug(text: str) -> str:
    """Return a name as part of a folder's."""
    return text.replace(", ", "-").replace(" ", "-").replace("/", "_").lower()


def make(out: Path, flags: Mapping[str, Any]) -> Run:
    """Return the run in a folder, made if it is not there, by a process of its own with one thread."""
    if not (is_run(out) and read_run(out).status in ("finished", "diverged")):
        words = [sys.executable, "-m", "isthmus", "train", "--out", str(out), "--replace", "--checkpoint-every", "0"]
        for name, value in flags.items():
            words += [f"--{name.replace('_', '-')}", *(map(str, value) if isinstance(value, tuple) else [str(value)])]
        done = subprocess.run(
            words, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False
        )
        if done.returncode not in (0, 3):
            raise RuntimeError(f"{' '.join(words)}: {done.stderr[-2000:]}")
    return read_run(out)


def course(options: Options, name: str, rate: float, steps: int, seed: int) -> tuple[Path, dict[str, Any]]:
    """Return where a run is, and its flags."""
    task = TASKS[options.task]
    variant = task.variants[name]
    rounds = math.ceil(options.samples / (options.workers * steps * task.flags["batch_size"]))
    flags = {
        **task.flags, **variant.flags, "workers": options.workers, "lr": rate, "local_steps": steps, "seed": seed,
        "rounds": rounds, "schedule": "constant", "eval_every": max(1, rounds // 60),
        "executor": "processes" if variant.processes else "serial",
    }  # fmt: skip
    return options.place / f"{slug(name)}-H{steps}-lr{rate:g}-seed{seed}", flags


def own(options: Options) -> Iterator[tuple[str, int]]:
    """Return variants that have a course of their own, and local steps to try."""
    task = TASKS[options.task]
    for name, variant in task.variants.items():
        if not variant.as_in and options.only in name:
            yield from ((name, steps) for steps in ([min(task.steps)] if variant.every_step else task.steps))


def curves(options: Options) -> None:
    """Tune, then run the seeds."""
    task = TASKS[options.task]
    tuning = [course(options, n, rate, steps, TUNING_SEED) for n, steps in own(options) for rate in task.rates]
    _all(options, tuning, "tuning")
    seeds = [
        course(options, n, best_rate(options, n, steps), steps, seed)
        for seed in range(options.seeds)
        for n, steps in own(options)
    ]
    _all(options, seeds, "seeds")


def _all(options: Options, runs: Sequence[tuple[Path, dict[str, Any]]], what: str) -> None:
    with progress(f"slow_links {what}", len(runs)) as advance, ProcessPoolExecutor(options.jobs) as pool:
        for run in pool.map(make, *zip(*runs, strict=True)):
            advance(1, run.path.name)


def best_rate(options: Options, name: str, steps: int) -> float:
    """Return the rate with the best accuracy on data held out."""
    def held_out(rate: float) -> float:
        run = read_run(course(options, name, rate, steps, TUNING_SEED)[0])
        return run.summary.get("held_out_accuracy") or 0.0 if run.status == "finished" else -1.0

    return max(TASKS[options.task].rates, key=held_out)


def rounds_to(run: Run, target: float) -> float | None:
    """Return in which round the target is first reached, between two looks by a straight line; None if never."""
    before = (0.0, 0.0)
    for row in run.rows:
        accuracy = row.get("test_accuracy")
        if accuracy is None:
            continue
        if accuracy >= target:
            (r0, a0), (r1, a1) = before, (row["round"], accuracy)
            return r1 if a1 == a0 else r0 + (r1 - r0) * (target - a0) / (a1 - a0)
        before = (row["round"], accuracy)
    return None


if __name__ == "__main__":
    chosen = tyro.cli(Options, description=__doc__)
    {"curves": curves}[chosen.what](chosen)
