"""Test the merged network: every worker enters, worker 0 has the data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from isthmus.errors import InvalidInput
from isthmus.trainer.local.loop import autocast
from isthmus.trainer.task.examples import Examples
from isthmus.trainer.task.objective import Objective, chosen, detached
from isthmus.trainer.training import Training

CALIBRATION_MOST = 4096
_FACTORS = tuple(2.0 ** (power / 2) for power in range(-4, 7))  # 1/4 ... 8


@dataclass(frozen=True)
class Evaluation:
    """What a network does on one part of the data.

    Attributes:
        loss: mean over targets (in nats, of cross-entropy).
        accuracy: share of targets that have the largest logit; of text, the share of next bytes foretold; nan where
            targets are no class numbers.
        metric: of one's own; nan without one.
        targets: how many were tested.
    """

    loss: float
    accuracy: float
    metric: float
    targets: int


@dataclass(frozen=True, eq=False)
class Evaluator:
    """Evaluates the merged network of one training.

    Attributes:
        training: whose.
        objective: loss and metric.
        kind: type of number for matrix products, as in training.
        readout: whether to multiply the scale by the best factor on held-out data.
        held_out: training data that nobody trains on, on worker 0.
        test: test data, on worker 0.
    """

    training: Training
    objective: Objective
    kind: str | None
    readout: bool
    held_out: Examples | None
    test: Examples | None

    def __call__(self) -> Evaluation:
        """Evaluate on the test part; on other workers than 0 all numbers are nan."""
        factor = best_factor(self.search()) if self.readout else 1.0
        return self._evaluate(factor, self.test)

    def search(self) -> dict[float, Evaluation]:
        """Try factors on the evaluation scale, on training data held out; where nothing is scaled, 1 alone."""
        return {f: self._evaluate(f, self.held_out) for f in (_FACTORS if self.training.strategy.scales else (1.0,))}

    def _evaluate(self, factor: float, examples: Examples | None) -> Evaluation:
        with self.training.whole(on="root", factor=factor) as model:
            if model is None or examples is None:
                return Evaluation(math.nan, math.nan, math.nan, 0)
            devices = [self.training.device] if self.training.device.type == "cuda" else []
            with torch.no_grad(), torch.random.fork_rng(devices=devices):
                torch.manual_seed(0)  # a network may draw numbers in evaluation too
                return self._test(model, examples)

    def _test(self, model: nn.Module, examples: Examples) -> Evaluation:
        loss, right, count, seen = 0.0, 0.0, 0, []
        for positions in examples.pieces():
            batch = examples.batch(positions)
            with autocast(self.kind, self.training.device):
                output = model(*batch.args, **batch.kwargs)
            one, size, correct = self.objective.tested(output, batch)
            loss, right, count = loss + one, right + correct, count + size
            if self.objective.metric is not None:
                seen.append((detached(chosen(output, batch)), batch.targets))
        return Evaluation(loss / count, right / count, self._metric(seen), count)

    def _metric(self, seen: list[tuple[Any, Any]]) -> float:
        if self.objective.metric is None:
            return math.nan
        for side, what in enumerate(("outputs that are a tensor, or have `logits`", "targets that are a tensor")):
            if not all(isinstance(pair[side], torch.Tensor) for pair in seen):
                raise InvalidInput(f"`metric` needs {what}, got {type(seen[0][side]).__name__}")
        outputs, targets = (torch.cat([pair[side].cpu() for pair in seen]) for side in (0, 1))
        return float(self.objective.metric(outputs, targets))


def best_factor(tried: Mapping[float, Evaluation]) -> float:
    """Return the factor with the smallest loss, of equal ones that nearest to 1; 1 if none is finite."""
    finite = {factor: found.loss for factor, found in tried.items() if math.isfinite(found.loss)}
    return min(finite, key=lambda factor: (finite[factor], abs(math.log(factor))), default=1.0)


def line_search_record(tried: Mapping[float, Evaluation]) -> dict[str, Any]:
    """Return the line search as plain data: best factor, and its held-out loss beside that of the rule (factor 1)."""
    best = best_factor(tried)
    return {
        "best_factor": best,
        "held_out_loss": tried[best].loss,
        "held_out_loss_of_rule": tried[1.0].loss,
        "losses": {f"{factor:.3g}": found.loss for factor, found in tried.items()},
    }
