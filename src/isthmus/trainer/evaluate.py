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
from isthmus.trainer.network import Network
from isthmus.trainer.samples import Samples
from isthmus.trainer.strategies import Whole

_CALIBRATION_MOST = 4096
_FACTORS = tuple(2.0 ** (power / 2) for power in range(-4, 7))  # 1/4 ... 8


@dataclass(frozen=True)
class Evaluation:
    """What a network does on one part of the data.

    Attributes:
        accuracy: share of targets that have the largest logit; of text, the share of next bytes foretold.
        loss: mean cross-entropy in nats.
    """

    accuracy: float
    loss: float


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

    def __call__(self, whole: Whole) -> Evaluation:
        """Evaluate on the test part."""
        factor = best_factor(self.search(whole)) if self.readout else 1.0
        return self._evaluate(whole, factor, self.test)

    def search(self, whole: Whole) -> dict[float, Evaluation]:
        """Try factors on the evaluation scale, on training data held out; where nothing can be scaled, 1 alone."""
        return {f: self._evaluate(whole, f, self.held_out) for f in (_FACTORS if whole.open else (1.0,))}

    @contextmanager
    def ready(self, whole: Whole, factor: float = 1.0) -> Iterator[nn.Module]:
        """Yield the network to use: weights times scales times factor, statistics measured, in evaluation mode.

        The factor applies to the weights whose sums no norm follows. After the block weights and buffers are as before:
        evaluating must not change what is trained next.
        """
        scales = {name: scale * factor if name in whole.open else scale for name, scale in whole.scales.items()}
        with _buffers_kept(whole.model), scaled(whole.model, scales) as model, torch.no_grad():
            torch.manual_seed(0)  # a network may draw numbers in evaluation too
            call = self.network.caller(model)
            batches = self.calibration.batches(_CALIBRATION_MOST)
            recalibrate(model, batches, lambda positions: self.calibration.predict(call, positions))
            yield model.eval()

    def _evaluate(self, whole: Whole, factor: float, samples: Samples) -> Evaluation:
        right, loss, count = 0, 0.0, 0
        with self.ready(whole, factor) as model:
            for positions in samples.batches():
                logits, targets = samples.predict(self.network.caller(model), positions)
                right += int((logits.argmax(dim=1) == targets).sum())
                loss += functional.cross_entropy(logits.double(), targets, reduction="sum").item()
                count += len(targets)
        return Evaluation(right / count, loss / count)


@contextmanager
def _buffers_kept(model: nn.Module) -> Iterator[None]:
    """Put back, after the block, the buffers and what they held: a forward may write to them, or assign others."""
    before = [
        (module, name, buffer, buffer.detach().clone())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for module, name, buffer, held in before:
                buffer.copy_(held)
                setattr(module, name, buffer)


def best_factor(tried: Mapping[float, Evaluation]) -> float:
    """Return the factor with the smallest loss; 1 if none is finite."""
    finite = {factor: found.loss for factor, found in tried.items() if math.isfinite(found.loss)}
    return min(finite, key=lambda factor: finite[factor], default=1.0)


def summarize_scale(whole: Whole) -> float:
    """Return the mean evaluation scale of the weights that no norm follows, the one number to show for it."""
    if not whole.open:
        return 1.0
    return math.fsum(float(whole.scales[name].double().mean()) for name in whole.open) / len(whole.open)


def line_search_record(tried: Mapping[float, Evaluation]) -> dict[str, Any]:
    """Return the line search as plain data: best factor, and its held-out loss beside that of the rule (factor 1)."""
    best = best_factor(tried)
    return {
        "best_factor": best,
        "held_out_loss": tried[best].loss,
        "held_out_loss_of_rule": tried[1.0].loss,
        "losses": {f"{factor:.3g}": found.loss for factor, found in tried.items()},
    }
