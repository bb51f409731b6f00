"""Which way of training gets there first over a slow link: rounds that each needs, times seconds of a round over a link
that is really slow.

    python -m benchmarks.slow_links tune      how many rounds each needs to a target (the link does not change that)
    python -m benchmarks.slow_links links     how long a round takes over shaped links (as root; alone on the machine)
    python -m benchmarks.slow_links seeds     with the chosen rates, over seeds
    python -m benchmarks.slow_links show      tables as Markdown
    python -m benchmarks.slow_links draw      accuracy against seconds, for a task, all numbers of workers and lines

Every variant has its own best learning rate and local steps, from one grid for all: those with which it reaches the
target first over the link in question, under a seed of their own, on training data that is held out for it: the test
set is looked at by the runs of ``seeds`` alone. Whoever merges in rounds has a network at their ends alone, so that
rounds to the target are whole. The schedule is constant, so that when a target is reached does not
hang on how long a run was to be. Runs that exist are not made again.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import numpy as np
import torch
import tyro
from benchmarks.command import train_command

from examples import networks
from isthmus.data.files import read_bytes
from isthmus.data.idx import read_idx
from isthmus.data.text import text_files
from isthmus.line import Line
from isthmus.progress import progress
from isthmus.randomness import generator
from isthmus.records import Run, read_run
from isthmus.strategies import STRATEGIES

IMAGES = "/usr/share/datasets/fashion-mnist"
TEXT = "/usr/share/doc/anarchism/markdown"
TUNING_SEED = 100
HELD_OUT = 10_000  # training images that take the test set's place where rates and local steps are chosen
LATENCY = "10ms"
LINES = {"100 Mbit/s": "100mbit", "10 Mbit/s": "10mbit"}
SLOWEST = "10 Mbit/s"  # where only the most local steps are measured, and nothing that has the course of DDP
BASE = 100  # local steps of rounds that are measured: others have the same messages, and more or less computing
LOOK = 20  # steps between looks at what communicates in every one


@dataclass(frozen=True)
class Variant:
    """One way to train.

    Attributes:
        flags: of ``isthmus train``.
        every_step: whether it communicates in every step, so that local steps change nothing but when it is looked at.
        as_in: the variant whose course it has, to rounding, and whose rounds are taken.
        processes: whether its course needs a process a worker.
        steps: local steps to try, where not all of the grid.
        alone: whether its course is found by one worker with the batches of all: the same mean of gradients, drawn from
            all data instead of shares of it.
        rate_of: the variant whose learning rate it takes, where its own runs are dear.
        sized: flags beside these by number of workers, where what a worker holds is to shrink with it.
        drawn_as: the strategy whose colour it has, where that is not its own.
        dashes: of its line.
    """

    flags: Mapping[str, Any]
    every_step: bool = False
    as_in: str = ""
    processes: bool = False
    steps: tuple[int, ...] = ()
    alone: bool = False
    rate_of: str = ""
    sized: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    drawn_as: str = ""
    dashes: str = "-"

    @property
    def color(self) -> str:
        """Of its line."""
        return STRATEGIES[self.drawn_as or self.flags["strategy"]].color

    def flags_for(self, workers: int) -> dict[str, Any]:
        """Return the flags with so many workers."""
        return {**self.flags, **self.sized.get(workers, {})}


@dataclass(frozen=True)
class Task:
    """What is trained to what accuracy, and over what grid.

    Attributes:
        flags: of ``isthmus train``, for all variants.
        data: its format, and where it is.
        hold_out: writes data to choose by to a new folder, given that place.
        target: test accuracy.
        chosen_by: accuracy on held-out data to choose by, where some of the training data are easier than the test set.
        samples: budget of a run, of each worker, by number of workers.
        rates: learning rates to choose from, by number of workers.
        steps: local steps to choose from, by number of workers.
        variants: by name.
    """

    flags: Mapping[str, Any]
    data: tuple[str, str]
    hold_out: Callable[[Path, Path], None]
    target: float
    chosen_by: float
    samples: Mapping[int, int]
    rates: Mapping[int, Sequence[float]]
    steps: Mapping[int, Sequence[int]]
    variants: Mapping[str, Variant]


CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
_DENSE = {
    "DDP": Variant({"strategy": "local-sgd", "keep_state": True}, every_step=True, alone=True, drawn_as="ddp"),
    "DDP, fp16": Variant({"strategy": "ddp", "hook": "fp16"}, every_step=True, as_in="DDP", dashes=":"),
    "DDP, PowerSGD": Variant(
        {"strategy": "ddp", "hook": "powersgd"}, every_step=True, processes=True, rate_of="DDP", dashes="-."
    ),
    "FSDP2": Variant({"strategy": "fsdp"}, every_step=True, as_in="DDP"),
    "local SGD": Variant({"strategy": "local-sgd"}),
    "DiLoCo": Variant({"strategy": "diloco"}),
}


def _pieces(law: str, **others: str) -> dict[str, Variant]:
    """Return the ways in which a worker trains a part of the network's size: IST under the law that ``auto`` takes, in
    all ways, and under others, each with its dashes."""
    ist, core = {"strategy": "ist", "law": law}, {"core": 0.25}
    return {
        "narrow": Variant({"strategy": "narrow"}),
        "narrow, core 1/4": Variant({"strategy": "narrow", **core}, dashes="--"),
        f"IST {law}": Variant(ist),
        f"IST {law}, core 1/4": Variant({**ist, **core}, dashes="--"),
        f"IST {law}, no copies": Variant({**ist, "copies": False}, as_in=f"IST {law}"),
        f"IST {law}, core 1/4, no copies": Variant({**ist, **core, "copies": False}, as_in=f"IST {law}, core 1/4"),
        **{f"IST {other}": Variant({**ist, "law": other}, dashes=dashes) for other, dashes in others.items()},
    }


def hold_out_images(source: Path, folder: Path) -> None:
    """Write a folder of the format of MNIST: of the training images of another some are the test set."""
    found = {}
    for kind in ("images-idx3", "labels-idx1"):
        path = source / f"train-{kind}-ubyte"
        found[kind] = read_idx(path if path.exists() else path.with_name(f"{path.name}.gz"))
    order = generator(TUNING_SEED, "slow_links/held_out").permutation(len(found["labels-idx1"]))
    for part, chosen in (("train", order[HELD_OUT:]), ("t10k", order[:HELD_OUT])):
        for kind, values in found.items():
            header = bytes([0, 0, 8, values.ndim]) + np.array((len(chosen), *values.shape[1:]), ">u4").tobytes()
            (folder / f"{part}-{kind}-ubyte").write_bytes(header + values[chosen].tobytes())


def hold_out_text(source: Path, folder: Path) -> None:
    """Write the training part of a text, of which the last tenth is then the test part."""
    content = b"".join(read_bytes(path) for path in text_files(source))
    (folder / "train.txt").write_bytes(content[: len(content) - len(content) // 10])


def gpt() -> tuple[torch.nn.Module, tuple[torch.Tensor]]:
    """1.9 million weights; sixteen heads, so that eight workers can hold one each beside a core."""
    return networks.gpt(layers=4, width=192, heads=16)


def shallow_cnn() -> tuple[torch.nn.Module, tuple[torch.Tensor]]:
    """Two layers, of the size of three with a quarter of the channels."""
    return networks.cnn(channels=(4, 5))


def shallower_cnn() -> tuple[torch.nn.Module, tuple[torch.Tensor]]:
    """Two layers, of the size of three with an eighth of the channels."""
    return networks.cnn(channels=(4, 2))


def shallow_gpt() -> tuple[torch.nn.Module, tuple[torch.Tensor]]:
    """One of its layers."""
    return networks.gpt(layers=1, width=192, heads=16)


_SHALLOW = Variant(  # of a piece's size
    {"strategy": "local-sgd"}, sized={4: {"widths": (860,)}, 8: {"widths": (338,)}}, drawn_as="shallow"
)
TASKS = {
    "mlp": Task(
        {"widths": (2048, 2048), "batch_size": 32},
        ("idx", IMAGES),
        hold_out_images,
        0.85,
        0.86,
        {4: 24_000, 8: 16_000},
        {4: (0.003, 0.01, 0.03, 0.1), 8: (0.01, 0.03, 0.1)},
        {4: (20, 100, 400), 8: (100, 400)},
        {**_DENSE, **_pieces("block", fixed=":", uniform="-."), "shallow": _SHALLOW},
    ),
    "cnn": Task(
        {"model": "examples.networks:cnn", "batch_size": 32, "features": "standardized"},
        ("idx", IMAGES),
        hold_out_images,
        0.85,
        0.86,
        {4: 16_000, 8: 16_000},
        {4: (0.03, 0.1, 0.3), 8: (0.03, 0.1)},
        {4: (20, 100), 8: (20, 100)},
        {
            **_DENSE,
            # not alone: its batch norms see one worker's batch
            "DDP": Variant({"strategy": "data-parallel"}, every_step=True, drawn_as="ddp"),
            **_pieces("block", fixed=":", uniform="-."),
            "shallow": Variant(
                {"strategy": "local-sgd"},
                sized={
                    4: {"model": "benchmarks.slow_links:shallow_cnn"},
                    8: {"model": "benchmarks.slow_links:shallower_cnn"},
                },
                drawn_as="shallow",
            ),
        },
    ),
    "gpt": Task(
        {"model": "benchmarks.slow_links:gpt", "batch_size": 8, "optimizer": "adamw", "clip": 1.0},
        ("text", TEXT),
        hold_out_text,
        0.40,
        0.40,
        {4: 8_000, 8: 8_000},
        {4: (0.001, 0.003, 0.01), 8: (0.001, 0.003, 0.01)},
        {4: (20, 100), 8: (100,)},
        {
            **_DENSE,
            **_pieces("uniform"),
            "shallow": Variant({"strategy": "local-sgd", "model": "benchmarks.slow_links:shallow_gpt"}),
        },
    ),
}
OVER: dict[str, dict[str, Any]] = {
    "DDP": {"strategy": "ddp", "keep_state": None},
    "DDP, PowerSGD": {"powersgd_start": 2},  # sooner than in a whole run, which is to be measured
}  # what stands for a course over a link: torch's own


@dataclass(frozen=True)
class Options:
    """What to do.

    Attributes:
        what: tune, links, seeds, show, or draw.
        task: which network.
        workers: number of workers.
        device: of the courses; a GPU where there is one.
        seeds: number of seeds, 0 first; with none, what is shown is of the seed that was tuned by.
        jobs: runs at a time.
        target: another accuracy than the task's, on both.
        only: variants whose name contains this.
        lines: over which links.
        rounds: to measure over a link.
        folder: where what was measured is kept.
        work: where data to choose by and runs that go on are.
        images: where the picture goes.
    """

    what: tyro.conf.Positional[str] = "show"
    task: str = "mlp"
    workers: int = 4
    device: str = ""
    seeds: int = 3
    jobs: int = 2
    target: float | None = None
    only: str = ""
    lines: tuple[str, ...] = tuple(LINES)
    rounds: int = 4
    folder: Path = Path("docs/measured/links")
    work: Path = Path("runs/slow-links")
    images: Path = Path("docs/images")

    def __post_init__(self) -> None:
        if self.task not in TASKS or self.workers not in TASKS[self.task].steps:
            known = "; ".join(f"{name} with {' or '.join(map(str, task.steps))}" for name, task in TASKS.items())
            sys.exit(f"slow_links: known are {known} workers, got {self.task} with {self.workers}")

    @property
    def to(self) -> float:
        """The test accuracy that is asked for."""
        return TASKS[self.task].target if self.target is None and self.seeds else self.chosen_by

    @property
    def chosen_by(self) -> float:
        """The accuracy on held-out data that is asked for."""
        return TASKS[self.task].chosen_by if self.target is None else self.target

    @property
    def place(self) -> Path:
        """The folder of what was measured of this task."""
        return self.folder / f"{self.task}-{self.workers}w"

    @property
    def courses(self) -> Path:
        """The file of its courses."""
        return self.place / "courses.jsonl"

    @property
    def tuned_on(self) -> Path:
        """The folder of the data to choose by."""
        return self.work / f"held-out-{self.task}"


def slug(text: str) -> str:
    """Return a name as part of a folder's."""
    return text.replace(", ", "-").replace(" ", "-").replace("/", "_").lower()


