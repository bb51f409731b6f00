"""Train a network by IST or a rival over real processes; the run goes to a folder that `isthmus report` reads."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import tyro
from rich.console import Console
from rich.table import Table

from isthmus.cli import status
from isthmus.cli.flag import flag as _flag
from isthmus.errors import WorkerError
from isthmus.line import Line
from isthmus.partitions import LAWS
from isthmus.partitions.classes import GATES
from isthmus.partitions.groups import GROUPS
from isthmus.records import Run
from isthmus.strategies import DDP, STRATEGIES, ClassCut, DiLoCo, HashedCodes, Mach, PostLocalSGD, SampledSoftmax
from isthmus.strategies.ddp import HOOKS
from isthmus.strategies.sampled_softmax import FREQUENCIES
from isthmus.trainer import TrainConfig, train
from isthmus.trainer.config import OPTIMIZERS, SCHEDULES, SGD, AdamW, Perceptron, Step
from isthmus.trainer.config.evaluation import SCALES
from isthmus.trainer.config.model import ACTIVATIONS, NORMS
from isthmus.trainer.config.run import EXECUTORS, FEATURES, WIRES, under_torchrun
from isthmus.trainer.config.schedule import Schedule
from isthmus.trainer.config.step import AUTOCAST

_POWERSGD = DDP("powersgd")
_FEW = 3
_RUN, _STEP, _WIDTHS = TrainConfig(), Step(), " ".join(map(str, Perceptron().widths))


@dataclass(frozen=True)
class Data:
    """What to train on.

    Attributes:
        data: digits, breast-cancer, idx:FOLDER (MNIST format), libsvm:FILE (or FOLDER; sparse features and several
            labels too), text:FILE (next byte), words:FILE (next word), many:CLASSES:RANK (generated), sbm (a graph),
            or python:MODULE:FACTORY (your own).
        features: as the data are, or standardized; then the constants are kept with the network. A perceptron
            standardizes within itself.
    """

    data: Annotated[str | None, _flag(_RUN.data, "NAME")] = None
    features: Annotated[str | None, _flag("raw; standardized for the perceptron", *FEATURES)] = None


@dataclass(frozen=True)
class Network:
    """Which network.

    Attributes:
        model: a function that returns (network, args) or (network, args, kwargs) with an example call; without it a
            multilayer perceptron is trained.
        init: safetensors files that hold its first weights: one, an index of several (JSON), or a folder.
        widths: units of each hidden layer of the perceptron.
        activation: of the perceptron.
        norm: of the perceptron.
    """

    model: Annotated[str | None, _flag("a perceptron", "MODULE:FACTORY")] = None
    init: Annotated[str | None, _flag("weights are drawn", "FILE")] = None
    widths: Annotated[tuple[int, ...] | None, _flag(_WIDTHS, "INT ...")] = None
    activation: Annotated[str | None, _flag(Perceptron().activation, *ACTIVATIONS)] = None
    norm: Annotated[str | None, _flag(Perceptron().norm, *NORMS)] = None


@dataclass(frozen=True)
class Dealing:
    """How it is trained by several workers.

    Attributes:
        strategy: how the network is trained: IST, or a rival.
        law: how units are dealt to workers (ist; of narrow it sets the width); auto: what was measured best for
            networks of this structure; or one for each kind of axis.
        core: fraction of the units of every cut axis that all workers hold (ist, narrow).
        capacities: relative speed of each worker, or auto: measured in the first rounds (law weighted).
        minimum: units of every axis a worker holds at least; of residual blocks the least depth (law overlapping).
        cut: axes to cut instead of the default: kinds (hidden channel head ffn stream block), names or patterns, as
            `isthmus inspect` shows them (ist, narrow).
        verify: whether the cut of the network of `model` is verified before the first round, and the run refused where
            a piece or what is merged differs from the masked whole (ist, narrow).
        scale: evaluation scale of weights with cut inputs: expected (the probability that a unit is held), none, or
            readout (expected, times the best factor on training data held out) (ist).
    """

    strategy: Annotated[str | None, _flag("ist", *STRATEGIES)] = None
    law: Annotated[str | None, _flag("auto", "auto", *LAWS, "MODULE:CLASS", "KIND=LAW,...")] = None
    core: Annotated[float | None, _flag(0, "FRACTION")] = None
    capacities: Annotated[tuple[float, ...] | Literal["auto"] | None, _flag("none", "FLOAT ... | auto")] = None
    minimum: Annotated[int | None, _flag("none", "INT")] = None
    cut: Annotated[tuple[str, ...] | None, _flag("as `isthmus inspect` shows", "AXIS ...")] = None
    verify: Annotated[bool | None, _flag("where it can be, up to 100 MB", "{True,False}")] = None
    scale: Annotated[str | None, _flag("expected", *SCALES)] = None


@dataclass(frozen=True)
class ByClass:
    """Of the cut of the classes alone (class-cut).

    Attributes:
        gate: what stands for the classes that a worker does not own: one unit for all of them, a worker that learns
            whose a sample is, or nothing (several labels a sample).
        own_share: share of every batch that is drawn from a worker's own classes, or auto: the best of .5, .75 and .9
            on held-out data, after a tenth of the rounds with each.
        groups: how classes are put together: by chance, or those whose training samples have like inputs.
        foreign_buckets: units over which the classes of other workers are spread, instead of one for all.
        owners: workers that own each class; with one, a lost worker's classes are lost with it.
    """

    gate: Annotated[str | None, _flag(ClassCut().gate, *GATES)] = None
    own_share: Annotated[float | Literal["auto"] | None, _flag("auto", "FRACTION | auto")] = None
    groups: Annotated[str | None, _flag(ClassCut().grouping.name, *GROUPS)] = None
    foreign_buckets: Annotated[int | None, _flag("one unit for all", "INT")] = None
    owners: Annotated[int | None, _flag(ClassCut().owners, "INT")] = None


@dataclass(frozen=True)
class Rivals:
    """Of one rival alone.

    Attributes:
        buckets: that classes are hashed into in a table, or auto: as many as there is room for beside a given width,
            else a quarter of the classes (mach).
        tables: of buckets that each worker learns (mach).
        bits: of the classes' code that each worker foretells (hashed-codes).
        rank: of the last layer, or auto: as large as there is room for beside a given width, else half the columns of
            narrow's last layer (factored).
        negatives: classes that are drawn for a step, beside the right ones, or auto: a tenth (sampled-softmax).
        frequencies: how likely each is drawn: even, or zipf, for classes numbered by frequency (sampled-softmax).
        width: share of the hidden units that a worker's network has, or memory: as many as there is room for in the
            memory of narrow (mach, hashed-codes, factored, sharded-softmax).
        balanced: whether all classes are as frequent in batches, whatever they are in the data (narrow).
        outer_lr: rate of the step that is made with the mean of what the workers have changed (diloco).
        outer_momentum: of that step, Nesterov's (diloco).
        fragments: parts that the network is averaged in, one after each round, in turn (diloco).
        hook: how gradients travel: as they are, as fp16, or as the thin factors of PowerSGD (ddp).
        powersgd_rank: columns of these factors.
        powersgd_start: steps before PowerSGD, in which gradients travel as they are.
        start: steps in which gradients are averaged before workers go on alone (post-local-sgd).
    """

    buckets: Annotated[int | Literal["auto"] | None, _flag("auto", "INT | auto")] = None
    tables: Annotated[int | None, _flag(Mach().tables, "INT")] = None
    bits: Annotated[int | None, _flag(HashedCodes().bits, "INT")] = None
    rank: Annotated[int | Literal["auto"] | None, _flag("auto", "INT | auto")] = None
    negatives: Annotated[int | Literal["auto"] | None, _flag("auto", "INT | auto")] = None
    frequencies: Annotated[str | None, _flag(SampledSoftmax().frequencies, *FREQUENCIES)] = None
    width: Annotated[float | Literal["memory"] | None, _flag("memory", "FRACTION | memory")] = None
    balanced: Annotated[bool | None, _flag("False", "{True,False}")] = None
    outer_lr: Annotated[float | None, _flag(DiLoCo.outer_lr, "FLOAT")] = None
    outer_momentum: Annotated[float | None, _flag(DiLoCo.outer_momentum, "FLOAT")] = None
    fragments: Annotated[int | None, _flag(DiLoCo.fragments, "INT")] = None
    hook: Annotated[str | None, _flag(DDP().hook, *HOOKS)] = None
    powersgd_rank: Annotated[int | None, _flag(_POWERSGD.powersgd_rank, "INT")] = None
    powersgd_start: Annotated[int | None, _flag(_POWERSGD.powersgd_start, "INT")] = None
    start: Annotated[int | None, _flag(PostLocalSGD().start, "INT")] = None


@dataclass(frozen=True)
class Steps:
    """What a step is.

    Attributes:
        optimizer: SGD with Nesterov momentum, or AdamW with decay rates 0.9 and 0.999.
        lr: peak learning rate.
        momentum: of sgd.
        weight_decay: L2 for sgd, decoupled for adamw.
        keep_state: whether momentum or moments stay with a worker from round to round while it holds the same entries,
            or start at zero every round; they never travel.
        schedule: how the learning rate goes after the warm-up.
        warmup: fraction of all steps in which the learning rate rises.
        batch_size: samples of one step of one worker.
        accumulate: passes that a step's samples go through the network in.
        clip: largest norm of a step's gradient; a larger one is shortened to it.
        autocast: type of number for matrix products.
    """

    optimizer: Annotated[str | None, _flag("sgd", *OPTIMIZERS)] = None
    lr: Annotated[float | None, _flag(f"{AdamW.rate:g} of adamw; of sgd one that suits the strategy", "FLOAT")] = None
    momentum: Annotated[float | None, _flag(SGD().momentum, "FLOAT")] = None
    weight_decay: Annotated[float | None, _flag(0, "FLOAT")] = None
    keep_state: Annotated[bool | None, _flag("only of adamw", "{True,False}")] = None
    schedule: Annotated[str | None, _flag(_RUN.schedule.name, *SCHEDULES)] = None
    warmup: Annotated[float | None, _flag(Schedule().warmup, "FRACTION")] = None
    batch_size: Annotated[int | None, _flag(_STEP.batch_size, "INT")] = None
    accumulate: Annotated[int | None, _flag(_STEP.accumulate, "INT")] = None
    clip: Annotated[float | None, _flag("none", "FLOAT")] = None
    autocast: Annotated[str | None, _flag("none", *AUTOCAST)] = None


@dataclass(frozen=True)
class Testing:
    """What it is trained and tested by.

    Attributes:
        loss: a function that returns loss(output, targets) -> mean over the batch.
        metric: a function that returns metric(outputs, targets) -> number over the whole test part.
        eval_every: rounds between evaluations.
    """

    loss: Annotated[str | None, _flag("cross-entropy, or the network's own", "MODULE:FACTORY")] = None
    metric: Annotated[str | None, _flag("accuracy", "MODULE:FACTORY")] = None
    eval_every: Annotated[int | None, _flag("about 20 in a run", "INT")] = None


@dataclass(frozen=True)
class Running:
    """The run.

    Attributes:
        wire: type in which floating-point numbers travel between workers, half the bytes of float32: weights are sent
            rounded, and changes of them come back rounded.
        overlap: whether what of a round's pieces nobody changes in the round before is sent in that one, beside its
            steps: the same bits, sooner, for more memory.
        workers: number of workers.
        rounds: number of rounds; a round is cut, local steps, merge.
        samples: budget in samples over all workers, instead of rounds; the last round may be shorter.
        local_steps: steps each worker makes in a round.
        seed: of everything random.
        executor: one process a worker, or all in one process, in turn: the same bits.
        device: where to compute: cpu, cuda or cuda:N, which workers may share.
        checkpoint_every: rounds between checkpoints, from which a run can go on; 0 for none.
        keep_checkpoints: how many of them are left, the last ones.
        resume: the folder of an earlier run, to go on from its last checkpoint; its flags need not be given again.
        out: the run's folder.
        replace: replace an earlier run in `out`.
        json: print the summary as JSON.
    """

    wire: Annotated[str | None, _flag("as they are", *WIRES)] = None
    overlap: Annotated[bool | None, _flag("False", "{True,False}")] = None
    workers: Annotated[int | None, _flag(_RUN.workers, "INT")] = None
    rounds: Annotated[int | None, _flag(_RUN.rounds, "INT")] = None
    samples: Annotated[int | None, _flag("none", "INT")] = None
    local_steps: Annotated[int | None, _flag(_RUN.local_steps, "INT")] = None
    seed: Annotated[int | None, _flag(_RUN.seed, "INT")] = None
    executor: Annotated[str | None, _flag(_RUN.executor, *EXECUTORS)] = None
    device: Annotated[str | None, _flag("a GPU of its own where there is one a worker", "DEVICE")] = None
    checkpoint_every: Annotated[int | None, _flag("about two minutes of work", "INT")] = None
    keep_checkpoints: Annotated[int | None, _flag(_RUN.saving.keep, "INT")] = None
    resume: Annotated[Path | None, _flag("none", "RUN")] = None
    out: Annotated[Path | None, _flag("a new one under runs/", "FOLDER")] = None
    replace: bool = False
    json: bool = False


@dataclass(frozen=True)
class Trouble:
    """When workers die, freeze or do not come.

    Attributes:
        min_workers: how many workers must be left for the run to go on; with fewer it stops, with a checkpoint.
        deadline: seconds that the others wait for a silent worker before they go on without it.
        join_timeout: seconds that workers wait for each other at the start.
        copies: whether every worker keeps a copy of its neighbour's rows of the network, so that a worker's death costs
            no more than the round it was in.
        spare: a folder for rows and checkpoints when the run's own cannot be written.
    """

    min_workers: Annotated[int | None, _flag("half of them", "INT")] = None
    deadline: Annotated[float | None, _flag("10 times the longest round, at least 30", "SECONDS")] = None
    join_timeout: Annotated[float | None, _flag(f"{_RUN.faults.join_timeout:g}", "SECONDS")] = None
    copies: Annotated[bool | None, _flag("True", "{True,False}")] = None
    spare: Annotated[Path | None, _flag("none", "FOLDER")] = None


@dataclass(frozen=True)
class Options:
    """The flags of `isthmus train`."""

    data: tyro.conf.OmitArgPrefixes[Data] = Data()
    network: tyro.conf.OmitArgPrefixes[Network] = Network()
    dealing: tyro.conf.OmitArgPrefixes[Dealing] = Dealing()
    by_class: tyro.conf.OmitArgPrefixes[ByClass] = ByClass()
    rivals: tyro.conf.OmitArgPrefixes[Rivals] = Rivals()
    steps: tyro.conf.OmitArgPrefixes[Steps] = Steps()
    testing: tyro.conf.OmitArgPrefixes[Testing] = Testing()
    running: tyro.conf.OmitArgPrefixes[Running] = Running()
    trouble: tyro.conf.OmitArgPrefixes[Trouble] = Trouble()

    def flags(self) -> dict[str, Any]:
        """Return what was given, and None for the rest, by the names of ``isthmus.trainer.configure``."""
        groups = (
            self.data, self.network, self.dealing, self.by_class, self.rivals, self.steps, self.testing, self.running,
            self.trouble,
        )  # fmt: skip
        values = {field.name: getattr(group, field.name) for group in groups for field in dataclasses.fields(group)}
        return {name: value for name, value in values.items() if name not in ("json", "resume")}


def run(options: Options, command: list[str]) -> None:
    """Train, then print the table, or the summary as JSON; a failed worker is one line. Exit codes: ``cli.status``."""
    if under_torchrun():
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")  # read when torch is loaded; what matters, we say
    try:
        done = train(None, command, options.running.resume, **options.flags())
    except WorkerError as error:
        status.say(error)
        raise SystemExit(status.WORKER_FAILED) from None
    if done is not None:  # worker 0; other workers under torchrun have nothing to show
        _show(done, options.running.json)
    if under_torchrun():
        _leave()
    if done is not None:
        status.exit_unless_fine(done.status)


def _leave() -> NoReturn:
    """End this process here, its work done and written, without taking the interpreter apart.

    A thread of the process group that wakes up while Python shuts down is unwound through C++ that must not be: about
    one torchrun worker in a hundred was aborted so (SIGABRT, "terminate called without an active exception"), and
    torchrun then failed the whole run. (A run that diverged ends with 0 here, as torchrun makes an error of its own of
    any other code; the summary says it.) Workers that isthmus starts itself end in this way too, as all processes of
    multiprocessing do.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _show(run: Run, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"run": str(run.path), **run.summary}, indent=2))
    else:
        Console().print(table(run))


