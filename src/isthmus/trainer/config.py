"""What to train and how; validated on construction, without PyTorch."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from functools import cached_property
from math import cos, pi
from pathlib import Path
from typing import Any

from isthmus.errors import InvalidInput, check_choice, check_integer, check_number
from isthmus.partitions import LAWS, Law, law_of

STRATEGIES = ("ist", "local-sgd", "narrow", "data-parallel")
EXECUTORS = ("processes", "serial")
SCALES = ("expected", "none", "readout")
OPTIMIZERS = ("sgd", "adamw")
# Measured on digits and Fashion-MNIST. Momentum that starts anew every round moves less: three times more there.
LEARNING_RATES = {"ist": 0.3, "local-sgd": 0.3, "narrow": 0.3, "data-parallel": 0.1}
ADAMW_RATE = 1e-3


@dataclass(frozen=True)
class TrainConfig:
    """One training run.

    Attributes:
        data: digits, breast-cancer, idx:FOLDER (MNIST format), libsvm:FILE, text:FILE (next byte), sbm (a graph), or
            python:MODULE:FACTORY (your own).
        model: MODULE:FACTORY, a function that returns (network, args) or (network, args, kwargs) with an example call;
            by default a multilayer perceptron of `widths`.
        cut: axes of the model to cut instead of the default: kinds (hidden channel head ffn stream block), names or
            patterns, as `isthmus inspect` shows them (ist and narrow).
        strategy: ist, or a rival: local-sgd (dense, averaged every round), narrow (local SGD on a dense net of the
            subnetwork's width) or data-parallel (gradients averaged every step).
        law: how ist deals units to workers: uniform (new every round), fixed, rotated (fixed pieces, passed on one
            worker a round), block (rotated, with the weights between pieces zero and their outputs averaged), rolling
            (fixed pieces, the axes rotated against each other), weighted (by `capacities`), overlapping (at least
            `minimum` units each) or MODULE:CLASS (your own).
        core: fraction of the units of every cut axis that all workers hold and average (ist and narrow).
        capacities: relative speed of each worker, for law weighted.
        minimum: units of every axis a worker holds at least, for law overlapping (residual blocks: the least depth).
        workers: number of workers.
        rounds: number of rounds; a round is cut, local steps, merge.
        samples: budget in samples over all workers, instead of rounds; the last round may be shorter.
        local_steps: steps each worker makes in a round.
        batch_size: samples of one step of one worker.
        lr: peak learning rate; by default one that suits the strategy.
        widths: units of each hidden layer of the perceptron.
        activation: of the perceptron: relu, gelu or tanh.
        norm: of the perceptron: batch (batch norm) or none.
        optimizer: sgd (Nesterov momentum) or adamw (decay rates 0.9 and 0.999).
        momentum: of sgd.
        keep_state: whether momentum or moments stay with a worker from round to round while it holds the same units
            (ist: law fixed only), or start at zero every round; by default they stay for adamw. They never travel.
        weight_decay: penalty on what a worker holds (L2 for sgd, decoupled for adamw).
        clip: largest norm of a step's gradient; a larger one is shortened to it.
        warmup: fraction of all steps in which the learning rate rises; after it, it falls by a cosine to zero.
        scale: evaluation scale of weights with cut inputs: expected (the probability that a unit is held), none, or
            readout (expected, times the best factor on training data held out).
        seed: of everything random.
        executor: processes (one per worker), or serial (all in one process, in turn: the same bits).
        eval_every: rounds between evaluations; by default about 20 in a run.
        out: the run's folder; by default a new one under runs/.
        replace: replace an earlier run in `out`.

    Raises:
        InvalidInput: a value that breaks its rule.
    """

    data: str = "digits"
    model: str | None = None
    cut: tuple[str, ...] | None = None
    strategy: str = "ist"
    law: str = "block"
    core: float = 0.0
    capacities: tuple[float, ...] | None = None
    minimum: int = 1
    workers: int = 4
    rounds: int = 60
    samples: int | None = None
    local_steps: int = 10
    batch_size: int = 32
    lr: float | None = None
    widths: tuple[int, ...] = (256, 256)
    activation: str = "relu"
    norm: str = "batch"
    optimizer: str = "sgd"
    momentum: float = 0.9
    keep_state: bool | None = None
    weight_decay: float = 0.0
    clip: float | None = None
    warmup: float = 0.05
    scale: str = "expected"
    seed: int = 0
    executor: str = "processes"
    eval_every: int | None = None
    out: Path | None = None
    replace: bool = False

    def __post_init__(self) -> None:
        for name in ("widths", "cut", "capacities"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else tuple(value))
        object.__setattr__(self, "out", None if self.out is None else Path(self.out))
        check_choice("strategy", self.strategy, STRATEGIES)
        check_choice("scale", self.scale, SCALES)
        check_choice("executor", self.executor, EXECUTORS)
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        check_choice("activation", self.activation, ("relu", "gelu", "tanh"))
        check_choice("norm", self.norm, ("batch", "none"))
        for name in ("workers", "rounds", "local_steps", "batch_size"):
            check_integer(name, getattr(self, name), at_least=1)
        check_integer("seed", self.seed, at_least=0, at_most=2**64 - 1)
        check_integer("minimum", self.minimum, at_least=1)
        self.dealing.check(self.workers)
        check_number("momentum", self.momentum, at_least=0.0, below=1.0)
        check_number("weight_decay", self.weight_decay, at_least=0.0)
        check_number("warmup", self.warmup, at_least=0.0, at_most=1.0)
        for name in ("lr", "clip"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), above=0.0)
        if self.eval_every is not None:
            check_integer("eval_every", self.eval_every, at_least=1)
        self._check_widths()
        self._check_samples()

    def _check_widths(self) -> None:
        if not self.widths:
            raise InvalidInput("`widths` must name at least one hidden layer, got none")
        for width in self.widths:
            check_integer("widths", width, at_least=1)
        needs_units = self.model is None and self.cuts and self.core < 1 and not self.dealing.few_units
        for width in self.widths if needs_units else ():
            to_deal = width - round(self.core * width)
            if self.workers > to_deal:
                raise InvalidInput(
                    f"`workers` must be at most the {to_deal} units dealt out of the hidden layer of {width}, "
                    f"got {self.workers}: a worker would hold nothing"
                )

    def _check_samples(self) -> None:
        if self.samples is None:
            return
        check_integer("samples", self.samples, at_least=1)
        if self.samples < self.workers * self.batch_size:
            raise InvalidInput(
                f"`samples` must allow one step of every worker ({self.workers} workers of {self.batch_size} samples), "
                f"got {self.samples}"
            )

    @cached_property
    def dealing(self) -> Law:
        """The law with its parameters, and the core."""
        return law_of(self.law, self.core, self.capacities, None if self.minimum == 1 else self.minimum)

    @property
    def peak_lr(self) -> float:
        """The peak learning rate: ``lr``, or the default of the optimizer and the strategy."""
        default = ADAMW_RATE if self.optimizer == "adamw" else LEARNING_RATES[self.strategy]
        return default if self.lr is None else self.lr

    @property
    def cuts(self) -> bool:
        """Whether the strategy trains pieces of the network."""
        return self.strategy in ("ist", "narrow")

    @property
    def keeps_state(self) -> bool:
        """Whether the optimizer's state outlives a round (in data-parallel it always does)."""
        return self.optimizer == "adamw" if self.keep_state is None else self.keep_state

    @property
    def steps(self) -> int:
        """Steps each worker makes in the whole run."""
        if self.samples is None:
            return self.rounds * self.local_steps
        return self.samples // (self.workers * self.batch_size)

    @property
    def steps_by_round(self) -> list[range]:
        """The global steps of every round; the last may be shorter, and is merged like any other."""
        starts = range(0, self.steps, self.local_steps)
        return [range(start, min(start + self.local_steps, self.steps)) for start in starts]

    def lr_at(self, step: int) -> float:
        """Return the learning rate of a global step: a linear rise over the warm-up, then a cosine to zero."""
        rise = max(1, round(self.warmup * self.steps))
        if step < rise:
            return self.peak_lr * (step + 1) / rise
        return self.peak_lr * 0.5 * (1 + cos(pi * (step - rise) / max(1, self.steps - rise)))

    def evaluated(self, round: int) -> bool:
        """Whether to evaluate after this round; always before the first and after the last."""
        last = len(self.steps_by_round)
        every = self.eval_every or max(1, last // 20)
        return round % every == 0 or round == last

    @property
    def name(self) -> str:
        """A name for the run: the data, the strategy and what sets it apart."""
        kind, _, place = self.data.partition(":")
        parts = ["train", Path(place).stem if place else kind, self.strategy]
        if self.model:
            parts.insert(2, self.model.rpartition(":")[2])
        if self.strategy == "ist":
            parts.append(self.law.rpartition(":")[2])
        if self.core and self.cuts:
            parts.append(f"core{self.core:g}")
        return "-".join([*parts, f"{self.workers}w", f"seed{self.seed}"])

    def resolved(self) -> dict[str, Any]:
        """Return all values as they take effect, for the record; what the strategy does not use is None."""
        values = dataclasses.asdict(self)
        values.pop("replace")
        parameters = self.dealing.record().keys() - {"law", "core"}
        sized = self.strategy == "narrow" and parameters  # the law says how narrow
        if self.strategy == "ist" and self.law not in LAWS:  # what the report cannot look up
            own = law_of(self.law)
            values |= {"law_label": own.label, "law_meaning": own.meaning}
        unused = [] if self.strategy == "ist" or sized else ["law", "minimum", "capacities"]
        unused += [] if self.cuts else ["core", "cut"]
        unused += ["widths", "activation", "norm"] if self.model else []
        return {
            **values,
            "lr": self.peak_lr,
            "keep_state": self.keeps_state or self.strategy == "data-parallel",
            "rounds": len(self.steps_by_round),
            "samples": self.steps * self.workers * self.batch_size,
            **dict.fromkeys(unused),
        }


def under_torchrun() -> bool:
    """Whether torchrun started this process as one of its workers."""
    return {"RANK", "WORLD_SIZE"} <= set(os.environ)
