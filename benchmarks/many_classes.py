"""Many classes: the class cut beside its rivals, at equal memory and at equal work per worker.

    python -m benchmarks.many_classes run --packages packages.txt     make the rows that are missing
    python -m benchmarks.many_classes show                            tables as Markdown
    python -m benchmarks.many_classes draw --out docs/images          the figure

Equal memory: every way is given as many hidden units as fit, beside its rows of the last layer, into the parameters
that a worker of `narrow` holds with so many units (``--units``). Equal work: as many as have its operations a step.
Both are measured on one step of two widths, and counted by the run itself. Every way has its own learning rate, the
best of one grid on held-out training data under seed 0. Rows that exist are not made again; each is made in a process
of its own.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache, cached_property, partial
from multiprocessing import connection, get_context
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import tyro
from benchmarks.many_tasks import TASKS, Bag, Files, data_of
from scipy.sparse import csr_array, issparse

from isthmus.data import Dataset
from isthmus.errors import InvalidInput

MIDDLE = 0.01
BATCH, STEPS = 64, 10
EPOCHS = {"under 1": 0.75, "3": 3.0, "16": 16.0}
EQUAL = {"memory": "parameters", "work": "flops"}
NARROW = "narrow"
_PROBED = (8, 24)  # hidden units a worker


@dataclass(frozen=True)
class Way:
    """One way to train.

    Attributes:
        flags: of ``isthmus train``.
        ceiling: whether every worker holds a whole network, as wide as all pieces of ``narrow`` together: not of equal
            cost, but what a cut could reach at best.
        few: whether it is run in the most telling cells alone.
        cut: whether it cuts, so that a cut could be verified.
        whole: whether a worker's body is that of the whole network, so that this is made as wide as a body may be.
        option: the flag of which some values are tried, on held-out data with the middle rate, before all rates are.
        tried: these values, as shares of the classes or of narrow's units.
        of_classes: of which.
        drawn: whether it draws classes, so that it may know how frequent they are.
        several: its flags besides, where a sample has several labels.
    """

    flags: Mapping[str, Any]
    ceiling: bool = False
    few: bool = False
    cut: bool = True
    whole: bool = False
    option: str = ""
    tried: tuple[float, ...] = ()
    of_classes: bool = False
    drawn: bool = False
    several: Mapping[str, Any] = field(default_factory=dict)

    def options(self, classes: int, units: int) -> list[int]:
        """Return the values that are tried; of a way without an option one, which says nothing."""
        return [max(2, round(share * (classes if self.of_classes else units))) for share in self.tried] or [0]

    def flags_of(self, task: str, option: int) -> dict[str, Any]:
        """Return its flags on a task."""
        more = {"frequencies": "zipf"} if self.drawn and TASKS[task].by_frequency else {}
        more |= self.several if TASKS[task].several else {}
        return {**self.flags, **more, **({self.option: option} if self.option else {})}


WAYS = {
    NARROW: Way({"strategy": "narrow"}),
    "narrow, balanced": Way({"strategy": "narrow", "balanced": True}, few=True),
    "block": Way({"strategy": "ist", "law": "block"}),
    "ensemble": Way({"strategy": "ist", "law": "fixed"}),  # only output biases are shared
    "class cut": Way({"strategy": "class-cut"}, several={"gate": "none"}),
    "class cut, 50 buckets": Way({"strategy": "class-cut", "foreign_buckets": 50}, few=True),
    "class cut, gate worker": Way({"strategy": "class-cut", "gate": "worker"}),
    "MACH": Way(
        {"strategy": "mach", "width": 1.0}, whole=True, option="buckets", tried=(1 / 20, 1 / 8, 1 / 3), of_classes=True
    ),
    "factored head": Way(
        {"strategy": "factored", "width": 1.0}, whole=True, option="rank", tried=(1 / 4, 1 / 2, 3 / 4)
    ),
    "output codes": Way({"strategy": "hashed-codes", "bits": 32, "width": 1.0}, whole=True, few=True),
    "sampled softmax": Way({"strategy": "sampled-softmax"}, few=True, drawn=True),
    "sharded softmax": Way({"strategy": "sharded-softmax", "width": 1.0}, whole=True, few=True),
    "local SGD, wide": Way({"strategy": "local-sgd"}, ceiling=True, few=True, cut=False),
}


DRAWN = {
    NARROW: "#555555", "ensemble": "#CC6677", "class cut": "#117733", "class cut, gate worker": "#999933",
    "MACH": "#332288", "factored head": "#882255",
}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One comparison.

    Attributes:
        task: by name.
        classes: V.
        workers: n.
        epochs: by name.
        equal: memory or work.
        seeds: 0, 1, ...
        every: whether all ways are run, or those that stand for their kind.
        longer: times the samples of other cells.
    """

    task: str
    classes: int
    workers: int
    epochs: str
    equal: str = "memory"
    seeds: int = 2
    every: bool = True
    longer: int = 1

    @property
    def name(self) -> str:
        """In tables."""
        epochs = f"{self.epochs} epoch{'s' * (self.epochs != 'under 1')}"
        return f"{TASKS[self.task].label}, V = {self.classes:,}, n = {self.workers}, {epochs}"