@dataclass(frozen=True)
class Course:
    """One way to train under one rate, number of local steps and seed, whatever the link.

    Attributes:
        variant, rate, steps, seed: which.
        looks: rounds after which it was evaluated, and the accuracy then.
        accuracy: at the end; None where it diverged before.
        device, torch: where it was made, and by which version.
    """

    variant: str
    rate: float
    steps: int
    seed: int
    looks: Sequence[tuple[int, float]] = ()
    accuracy: float | None = None
    device: str = ""
    torch: str = ""

    @property
    def key(self) -> tuple[str, float, int, int]:
        """What tells it from others of its task."""
        return self.variant, self.rate, self.steps, self.seed

    def rounds_to(self, target: float) -> float | None:
        """Return in which round a target is first reached, between two looks by a straight line; None if never."""
        before = (0.0, 0.0)
        for number, accuracy in self.looks:
            if accuracy >= target:
                (r0, a0), (r1, a1) = before, (number, accuracy)
                return r1 if a1 == a0 else r0 + (r1 - r0) * (target - a0) / (a1 - a0)
            before = (number, accuracy)
        return None


def known(options: Options) -> dict[tuple[str, float, int, int], Course]:
    """Return the courses of a task that were made."""
    lines = options.courses.read_text().splitlines() if options.courses.exists() else []
    found = [Course(**json.loads(line)) for line in lines]
    return {each.key: each for each in found}


