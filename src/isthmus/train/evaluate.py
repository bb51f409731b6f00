"""Evaluate a whole model on the root: fold the scales in, recompute batch-norm statistics, test."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from isthmus.nets.mlp import MLP, MLPSpec
from isthmus.train.strategies import Whole

_CALIBRATION_MOST = 4096
_FACTORS = tuple(2.0 ** (power / 2) for power in range(-4, 7))  # 1/4 ... 8


@dataclass(frozen=True)
class Evaluation:
    """What one evaluation found.

    Attributes:
        accuracy: on the test part.
        loss: mean cross-entropy on the test part.
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
    """Evaluates whole models of one run.

    Attributes:
        calibration: [m, p] training features of the root's own shard, for batch-norm statistics.
        held_out: features and targets of training data that nobody trains on.
        test: features and targets.
        readout: whether to multiply the scale by the best factor on held-out data.
    """

    calibration: Tensor
    held_out: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    readout: bool

    def __call__(self, whole: Whole, search: bool = False) -> Evaluation:
        """Evaluate; ``search`` asks for the line search over the evaluation scale."""
        tried = {}
        if search or self.readout:
            tried = {factor: _test(self.model(whole, factor), *self.held_out) for factor in _FACTORS}
        losses = {factor: loss for factor, (_, loss) in tried.items()}
        chosen = best_factor(losses) if self.readout else 1.0
        accuracy, loss = _test(self.model(whole, chosen), *self.test)
        return Evaluation(accuracy, loss, tried[chosen][0] if tried else None, losses)

    def model(self, whole: Whole, factor: float = 1.0) -> MLP:
        """Return the network to use: weights times scales times factor, statistics recomputed.

        The factor applies to the layers that no norm follows: the output, and without norm every cut input.
        """
        state = dict(whole.state)
        for name, scale in whole.scales.items():
            state[name] = state[name] * scale.to(state[name].device)
        for name in _without_norm(whole.spec) if factor != 1.0 else ():
            state[name] = state[name] * factor
        model = MLP(whole.spec).to(self.calibration.device)
        model.load_state_dict(state)
        recalibrate(model, self.calibration[:_CALIBRATION_MOST])
        return model.eval()


def recalibrate(model: nn.Module, features: Tensor) -> None:
    """Recompute batch-norm statistics in one pass over ``features`` as one batch; other modules are left alone."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm1d)]
    if not norms:
        return
    model.train()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over batches, here one: the statistics of all features
    with torch.no_grad():
        model(features)


def best_factor(losses: Mapping[float, float]) -> float:
    """Return the factor with the smallest loss; 1 if none is finite."""
    finite = {factor: loss for factor, loss in losses.items() if math.isfinite(loss)}
    return min(finite, key=lambda factor: finite[factor], default=1.0)


def summarize_scale(whole: Whole) -> float:
    """Return the mean evaluation scale of the output layer, the one number to show for it."""
    scale = whole.scales.get("output.weight")
    return 1.0 if scale is None else float(scale.double().mean())


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


def _without_norm(spec: MLPSpec) -> list[str]:
    """Return the names of weights with a hidden layer as input and no norm to absorb their scale."""
    inner = [f"hidden.{layer}.weight" for layer in range(1, len(spec.widths))] if spec.norm == "none" else []
    return [*inner, "output.weight"]


def _test(model: nn.Module, features: Tensor, targets: Tensor) -> tuple[float, float]:
    with torch.no_grad():
        logits = model(features)
    accuracy = (logits.argmax(dim=1) == targets).double().mean().item()
    return accuracy, functional.cross_entropy(logits.double(), targets).item()