CELLS = (
    Cell("spelling", 5000, 8, "under 1", seeds=3),
    Cell("next-word", 5000, 8, "under 1", seeds=3),
    Cell("maintainer", 600, 8, "3", seeds=3),
    Cell("spelling", 5000, 8, "under 1", "work", every=False),
    Cell("next-word", 5000, 8, "under 1", "work", every=False),
    Cell("maintainer", 600, 8, "3", "work", every=False),
    Cell("tags", 600, 8, "3", seeds=3),
    Cell("maintainer", 600, 8, "16", longer=2),
    Cell("maintainer", 600, 2, "3", every=False),
    Cell("maintainer", 600, 4, "3", every=False),
    Cell("rank-9", 2000, 8, "under 1", every=False, longer=2),
    Cell("rank-64", 2000, 8, "under 1", every=False, longer=2),
    Cell("spelling", 5000, 2, "under 1", every=False),
    Cell("spelling", 5000, 4, "under 1", every=False),
    Cell("spelling", 5000, 16, "under 1", every=False),
    Cell("spelling", 600, 8, "under 1", every=False),
    Cell("spelling", 100, 8, "under 1", every=False),
    Cell("spelling", 20000, 8, "under 1", every=False),
    Cell("next-word", 20000, 8, "under 1", every=False),
    Cell("next-word", 5000, 8, "16", every=False),
    Cell("next-word", 5000, 8, "3", every=False),
    Cell("next-word", 600, 8, "under 1", every=False),
    Cell("next-word", 5000, 2, "under 1", every=False),
    Cell("next-word", 5000, 16, "under 1", every=False),
    Cell("spelling", 2000, 8, "16", every=False),
    Cell("maintainer", 100, 8, "3", every=False),
    Cell("rank-64", 2000, 4, "under 1", every=False, longer=2),
)


@dataclass(frozen=True)
class Options:
    """What to do.

    Attributes:
        what: run, show, or draw.
        samples: budget of a run over all workers; less where there are not so many for the epochs.
        units: hidden units of a worker of ``narrow``.
        rates: the learning rates that all ways choose from.
        processes: rows at a time, one thread each.
        minutes: after which no new row is begun.
        only: cells whose name contains this, by a part of it.
        ways: those whose name contains this.
        text, packages: where the real data are; see many_tasks.
        kept: rows that were made before; they are not made again.
        folder: where rows are written, and data are.
        out: where the figure goes.
    """

    what: tyro.conf.Positional[str] = "show"
    samples: int = 240_000
    units: int = 32
    rates: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1)
    processes: int = 1
    minutes: float = float("inf")
    only: str = ""
    ways: str = ""
    text: Path = field(default_factory=lambda: Files().text)
    packages: Path = field(default_factory=lambda: Files().packages)
    kept: Path = Path("docs/measured/classes")
    folder: Path = Path("runs/many-classes")
    out: Path = Path("docs/images")

    @property
    def files(self) -> Files:
        """Where the real data are."""
        return Files(self.text, self.packages)

    @property
    def cells(self) -> list[Cell]:
        """The cells that are chosen."""
        return [cell for cell in CELLS if self.only in f"{cell.name}, equal {cell.equal}"]