def make(options: Options, wanted: Course) -> Course:
    """Return a course, made by a process of its own with one thread."""
    out, flags = run_of(options, wanted)
    words = train_command({**flags, "out": out, "checkpoint_every": 0})
    done = subprocess.run(
        words, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False
    )
    if done.returncode not in (0, 3):
        raise RuntimeError(f"{' '.join(words)}: {done.stderr[-2000:]}")
    course = as_course(wanted, read_run(out))
    shutil.rmtree(out)
    return course


def as_course(wanted: Course, run: Run) -> Course:
    """Return what is kept of a run."""
    looks = [(row["round"], row["test_accuracy"]) for row in run.rows if row.get("test_accuracy") is not None]
    said, version = run.summary, run.environment["versions"]["torch"]
    return replace(wanted, looks=looks, accuracy=said["test_accuracy"], device=said["device"], torch=version)


def tuning_data(task: Task, folder: Path) -> Path:
    """Return a folder of data to choose by, written once."""
    if not folder.exists():
        aside = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        task.hold_out(Path(task.data[1]), aside)
        aside.replace(folder)
    return folder


def run_of(options: Options, wanted: Course) -> tuple[Path, dict[str, Any]]:
    """Return where the run of a course is made, and its flags."""
    task, steps = TASKS[options.task], wanted.steps
    variant = task.variants[wanted.variant]
    rounds = math.ceil(task.samples[options.workers] / (steps * task.flags["batch_size"]))
    form, place = task.data
    data = f"{form}:{options.tuned_on if wanted.seed == TUNING_SEED else place}"
    flags = {
        **task.flags, **variant.flags_for(options.workers), "data": data, "workers": options.workers, "lr": wanted.rate,
        "local_steps": steps, "seed": wanted.seed, "rounds": rounds, "schedule": "constant",
        "eval_every": max(1, round(rounds / 12)), "executor": "processes" if variant.processes else "serial",
    }  # fmt: skip
    if options.device:
        flags["device"] = options.device
    if variant.alone:
        flags |= {"workers": 1, "batch_size": options.workers * task.flags["batch_size"]}
    name = f"{options.task}-{options.workers}w-{slug(wanted.variant)}-H{steps}-lr{wanted.rate:g}-seed{wanted.seed}"
    return options.work / name, flags