def table(run: Run) -> Table:
    """Return the result of a run as a table for people."""
    config, summary = run.config, run.summary
    law = f", law {config['law']}" if config["law"] else ""
    core = f", core {config['core']:g}" if config["core"] else ""
    model = f"{config['model']} on " if config["model"] else ""
    title = f"{model}{config['data']}: {config['strategy']}{law}{core}, {config['workers']} workers"
    shown = Table(title=title, show_header=False)
    for name, value in _lines(run, summary):
        shown.add_row(name, value)
    return shown


def _few_axes(whole: dict[str, str]) -> str:
    first = [f"{name} ({why})" for name, why in list(whole.items())[:_FEW]]
    return "; ".join([*first, *([f"and {len(whole) - _FEW} more"] if len(whole) > _FEW else [])])


def _lines(run: Run, summary: dict[str, Any]) -> list[tuple[str, str]]:
    model, held = summary["model_parameters"], summary["worker_parameters"]
    search = summary["line_search"]
    scale = f"{summary['eval_scale']:.3g}"
    if len(search["losses"]) > 1:
        scale += f" (times {search['best_factor']:.3g}, the best on held-out data)"
    first = [word for word in ("sent", "received") if any(run.rows[0][f"{word}_bytes"])]
    return [
        ("status", summary["status"]),
        *([("law", f"{run.config['law']}: {run.config['law_reason']}")] if run.config.get("law_reason") else []),
        ("test accuracy", _percent(summary["test_accuracy"])),
        ("test loss", "not finite" if summary["test_loss"] is None else f"{summary['test_loss']:.4f}"),
        *([] if summary["test_metric"] is None else [("test metric", f"{summary['test_metric']:.4g}")]),
        ("rounds, samples", f"{summary['rounds']}, {summary['samples']:,}"),
        ("peak learning rate", f"{run.config['lr']:g}"),
        ("parameters of the model", f"{model:,}"),
        ("of a worker (most)", f"{max(held):,} ({max(held) / model:.1%})"),
        *((("left whole", _few_axes(summary["whole_axes"])),) if summary.get("whole_axes") else ()),
        *((f"{word} before the first round", _by_worker(run.rows[:1], f"{word}_bytes")) for word in first),
        *_by_class(summary),
        *_by_speed(summary),
        ("sent a round, by worker", _by_worker(run.rows[1:], "sent_bytes")),
        ("received a round, by worker", _by_worker(run.rows[1:], "received_bytes")),
        *_planned(run, summary),
        ("evaluation scale", scale),
        (
            "seconds",
            f"{summary['seconds']:.1f} (computing {max(summary['compute_seconds']):.1f}, "
            f"communicating {max(summary['communicate_seconds']):.1f})",
        ),
        ("run", str(run.path)),
    ]


