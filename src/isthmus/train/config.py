"""What to train and how; validated on construction, without PyTorch."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from math import cos, pi
from pathlib import Path
from typing import Any

from isthmus.errors import InvalidInput, check_choice, check_integer, check_number
from isthmus.partitions import LAWS

STRATEGIES = ("ist", "local-sgd", "narrow", "data-parallel")
EXECUTORS = ("processes", "serial")
SCALES = ("expected", "none", "readout")
# Measured on digits and Fashion-MNIST. Momentum that starts anew every round moves less: three times more there.
LEARNING_RATES = {"ist": 0.3, "local-sgd": 0.3, "narrow": 0.3, "data-parallel": 0.1}


@dataclass(frozen=True)
class TrainConfig:
    """One training run.

    Attributes:
        data: digits, breast-cancer, idx:FOLDER (MNIST format) or libsvm:FILE.
        strategy: ist, or a rival: local-sgd (dense, averaged every round), narrow (local SGD on a dense net of the
            subnetwork's width) or data-parallel (gradients averaged every step).
        law: how ist deals hidden units to workers: uniform (new every round), fixed, rotated (fixed pieces, passed on
            one worker a round) or block (rotated, with the weights between pieces zero and logits averaged).
        core: fraction of every hidden layer that all workers hold and average (ist and narrow).
        workers: number of workers.
        rounds: number of rounds; a round is cut, local steps, merge.
        samples: budget in samples over all workers, instead of rounds; the last round may be shorter.
        local_steps: steps each worker makes in a round.
        batch_size: samples of one step of one worker.
        lr: peak learning rate; by default one that suits the strategy.
        widths: units of each hidden layer.
        activation: relu, gelu or tanh.
        norm: batch (batch norm) or none.
        momentum: Nesterov momentum; starts at zero every round, but runs through in data-parallel.
        weight_decay: L2 penalty on what a worker holds.
        warmup: fraction of all steps in which the learning rate rises; after it, it falls by a cosine to zero.
        scale: evaluation scale of cut inputs: expected (the probability that a unit is held), none, or readout
            (expected, times the best factor on training data held out).
        seed: of everything random.
        executor: processes (one per worker), or serial (all in one process, in turn: the same bits).
        eval_every: rounds between evaluations; by default about 20 in a run.
        out: the run's folder; by default a new one under runs/.
        replace: replace an earlier run in `out`.

    Raises:
        InvalidInput: a value that breaks its rule.
    """

    data: str = "digits"
    strategy: str = "ist"
    law: str = "block"
    core: float = 0.0
    workers: int = 4
    rounds: int = 60
    samples: int | None = None
    local_steps: int = 10
    batch_size: int = 32
    lr: float | None = None
    widths: tuple[int, ...] = (256, 256)
    activation: str = "relu"
    norm: str = "batch"
    momentum: float = 0.9
    weight_decay: float = 0.0
    warmup: float = 0.05
    scale: str = "expected"
    seed: int = 0
    executor: str = "processes"
    eval_every: int | None = None
    out: Path | None = None
    replace: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))
        object.__setattr__(self, "out", None if self.out is None else Path(self.out))
        check_choice("strategy", self.strategy, STRATEGIES)
        check_choice("law", self.law, LAWS)
        check_choice("scale", self.scale, SCALES)
        check_choice("executor", self.executor, EXECUTORS)
        check_choice("activation", self.activation, ("relu", "gelu", "tanh"))
        check_choice("norm", self.norm, ("batch", "none"))
        for name in ("workers", "rounds", "local_steps", "batch_size"):
            check_integer(name, getattr(self, name), at_least=1)
        check_integer("seed", self.seed, at_least=0, at_most=2**64 - 1)
        check_number("core", self.core, at_least=0.0, at_most=1.0)
        check_number("momentum", self.momentum, at_least=0.0, below=1.0)
        check_number("weight_decay", self.weight_decay, at_least=0.0)
        check_number("warmup", self.warmup, at_least=0.0, at_most=1.0)
        if self.lr is not None:
            check_number("lr", self.lr, above=0.0)
        if self.eval_every is not None:
            check_integer("eval_every", self.eval_every, at_least=1)
        self._check_widths()
        self._check_samples()

    def _check_widths(self) -> None:
        if not self.widths:
            raise InvalidInput("`widths` must name at least one hidden layer, got none")
        for width in self.widths:
            check_integer("widths", width, at_least=1)
        needs_units = self.strategy in ("ist", "narrow") and self.core < 1
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

    @property
    def peak_lr(self) -> float:
        """The peak learning rate: ``lr``, or the strategy's default."""
        return LEARNING_RATES[self.strategy] if self.lr is None else self.lr

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
        if self.strategy == "ist":
            parts.append(self.law)
        if self.core and self.strategy in ("ist", "narrow"):
            parts.append(f"core{self.core:g}")
        return "-".join([*parts, f"{self.workers}w", f"seed{self.seed}"])

    def resolved(self) -> dict[str, Any]:
        """Return all values as they take effect, for the record; what the strategy does not use is None."""
        values = dataclasses.asdict(self)
        values.pop("replace")
        return {
            **values,
            "lr": self.peak_lr,
            "rounds": len(self.steps_by_round),
            "samples": self.steps * self.workers * self.batch_size,
            "law": self.law if self.strategy == "ist" else None,
            "core": self.core if self.strategy in ("ist", "narrow") else None,
        }


def under_torchrun() -> bool:
    """Whether torchrun started this process as one of its workers."""
    return {"RANK", "WORLD_SIZE"} <= set(os.environ)