def own(options: Options) -> Iterator[tuple[str, int]]:
    """Return variants that have a course of their own, and local steps to try."""
    task = TASKS[options.task]
    for name, variant in task.variants.items():
        if not variant.as_in and options.only in name:
            yield from ((name, steps) for steps in tried(options, variant))


def tried(options: Options, variant: Variant) -> Sequence[int]:
    """Return the local steps to try; of what communicates in every step how often it is looked at."""
    return [LOOK] if variant.every_step else variant.steps or TASKS[options.task].steps[options.workers]


def tune(options: Options) -> None:
    """Try every rate with every number of local steps."""
    task = TASKS[options.task]
    tuning_data(task, options.tuned_on)
    _all(options, [
        Course(n, rate, steps, TUNING_SEED)
        for n, steps in own(options)
        for rate in task.rates[options.workers]
        if not task.variants[n].rate_of
    ])  # fmt: skip


def seeds(options: Options) -> None:
    """Run each with the local steps that a line chooses, and the rate chosen for them.

    What lacks a measurement to choose by is left out.
    """
    variants = TASKS[options.task].variants
    chosen = set()
    for line in options.lines:
        for name, _ in over(options, line):
            with suppress(Missing):
                chosen.add((variants[name].as_in or name, best_steps(options, line, name)))
    _all(options, [
        Course(name, best_rate(options, name, steps), steps, seed)
        for seed in range(options.seeds)
        for name, steps in own(options)
        if (name, steps) in chosen
    ])  # fmt: skip