def _by_class(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what is to be said of a cut of the classes."""
    if "routed_bytes" not in summary:
        return []
    times, share = summary["model_parameters"] / max(summary["worker_parameters"]), summary.get("own_share")
    return [
        *([("share of a batch from own classes", f"{share:g}")] if share else []),
        ("samples routed once, by worker", ", ".join(map(_bytes, summary["routed_bytes"]))),
        ("to serve the merged network", f"{times:.3g} times one piece"),
    ]


def _by_speed(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the capacities that were measured."""
    found = summary.get("capacities")
    return [("capacities as measured, by worker", ", ".join(f"{each:g}" for each in found))] if found else []


def _planned(run: Run, summary: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what was planned beside what was measured, of the worker for which it is most."""
    plan, rows = summary["planned"], run.rows[2:] or run.rows[1:]  # in the first round nothing has stayed with workers
    peaks = [each for each in summary["measured_peak_bytes"] if each]
    beside = "of the GPU" if summary["device"] == "cuda" else "with what libraries have loaded"
    most = f"{_bytes(max(peaks))} {beside}" if peaks else "unknown"
    found = [("memory", f"{_bytes(max(plan['memory_bytes']))} | {most}")]
    for word in ("sent", "received"):
        measured = max(_means(rows, f"{word}_bytes"), default=0.0)
        found.append((f"{word} a round", f"{_bytes(max(plan[f'round_{word}_bytes']))} | {_bytes(measured)}"))
    seconds = [max(map(sum, zip(row["compute_seconds"], row["communicate_seconds"], strict=True))) for row in rows]
    planned = "unknown" if plan["round_seconds"] is None else f"{plan['round_seconds']:.3g} s"
    over = "" if plan["line"] is None else f" over {Line.read(plan['line']).shown}"
    found.append((f"seconds a round{over}", f"{planned} | {sum(seconds) / max(1, len(seconds)):.3g} s"))
    return [(f"planned | measured: {name} (most)", value) for name, value in found]


def _by_worker(rows: Sequence[dict[str, Any]], column: str) -> str:
    """Return the mean over rows of the bytes of each worker."""
    return ", ".join(map(_bytes, _means(rows, column)))


def _means(rows: Sequence[dict[str, Any]], column: str) -> list[float]:
    """Return the mean over rows of each worker's number."""
    last = len(rows[-1][column])  # workers; a run may have gone on with more or fewer
    alike = [row[column] for row in rows if len(row[column]) == last]
    return [sum(each) / len(each) for each in zip(*alike, strict=True)]


def _percent(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2%}"


def _bytes(count: float) -> str:
    """Return a number of bytes in decimal units, as network rates are given."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
