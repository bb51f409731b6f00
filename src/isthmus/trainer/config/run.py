"""A whole run."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from isthmus.data import Dataset
from isthmus.errors import InvalidInput, check_choice, check_integer
from isthmus.strategies import IST, Strategy
from isthmus.trainer.config.evaluation import Evaluation
from isthmus.trainer.config.faults import Faults
from isthmus.trainer.config.model import Own, Perceptron
from isthmus.trainer.config.optimize import SGD, OptimizerChoice
from isthmus.trainer.config.saving import Saving
from isthmus.trainer.config.schedule import Cosine, Schedule
from isthmus.trainer.config.step import Step

EXECUTORS = ("processes", "serial")
WIRES = ("bf16", "fp16")
FEATURES = ("raw", "standardized")


@dataclass(frozen=True, eq=False)
class TrainConfig:
    """One training run. :func:`configure` makes it from the flags of the command line.

    Attributes:
        data: digits, breast-cancer, idx:FOLDER (MNIST format), libsvm:FILE (or FOLDER; sparse features and several
            labels too), text:FILE (next byte), words:FILE (next word), many:CLASSES:RANK (generated), sbm (a graph),
            or python:MODULE:FACTORY (your own); or, from Python,
            an isthmus.data.Dataset, or (train, test): datasets or loaders of PyTorch.
        features: raw (as the data are) or standardized, and the constants are kept with the network; by default a
            perceptron standardizes within itself, and a network of one's own gets the data as they are.
        model: which network.
        init: safetensors files that hold its first weights: one, an index of several, or a folder; by default they are
            drawn.
        cut: axes of it to cut instead of the default (ist and narrow).
        verify: whether its cut is verified before the first round, if it is a network of one's own; by default where
            that is possible and it has at most 100 MB.
        strategy: how it is trained.
        optimizer, schedule, step, evaluation: with what, at which rate, in which steps, and how it is tested.
        saving: when checkpoints are written.
        faults: what it bears, and how long workers wait for each other.
        keep_state: whether momentum or moments stay with a worker from round to round while it holds the same entries,
            or start at zero every round; by default they stay for adamw. They never travel.
        wire: bf16 or fp16: floating-point numbers travel between workers in this type, half the bytes of float32;
            None: in their own.
        overlap: whether what of a round's pieces nobody changes in the round before travels in that one, beside its
            steps; the same bits, sooner.
        workers: number of workers.
        rounds: number of rounds; a round is cut, local steps, merge.
        samples: budget in samples over all workers, instead of rounds; the last round may be shorter.
        local_steps: steps each worker makes in a round.
        seed: of everything random.
        executor: processes (one per worker), or serial (all in one process, in turn: the same bits).
        device: cpu, cuda or cuda:N, which workers may share; by default every worker has a GPU of its own where its
            host has one for each, else the CPU, as all workers of the serial executor.
        out: the run's folder; by default a new one under runs/.
        replace: replace an earlier run in `out`.
        law_reason: why the strategy's law was chosen, if the network's structure chose it.
        resume: go on from the last checkpoint of the run in `out`.

    Raises:
        InvalidInput: a value that breaks its rule.
    """

    data: Any = "digits"
    features: str | None = None
    model: Perceptron | Own = Perceptron()
    init: str | None = None
    cut: tuple[str, ...] | None = None
    verify: bool | None = None
    strategy: Strategy = IST()
    optimizer: OptimizerChoice = SGD()
    schedule: Schedule = Cosine()
    step: Step = Step()
    evaluation: Evaluation = field(default_factory=Evaluation)
    saving: Saving = Saving()
    faults: Faults = field(default_factory=Faults)
    keep_state: bool | None = None
    wire: str | None = None
    overlap: bool = False
    workers: int = 4
    rounds: int = 60
    samples: int | None = None
    local_steps: int = 10
    seed: int = 0
    executor: str = "processes"
    device: str | None = None
    out: Path | None = None
    replace: bool = False
    law_reason: str = ""
    resume: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "cut", self.strategy.check_cut(self.cut))
        object.__setattr__(self, "init", None if self.init is None else str(self.init))
        object.__setattr__(self, "out", None if self.out is None else Path(self.out))
        for name in ("workers", "rounds", "local_steps"):
            check_integer(name, getattr(self, name), at_least=1)
        check_integer("seed", self.seed, at_least=0, at_most=2**64 - 1)
        check_choice("executor", self.executor, EXECUTORS)
        if self.device is not None and not re.fullmatch(r"cpu|cuda(:\d+)?", self.device):
            raise InvalidInput(f"`device` must be cpu, cuda or cuda:N, got {self.device!r}")
        if self.features is not None:
            check_choice("features", self.features, FEATURES)
        check_wire(self.wire, self.workers, self.strategy)
        check_overlap(self.overlap, self.workers, self.strategy)
        if self.overlap and self.executor == "serial":
            raise InvalidInput("`overlap` has no effect with executor 'serial': its workers do one thing at a time")
        least = self.faults.min_workers
        if least is not None and least > self.workers:
            raise InvalidInput(f"`min_workers` must be at most `workers`, {self.workers}, got {least}")
        self.strategy.check_workers(self.workers)
        if self.strategy.processes and self.executor == "serial":
            raise InvalidInput(f"`executor` must be processes with strategy {self.strategy.name!r}, got 'serial'")
        if isinstance(self.model, Perceptron) and self.strategy.dealt is not None:
            self.model.check_cut(self.strategy.dealt, self.workers)
        if self.verify is not None:
            self._check_verify()
        self._check_samples()

    def _check_verify(self) -> None:
        if isinstance(self.model, Perceptron):
            raise InvalidInput("`verify` has no effect without `model`: how the perceptron is cut is known")
        if not self.strategy.cuts:
            raise InvalidInput(f"`verify` has no effect with strategy {self.strategy.name!r}, which cuts nothing")

    def _check_samples(self) -> None:
        if self.samples is None:
            return
        check_integer("samples", self.samples, at_least=1)
        batch = self.step.batch_size
        if self.samples < self.workers * batch:
            raise InvalidInput(
                f"`samples` must allow one step of every worker ({self.workers} workers of {batch} samples), "
                f"got {self.samples}"
            )

    @property
    def peak_lr(self) -> float:
        """The peak learning rate: that of the optimizer, or one that suits optimizer and strategy."""
        default = self.strategy.lr if self.optimizer.rate is None else self.optimizer.rate
        return default if self.optimizer.lr is None else self.optimizer.lr

    @property
    def keeps_state(self) -> bool:
        """Whether the optimizer's state outlives a round."""
        return self.optimizer.keeps_state if self.keep_state is None else self.keep_state

    @property
    def standardizes(self) -> bool:
        """Whether features are standardized."""
        return isinstance(self.model, Perceptron) if self.features is None else self.features == "standardized"

    @property
    def steps(self) -> int:
        """Steps each worker makes in the whole run."""
        if self.samples is None:
            return self.rounds * self.local_steps
        return self.samples // (self.workers * self.step.batch_size)

    @property
    def steps_by_round(self) -> Sequence[range]:
        """The global steps of every round; the last may be shorter, and is merged like any other."""
        starts = range(0, self.steps, self.local_steps)
        return [range(start, min(start + self.local_steps, self.steps)) for start in starts]

    def lr_at(self, step: int) -> float:
        """Return the learning rate of a global step."""
        return self.peak_lr * self.schedule.share(step, self.steps)

    def evaluated(self, round: int) -> bool:
        """Whether to evaluate after this round; always before the first and after the last."""
        last = -(-self.steps // self.local_steps)
        every = self.evaluation.every or max(1, last // 20)
        return round % every == 0 or round == last

    @property
    def data_shown(self) -> str:
        """What to call the data."""
        if isinstance(self.data, Dataset):
            return self.data.name
        return self.data if isinstance(self.data, str) else "own data"

    @property
    def tabular(self) -> bool:
        """Whether the data are arrays of samples, named or given, and no datasets of PyTorch."""
        return isinstance(self.data, str | Dataset)

    @property
    def name(self) -> str:
        """A name for the run: the data, the strategy and what sets it apart."""
        kind, _, place = self.data_shown.partition(":")
        parts = ["train", Path(place).stem if place else kind.replace(" ", "-"), self.strategy.slug]
        if isinstance(self.model, Own):
            parts.insert(2, self.model.shown.rpartition(":")[2])
        return "-".join([*parts, f"{self.workers}w", f"seed{self.seed}"])


def check_wire(wire: str | None, workers: int, strategy: Strategy) -> None:
    """Refuse an unknown type of number to travel in, or one where nothing travels, or not by our means.

    Raises:
        InvalidInput: either.
    """
    if wire is None:
        return
    check_choice("wire", wire, WIRES)
    if workers == 1:
        raise InvalidInput("`wire` has no effect with one worker: nothing travels")
    if not strategy.travels:
        raise InvalidInput(f"`wire` has no effect with strategy {strategy.name!r}: nothing travels while it trains")
    if not strategy.shortens:
        raise InvalidInput(f"`wire` has no effect with strategy {strategy.name!r}: a number a sample travels as it is")
    if strategy.processes:
        hint = ": `hook` fp16 halves its bytes" if hasattr(strategy, "hook") else ""
        raise InvalidInput(f"`wire` has no effect with strategy {strategy.name!r}, where torch does the sending{hint}")


def check_overlap(overlap: bool, workers: int, strategy: Strategy) -> None:
    """Refuse to send ahead where nothing can be.

    Raises:
        InvalidInput: it would have no effect.
    """
    if overlap and workers == 1:
        raise InvalidInput("`overlap` has no effect with one worker: nothing travels")
    if overlap and not strategy.sends_pieces:
        why = "all that travels changes until it does"
        raise InvalidInput(f"`overlap` has no effect with strategy {strategy.name!r}: {why}")


def under_torchrun() -> bool:
    """Whether torchrun started this process as one of its workers."""
    return {"RANK", "WORLD_SIZE"} <= set(os.environ)