def _all(options: Options, wanted: Sequence[Course]) -> None:
    """Make the courses that are missing."""
    there = known(options)
    missing = [each for each in wanted if each.key not in there]
    options.place.mkdir(parents=True, exist_ok=True)
    options.work.mkdir(parents=True, exist_ok=True)
    with (
        options.courses.open("a") as file,
        progress(f"slow_links {options.what}", len(missing)) as advance,
        ProcessPoolExecutor(options.jobs) as pool,
    ):
        for course in pool.map(partial(make, options), missing):
            file.write(json.dumps(asdict(course)) + "\n")
            file.flush()
            advance(1, f"{course.variant}, H {course.steps}")


def best_rate(options: Options, name: str, steps: int) -> float:
    """Return the rate with which the target is reached first; of rates that do not reach it, that which ends best."""
    task, there = TASKS[options.task], known(options)
    name = task.variants[name].rate_of or name
    tried = [each for rate in task.rates[options.workers] if (each := there.get((name, rate, steps, TUNING_SEED)))]

    def how(course: Course) -> tuple[float, float]:
        rounds = course.rounds_to(options.chosen_by)
        return math.inf if rounds is None else rounds, -(course.accuracy or 0.0)

    if not tried:
        raise Missing(f"{options.task}, {options.workers} workers: {name} with {steps} local steps")
    return min(tried, key=how).rate


class Missing(Exception):
    """A course, or what a round takes over a line, has not been made yet; says which."""


def links(options: Options) -> None:
    """Measure rounds over every line: of ``BASE`` steps, or of one where it communicates in every step."""
    plan = [(line, name, steps) for line in options.lines for name, steps in over(options, line) if steps in (1, BASE)]
    with progress("slow_links links", len(plan)) as advance:
        for line, name, steps in plan:
            seconds_of_a_round(options, line, name, steps)
            advance(1, f"{name} at {line}")


def over(options: Options, line: str) -> Iterator[tuple[str, int]]:
    """Return variants and local steps to measure over a line: those that are run in every step, one at a time."""
    task = TASKS[options.task]
    for name, variant in task.variants.items():
        if options.only in name and not (line == SLOWEST and variant.as_in == "DDP"):
            yield from ((name, 1 if variant.every_step else steps) for steps in tried_over(options, variant, line))