@dataclass(frozen=True)
class Row:
    """What one run is to be.

    Attributes:
        task, classes, workers, epochs: of the cell.
        way: by name.
        rate: learning rate.
        seed: of everything random.
        option: the value of the way's option; 0 where it has none.
        units: hidden units of a worker.
        samples: of the run, over all workers; 0 for one step on a few, which tells what a worker holds and does.
    """

    task: str
    classes: int
    workers: int
    epochs: str
    way: str
    rate: float
    seed: int
    option: int
    units: int
    samples: int

    @property
    def key(self) -> str:
        """The same for equal rows."""
        return json.dumps(asdict(self), sort_keys=True)


Known = dict[str, dict[str, Any]]


class Missing(Exception):
    """Something is not known before some rows are there.

    Attributes:
        rows: these.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        super().__init__("rows are missing")
        self.rows = rows


# ------------------------------------------------------------------- one run, in a process of its own


def place_of(cell: Cell | Row, options: Options) -> tuple[Path, int]:
    """Return where the samples of a cell are kept, and how many are wanted to train on, held-out ones included."""
    longer = max((each.longer for each in CELLS if each.task == cell.task), default=1)
    wanted = round(longer * options.samples / EPOCHS[cell.epochs] * 10 / 9)
    return options.folder / "data" / f"{cell.task}-{cell.classes}-{wanted}.npz", wanted


def keep_data(cell: Cell | Row, options: Options) -> None:
    """Make the samples of a cell."""
    path, wanted = place_of(cell, options)
    data, inputs = data_of(cell.task, options.files, cell.classes, wanted)
    assert data.test is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part.npz")
    y, ty = (each.toarray() if issparse(each) else each for each in (data.targets, data.test.targets))
    np.savez(part, x=data.features, y=y, tx=data.test.features, ty=ty, inputs=inputs, classes=data.classes)
    part.replace(path)


def kept_data(cell: Cell | Row, options: Options) -> tuple[Dataset, int]:
    """Return the samples of a cell, and the number of inputs."""
    path = place_of(cell, options)[0]
    with np.load(path) as kept:
        parts = [(kept["x"], kept["y"]), (kept["tx"], kept["ty"])]
        classes, inputs = int(kept["classes"]), int(kept["inputs"])
    train, test = (
        Dataset(path.stem, x, csr_array(y) if y.ndim == 2 else y, classes, x.shape[1:]) for x, y in parts
    )
    return replace(train, test=test), inputs


@cache
def _count(path: Path) -> int:
    with np.load(path) as kept:
        return len(kept["y"])


def made(row: Row, options: Options) -> dict[str, Any]:
    """Make one run and return what is kept of it."""
    import torch

    from isthmus.trainer import train

    torch.set_num_threads(1)
    data, inputs = kept_data(row, options)
    way = WAYS[row.way]
    budget: dict[str, Any] = {"local_steps": STEPS, "samples": row.samples}
    if not row.samples:
        few = min(data.samples, 20 * BATCH * row.workers)
        assert data.test is not None
        data = replace(data.take(np.arange(few)), test=data.test.take(np.arange(min(BATCH, data.test.samples))))
        budget = {"local_steps": 1, "rounds": 1}
    begun = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        run = train(
            data=data, model=partial(Bag, inputs, row.units * (1 if way.whole else row.workers), data.classes),
            example=(torch.zeros(2, data.dim, dtype=torch.int64),), workers=row.workers, seed=row.seed,
            optimizer="adamw", lr=row.rate, batch_size=BATCH, eval_every=10**9, executor="serial", checkpoint_every=0,
            verify=False if way.cut else None, out=Path(folder) / "run", **budget,
            **way.flags_of(row.task, row.option),
        )  # fmt: skip
    assert run is not None
    said = run.summary
    return {
        "status": run.status, "inputs": inputs, "trained": said["samples"],
        "accuracy": said["test_accuracy"], "loss": said["test_loss"], "held_out": said["held_out_accuracy"],
        "parameters": max(said["worker_parameters"]), "memory": max(said["worker_memory_bytes"]),
        "flops": said["flops_per_worker"], "served": said["model_parameters"], "sent": max(said["sent_bytes"]),
        "routed": max(said.get("routed_bytes") or [0]), "own_share": said.get("own_share"),
        "seconds": time.process_time() - begun,
    }  # fmt: skip


# ------------------------------------------------------------------- which runs


def known(options: Options) -> Known:
    """Return the rows that exist by their keys, those of other machines too."""
    paths = [path for folder in (options.kept, options.folder) for path in sorted(folder.glob("*.jsonl"))]
    lines = (line for path in paths for line in path.read_text().splitlines())
    return {row["key"]: row for row in map(json.loads, lines)}


@dataclass(frozen=True, eq=False)
class Course:
    """A way to train in a cell: which rows it is made of, as far as they are known.

    Attributes:
        cell, way: which.
        options: as given.
        rows: that exist.
    """

    cell: Cell
    way: str
    options: Options
    rows: Known

    def _row(self, rate: float, seed: int, option: int, units: int, samples: int, way: str = "") -> Row:
        cell, way = self.cell, way or self.way
        return Row(cell.task, cell.classes, cell.workers, cell.epochs, way, rate, seed, option, units, samples)

    def _found(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        missing = [row for row in rows if row.key not in self.rows]
        if missing:
            raise Missing(missing)
        found = [self.rows[row.key] for row in rows]
        for each in found:
            if each["status"] in ("refused", "failed"):
                raise InvalidInput(each["said"])
        return found

    def _cost(self, way: str, option: int) -> tuple[float, float]:
        """Return what no unit costs a worker, and what each one does."""
        few, many = _PROBED
        rows = [self._row(MIDDLE, 0, option, units, 0, way) for units in _PROBED]
        low, high = (found[EQUAL[self.cell.equal]] for found in self._found(rows))
        each = (high - low) / (many - few)
        return low - few * each, each

    def units(self, option: int) -> int:
        """Return the hidden units of a worker."""
        if self.way == NARROW or WAYS[self.way].ceiling:
            return self.options.units * (self.cell.workers if WAYS[self.way].whole else 1)
        base, each = self._cost(NARROW, 0)
        own, more = self._cost(self.way, option)
        found = math.floor((base + each * self.options.units - own) / more + 1e-6)
        if found < 1:
            raise InvalidInput("its last layer alone is larger than all of narrow")
        return found

    @cached_property
    def samples(self) -> int:
        """Samples of a run; where the data are not here, those of the rows that were made elsewhere."""
        path = place_of(self.cell, self.options)[0]
        if not path.exists():
            cell = (self.cell.task, self.cell.classes, self.cell.workers, self.cell.epochs)
            made = [
                row["samples"] for row in self.rows.values()
                if (row["task"], row["classes"], row["workers"], row["epochs"]) == cell
            ]  # fmt: skip
            if not any(made):
                raise Missing([])
            return int(max(made))
        count = _count(path)
        trained = EPOCHS[self.cell.epochs] * (count - min(2000, count // 10))
        return min(self.cell.longer * self.options.samples, round(trained))

    def _tried(self, pairs: Sequence[tuple[int, float]]) -> tuple[int, float]:
        """Return the best of some options and rates, by held-out accuracy."""
        rows = [self._row(rate, 0, option, self.units(option), self.samples) for option, rate in pairs]
        return max(zip(pairs, self._found(rows), strict=True), key=lambda tried: _held_out(tried[1]))[0]

    def tuned(self) -> tuple[int, float]:
        """Return the option and the rate that were chosen."""
        options = WAYS[self.way].options(self.cell.classes, self.options.units)
        option = self._tried([(each, MIDDLE) for each in options])[0] if len(options) > 1 else options[0]
        return self._tried([(option, rate) for rate in self.options.rates])

    def found(self, seeds: int) -> list[dict[str, Any]]:
        """Return the runs over seeds, with the option and the rate that were chosen."""
        option, rate = self.tuned()
        units = self.units(option)
        return self._found([self._row(rate, seed, option, units, self.samples) for seed in range(seeds)])


def _held_out(row: Mapping[str, Any]) -> float:
    return row["held_out"] if row["status"] == "finished" and row["held_out"] is not None else -1.0


def ways(cell: Cell, options: Options) -> list[str]:
    """Return the ways that are run in a cell."""
    return [name for name, way in WAYS.items() if (cell.every or not way.few) and options.ways in name]


def wanted(options: Options, rows: Known) -> Iterator[Row]:
    """Yield the rows that are missing and can be made now, the most telling first; of a cell without data one."""
    for cell in options.cells:
        if not place_of(cell, options)[0].exists():
            yield Row(cell.task, cell.classes, cell.workers, cell.epochs, "", 0.0, 0, 0, 0, 0)
            continue
        for way in ways(cell, options):
            try:
                Course(cell, way, options, rows).found(cell.seeds)
            except Missing as missing:
                yield from missing.rows
            except InvalidInput:
                continue


# ------------------------------------------------------------------- making them


def run(options: Options) -> None:
    """Make what is missing, so many rows at a time, each in a process that is forked from this one."""
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    from isthmus.nets import trace

    torch.set_num_threads(1)
    trace(Bag(4, 4, 4), (torch.zeros(2, 3, dtype=torch.int64),))
    options.folder.mkdir(parents=True, exist_ok=True)
    rows, until = known(options), time.monotonic() + 60 * options.minutes
    going: dict[Any, Row] = {}
    with (options.folder / f"rows-{os.uname().nodename}-{os.getpid()}.jsonl").open("a") as file:
        while True:
            busy = {row.key for row in going.values()}
            data = {place_of(row, options)[0] for row in going.values() if not row.way}
            for row in wanted(options, rows):
                if len(going) >= options.processes or time.monotonic() > until:
                    break
                if row.key in busy or (not row.way and place_of(row, options)[0] in data):
                    continue
                here, there = get_context("fork").Pipe(duplex=False)
                get_context("fork").Process(target=_make, args=(row, options, there), daemon=True).start()
                there.close()
                going[here] = row
                busy.add(row.key)
                data |= set() if row.way else {place_of(row, options)[0]}
            if not going:
                break
            for ready in connection.wait(list(going), timeout=5.0):
                row = going.pop(ready)
                try:
                    found = ready.recv()
                except EOFError:
                    found = {"status": "failed", "said": "its process ended"}
                rows[row.key] = found = {"key": row.key, **asdict(row), **found}
                if row.way and found["status"] != "failed":  # which is tried again by the next call
                    file.write(json.dumps(found) + "\n")
                    file.flush()
                shown = [found.get(name) for name in ("status", "accuracy", "held_out", "seconds", "said")]
                print(time.strftime("%H:%M:%S"), row.key, *shown, flush=True)


def _make(row: Row, options: Options, there: Any) -> None:
    """Make a row, or the data of its cell, in this process, which says nothing else; send it."""
    for shown in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), shown)
    try:
        if row.way:
            there.send(made(row, options))
        else:
            keep_data(row, options)
            there.send({"status": "data"})
    except InvalidInput as error:
        there.send({"status": "refused", "said": str(error)})
    except Exception:
        there.send({"status": "failed", "said": traceback.format_exc()[-1500:]})


# ------------------------------------------------------------------- what comes of it


def show(options: Options) -> None:
    """Print a table for every cell, and what was not run."""
    rows, undone = known(options), []
    for cell in options.cells:
        lines, left = table(cell, options, rows)
        if lines:
            print(f"\n### {cell.name}, at equal {cell.equal}\n")
            print("\n".join(lines))
        undone += [f"{cell.name}, at equal {cell.equal}: {', '.join(left)}"] if left else []
    print("\nNot run:\n")
    print("\n".join(f"- {each}" for each in undone))


def table(cell: Cell, options: Options, rows: Known) -> tuple[list[str], list[str]]:
    """Return the lines of a cell's table, best first, and the ways that are not in it."""
    found, left, refused = [], [], []
    for way in ways(cell, options):
        course = Course(cell, way, options, rows)
        for seeds in range(cell.seeds, 0, -1):
            try:
                runs = course.found(seeds)
            except Missing:
                continue
            except InvalidInput as error:
                refused.append(f"| {way} | {error} ||||||||||")
                break
            found.append((mean(each["accuracy"] or 0.0 for each in runs), way, runs))
            break
        else:
            left.append(way)
    if not found:
        return [], ["all"]
    heads = ["", "test accuracy (%)", "loss (nats)", "rate", "B or r", "units a worker", "parameters a worker",
             "GFLOP a worker", "sent (MB)", "routed (MB)", "q", "seeds"]  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for accuracy, way, runs in sorted(found, key=lambda each: -each[0]):
        first, losses = runs[0], [each["loss"] for each in runs if each["loss"] is not None]
        shares = "/".join(sorted({f"{each['own_share']:g}" for each in runs if each["own_share"] is not None}))
        spread = stdev(each["accuracy"] or 0.0 for each in runs) if len(runs) > 1 else 0.0
        cells = [
            way, f"{100 * accuracy:.1f} ± {100 * spread:.1f}", f"{mean(losses) if losses else math.nan:.2f}",
            f"{first['rate']:g}", first["option"] or "", first["units"], f"{first['parameters']:,}",
            f"{first['flops'] / 1e9:.1f}", f"{first['sent'] / 1e6:.1f}", f"{first['routed'] / 1e6:.1f}", shares,
            len(runs),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines + refused, left


def wider(row: Mapping[str, Any]) -> float:
    """Return (D + V) / (D + V / n): how many times as wide as narrow a piece of the class cut may be, nearly."""
    classes, inputs = row["classes"], row["inputs"]
    return float((inputs + classes) / (inputs + classes / row["workers"]))


def draw(options: Options) -> None:
    """Draw, over (D + V) / (D + V / n), how wide pieces of the class cut are, and how far each way is from narrow."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    rows, widths = known(options), list[tuple[float, float]]()
    figure = Figure(figsize=(12, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2, 3))
    marks = dict(zip((task.label for task in TASKS.values()), "oDsP^v", strict=True))
    shown = dict[str, str]()
    for cell in options.cells:
        if cell.equal != "memory":
            continue
        accuracies = dict[str, float]()
        for way in DRAWN:
            try:
                runs = Course(cell, way, options, rows).found(1)
            except (Missing, InvalidInput):
                continue
            accuracies[way] = 100 * mean(each["accuracy"] or 0.0 for each in runs)
            where = wider(runs[0])
            if way == "class cut":
                widths.append((where, runs[0]["units"] / options.units))
        label = TASKS[cell.task].label
        if NARROW in accuracies:
            shown[label] = marks[label]
            for way, accuracy in accuracies.items():
                if way != NARROW:
                    right.plot(where, accuracy - accuracies[NARROW], marks[label], color=DRAWN[way], markersize=7)
    left.plot(*zip(*sorted(widths), strict=True), "o", color=DRAWN["class cut"], label="class cut, as fits")
    line = np.array([1.0, max(where for where, _ in widths)])
    left.plot(line, line, color="0.4", linewidth=1, label="(D + V) / (D + V / n)")
    left.set_ylabel("units a worker, times those of narrow")
    left.legend(fontsize=8, frameon=False)
    right.axhline(0.0, color=DRAWN[NARROW], linewidth=1)
    right.set_ylabel("points of test accuracy ahead of narrow")
    keys = [Line2D([], [], marker="s", linestyle="", color=DRAWN[way], label=way) for way in DRAWN if way != NARROW]
    keys += [Line2D([], [], marker=mark, linestyle="", color="0.3", label=label) for label, mark in shown.items()]
    figure.legend(handles=keys, fontsize=8, frameon=False, loc="outside right center")
    for axes in (left, right):
        axes.set_xlabel("(D + V) / (D + V / n)")
    options.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out / "many-classes.png", dpi=110)


if __name__ == "__main__":
    chosen = tyro.cli(Options, description=__doc__)
    {"run": run, "show": show, "draw": draw}[chosen.what](chosen)
