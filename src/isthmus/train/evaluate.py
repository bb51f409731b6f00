"""Evaluate a whole network on the root: scales in place, statistics of batch norms measured anew, test."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from isthmus.nets.norms import recalibrate
from isthmus.nets.scaling import scaled
from isthmus.train.network import Network
from isthmus.train.samples import Samples
from isthmus.train.strategies import Whole

_CALIBRATION_MOST = 4096
_FACTORS = tuple(2.0 ** (power / 2) for power in range(-4, 7))  # 1/4 ... 8


@dataclass(frozen=True)
class Evaluation:
    """What one evaluation found.

    Attributes:
        accuracy: on the test part; of text, the share of next bytes foretold.
        loss: mean cross-entropy on the test part, in nats.
        held_out_accuracy: on training data that nobody trains on, for choices that must not see the test data; None if
            the line search was not asked for.
        line_search: factor on the evaluation scale -> mean cross-entropy on held-out training data; empty if not asked.
    """

    accuracy: float
    loss: float
    held_out_accuracy: float | None
    line_search: dict[float, float]


@dataclass(frozen=True, eq=False)
class Evaluator:
    """Evaluates whole networks of one run.

    Attributes:
        network: what the run trains.
        calibration: the root's own share, for the statistics of batch norms.
        held_out: training data that nobody trains on.
        test: test data.
        readout: whether to multiply the scale by the best factor on held-out data.
    """

    network: Network
    calibration: Samples
    held_out: Samples
    test: Samples
    readout: bool

    def __call__(self, whole: Whole, search: bool = False) -> Evaluation:
        """Evaluate; ``search`` asks for the line search over the evaluation scale."""
        tried = {}
        if search or self.readout:
            factors = _FACTORS if whole.open else (1.0,)
            tried = {factor: self._test(whole, factor, self.held_out) for factor in factors}
        losses = {factor: loss for factor, (_, loss) in tried.items()}
        chosen = best_factor(losses) if self.readout else 1.0
        accuracy, loss = self._test(whole, chosen, self.test)
        return Evaluation(accuracy, loss, tried[chosen][0] if tried else None, losses)

    @contextmanager
    def ready(self, whole: Whole, factor: float = 1.0) -> Iterator[nn.Module]:
        """Yield the network to use: weights times scales times factor, statistics measured, in evaluation mode.

        The factor applies to the weights whose sums no norm follows. After the block the weights are as before.
        """
        scales = {name: scale * factor if name in whole.open else scale for name, scale in whole.scales.items()}
        with scaled(whole.model, scales) as model, torch.no_grad():
            torch.manual_seed(0)  # a network may draw numbers in evaluation too
            call = self.network.caller(model)
            batches = self.calibration.batches(_CALIBRATION_MOST)
            recalibrate(model, batches, lambda positions: self.calibration.predict(call, positions))
            yield model.eval()

    def _test(self, whole: Whole, factor: float, samples: Samples) -> tuple[float, float]:
        """Return accuracy and mean cross-entropy."""
        right, loss, count = 0, 0.0, 0
        with self.ready(whole, factor) as model:
            for positions in samples.batches():
                logits, targets = samples.predict(self.network.caller(model), positions)
                right += int((logits.argmax(dim=1) == targets).sum())
                loss += functional.cross_entropy(logits.double(), targets, reduction="sum").item()
                count += len(targets)
        return right / count, loss / count


def best_factor(losses: Mapping[float, float]) -> float:
    """Return the factor with the smallest loss; 1 if none is finite."""
    finite = {factor: loss for factor, loss in losses.items() if math.isfinite(loss)}
    return min(finite, key=lambda factor: finite[factor], default=1.0)


def summarize_scale(whole: Whole) -> float:
    """Return the mean evaluation scale of the weights that no norm follows, the one number to show for it."""
    if not whole.open:
        return 1.0
    return math.fsum(float(whole.scales[name].double().mean()) for name in whole.open) / len(whole.open)


def line_search_record(evaluation: Evaluation) -> dict[str, Any]:
    """Return the line search as plain data: best factor, and its held-out loss beside that of the rule (factor 1)."""
    losses = evaluation.line_search
    best = best_factor(losses)
    return {
        "best_factor": best,
        "held_out_loss": losses.get(best),
        "held_out_loss_of_rule": losses.get(1.0),
        "losses": {f"{factor:.3g}": loss for factor, loss in losses.items()},
    }