def tried_over(options: Options, variant: Variant, line: str) -> Sequence[int]:
    """Return the local steps to try over a line."""
    steps = tried(options, variant)
    return [each for each in steps if each >= BASE] or steps if line == SLOWEST else steps


def seconds_of_a_round(options: Options, line: str, name: str, steps: int) -> dict[str, Any]:
    """Return what a round took over a line, from a file if it was measured: some rounds, without looking on, then
    stopped.

    Raises:
        Missing: it was not, and is not to be now.
    """
    from isthmus.slow import hosts

    task, variant = TASKS[options.task], TASKS[options.task].variants[name]
    kept = options.place / "links" / f"{slug(line)}-{slug(name)}-H{steps}.json"
    out = options.work / f"{options.task}-{options.workers}w-{kept.stem}"
    if kept.exists():
        return dict(json.loads(kept.read_text()))
    if steps not in (1, BASE):
        return with_steps(options, line, name, steps)
    if options.what != "links":
        which = f"a round of {name} with {steps} local steps at {line}"
        raise Missing(f"{options.task}, {options.workers} workers: {which}")
    flags = {
        **task.flags, **variant.flags_for(options.workers), "data": ":".join(task.data), **OVER.get(name, {}),
        "workers": options.workers, "local_steps": steps, "rounds": 10_000, "eval_every": 10_000, "lr": 0.03,
        "checkpoint_every": 0, "schedule": "constant", "join_timeout": 300, "deadline": 600, "out": out,
    }  # fmt: skip
    words = train_command(flags)
    shutil.rmtree(out, ignore_errors=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    kept.parent.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    said = out.parent / f"{out.name}.log"
    with hosts(options.workers, Line.of(LINES[line], LATENCY)) as net, said.open("w") as log:
        people = [net.popen(host, words, stdout=log, stderr=log) for host in range(options.workers)]
        while len(rows) < 2 + options.rounds:
            time.sleep(0.2)
            if any(each.poll() is not None for each in people):
                raise RuntimeError(f"{name} at {line} ended; see {said}")
            before, rows = rows, lines_of(out / "rows.jsonl")
            if len(rows) > len(before):
                wire = [(net.sent(host), net.received(host)) for host in range(options.workers)]
                if len(rows) == 3:
                    first = wire
    timed = rows[2:]  # in the first round much is done for the first time
    spent = [after["seconds"] - earlier["seconds"] for earlier, after in pairwise(rows[1:])]
    both = zip(wire, first, strict=True)
    found = {
        "variant": name, "line": line, "steps": steps, "rounds": len(spent), "seconds": median(spent),
        "spread": (max(spent) - min(spent)) / mean(spent),
        "computing": median(max(row["compute_seconds"]) for row in timed),
        "busiest": median(max(map(sum, zip(row["sent_bytes"], row["received_bytes"], strict=True))) for row in timed),
        "hops": median(max(row["hops"]) for row in timed), "cores": CORES,
        "wire": max((b[0] + b[1] - a[0] - a[1]) / max(1, len(rows) - 3) for b, a in both),
    }  # fmt: skip
    shutil.rmtree(out, ignore_errors=True)
    kept.write_text(json.dumps(found))
    return found


def with_steps(options: Options, line: str, name: str, steps: int) -> dict[str, Any]:
    """Return what a round of other than ``BASE`` steps takes: one of so many, and more or less of its computing."""
    measured = seconds_of_a_round(options, line, name, BASE)
    more = (steps / BASE - 1) * measured["computing"]
    return {
        **measured, "seconds": measured["seconds"] + more, "computing": measured["computing"] + more, "steps": steps,
    }  # fmt: skip


def lines_of(path: Path) -> list[dict[str, Any]]:
    """Return the whole rows of a run that goes on."""
    try:
        return [json.loads(line) for line in path.read_text().splitlines()]
    except (OSError, ValueError):
        return []


@dataclass(frozen=True)
class Finding:
    """One variant over one line.

    Attributes:
        rate, steps: learning rate and local steps that were chosen.
        rounds: to the target, by seed; None where it was not reached.
        round: what was measured of a round.
        accuracy: at the end of the budget, by seed.
        looks: by seed, after how many rounds (steps, where it communicates in every one) it had which accuracy.
    """

    rate: float
    steps: int
    rounds: list[float | None]
    round: dict[str, Any]
    accuracy: list[float]
    looks: list[list[tuple[float, float]]]

    @property
    def seconds(self) -> list[float]:
        """To the target, by seed, of those that reached it."""
        return [rounds * self.round["seconds"] for rounds in self.rounds if rounds is not None]

    def apart(self, workers: int) -> list[float]:
        """Return the same, had every host a core of its own: hosts that share cores compute in turns."""
        turns = max(1.0, workers / self.round.get("cores", 2))
        saved = self.round["computing"] * (1 - 1 / turns)
        return [each * (1 - saved / self.round["seconds"]) for each in self.seconds]


def needed(options: Options, name: str, steps: int, seed: int) -> tuple[float | None, Course]:
    """Return how many rounds (steps, where it communicates in every one) a variant needs to the target, whole ones, and
    its course."""
    variant = TASKS[options.task].variants[name]
    model = variant.as_in or name
    key = (model, best_rate(options, model, steps), steps, seed)
    course = known(options).get(key)
    if course is None:
        raise Missing(f"{options.task}, {options.workers} workers: {model} with {steps} local steps, seed {seed}")
    rounds = course.rounds_to(options.chosen_by if seed == TUNING_SEED else options.to)
    return (None if rounds is None else math.ceil(rounds * (steps if variant.every_step else 1))), course


def best_steps(options: Options, line: str, name: str) -> int:
    """Return the local steps with which the target is reached first over a line."""
    variant = TASKS[options.task].variants[name]

    def time_to(steps: int) -> float:
        rounds = needed(options, name, steps, TUNING_SEED)[0]
        measured = seconds_of_a_round(options, line, name, 1 if variant.every_step else steps)
        return math.inf if rounds is None else rounds * float(measured["seconds"])

    steps = tried_over(options, variant, line)
    return min(steps, key=time_to) if len(steps) > 1 else steps[0]


def found(options: Options, line: str, name: str) -> Finding:
    """Return what is known of a variant over a line, from the seeds that were run.

    Raises:
        Missing: none was.
    """
    variant = TASKS[options.task].variants[name]
    model, steps = variant.as_in or name, best_steps(options, line, name)
    rate, there = best_rate(options, model, steps), known(options)
    wanted = range(options.seeds) or [TUNING_SEED]
    some = [seed for seed in wanted if (model, rate, steps, seed) in there] or wanted[:1]
    runs = [needed(options, name, steps, seed) for seed in some]
    accuracy = [course.accuracy or 0.0 for _, course in runs]
    measured = seconds_of_a_round(options, line, name, 1 if variant.every_step else steps)
    every = steps if variant.every_step else 1
    looks = [[(every * number, value) for number, value in course.looks] for _, course in runs]
    rounds = [each for each, _ in runs]
    return Finding(best_rate(options, model, steps), steps, rounds, measured, accuracy, looks)


def draw(options: Options) -> None:
    """Draw accuracy against seconds, a row a line, a column a number of workers, in the mean over seeds."""
    from matplotlib.figure import Figure

    task = TASKS[options.task]
    folders = sorted(options.folder.glob(f"{options.task}-*w"), key=lambda at: int(at.name.split("-")[1][:-1]))
    counts = [int(at.name.split("-")[1][:-1]) for at in folders if (at / "links").exists()]
    picture = Figure(figsize=(5.6 * len(counts), 3.9 * len(options.lines)), layout="constrained", dpi=110)
    panels = picture.subplots(len(options.lines), len(counts), sharey=True, squeeze=False)
    legend = {}
    for row, line in zip(panels, options.lines, strict=True):
        for panel, workers in zip(row, counts, strict=True):
            here = replace(options, workers=workers)
            for name in dict.fromkeys(name for name, _ in over(here, line)):
                try:
                    one = found(here, line, name)
                except Missing:
                    continue
                variant = task.variants[name]
                if not variant.flags.get("copies", True):  # the same course, a little sooner
                    continue
                times = [one.round["seconds"] * rounds for rounds, _ in one.looks[0]][1:]
                curve = [100 * mean(value for _, value in at) for at in zip(*one.looks, strict=True)][1:]
                look: dict[str, Any] = {"color": variant.color, "lw": 1.6, "marker": ".", "ms": 4}
                legend[name] = panel.plot(times, curve, variant.dashes, **look)[0]
            panel.axhline(100 * options.to, color="#9aa0a6", lw=0.8)
            panel.set_xscale("log")
            panel.set_title(f"{workers} hosts, {line}, {LATENCY} one way", fontsize=10)
            panel.set_ylim(100 * options.to - 4, 100 * options.to + 3.5)
            panel.grid(True, color="#eceef0")
    for panel in panels[-1]:
        panel.set_xlabel("seconds")
    for row in panels:
        row[0].set_ylabel("test accuracy (%)")
    picture.legend(legend.values(), legend.keys(), loc="outside right center", frameon=False)
    options.images.mkdir(parents=True, exist_ok=True)
    picture.savefig(options.images / f"slow-links-{options.task}.png")
    print(options.images / f"slow-links-{options.task}.png")


def show(options: Options) -> None:
    """Print a table for every line."""
    task = TASKS[options.task]
    for line in options.lines:
        results, missing = dict[str, Finding](), []
        for name in dict.fromkeys(name for name, _ in over(options, line)):
            try:
                results[name] = found(options, line, name)
            except Missing:  # no course, or no link measured
                missing.append(name)
        dense = {name: mean(one.seconds) for name, one in results.items() if one.seconds and name in _DENSE}
        print(f"\n### {options.workers} hosts, {line} and {LATENCY} one way, to {100 * options.to:g} %\n")
        print("| | H | rate | steps | a round (s) | computing (s) | MB a round | **to the target (s)** | a core each "
              "(s) | DDP takes | local SGD takes | in the end (%) |")  # fmt: skip
        print("|---|" + "---:|" * 11)
        for name, one in sorted(results.items(), key=lambda pair: mean(pair[1].seconds or [math.inf])):
            every = task.variants[name].every_step
            steps = [rounds * (1 if every else one.steps) for rounds in one.rounds if rounds is not None]
            reached = spread(one.seconds, ",.1f", ",.1f") if one.seconds else "not reached"
            if 0 < len(one.seconds) < len(one.rounds):
                reached += f" ({len(one.seconds)} of {len(one.rounds)})"
            against = [
                f"{dense[other] / mean(one.seconds):.1f}x" if one.seconds and other in dense else ""
                for other in ("DDP", "local SGD")
            ]
            alone = f"{mean(one.apart(options.workers)):.1f}" if one.seconds else ""
            accuracy = spread([100 * each for each in one.accuracy], ".1f", ".1f")
            print(f"| {name} | {1 if every else one.steps} | {one.rate:g} | {mean(steps) if steps else math.nan:.0f} | "
                  f"{one.round['seconds']:.2f} | {one.round['computing']:.2f} | {one.round['busiest'] / 1e6:.2f} | "
                  f"{reached} | {alone} | {against[0]} | {against[1]} | {accuracy} |")  # fmt: skip
        if missing:
            print(f"\nNot made yet: {', '.join(missing)}.")


def spread(values: Sequence[float], middle: str, width: str) -> str:
    """Return the mean over seeds in some format and the standard deviation in another; of one seed only itself."""
    return f"{mean(values):{middle}}" + (f" ± {stdev(values):{width}}" if len(values) > 1 else "")


if __name__ == "__main__":
    chosen = tyro.cli(Options, description=__doc__)
    try:
        {"tune": tune, "links": links, "seeds": seeds, "show": show, "draw": draw}[chosen.what](chosen)
    except Missing as missing:
        sys.exit(f"slow_links: not made yet: {missing}")
