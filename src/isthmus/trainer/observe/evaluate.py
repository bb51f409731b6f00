"""Test the merged network: every worker tests its share of the batches, and all hear the result."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from isthmus.errors import InvalidInput
from isthmus.trainer.local.loop import autocast
from isthmus.trainer.task.examples import Batch, Examples, Positions
from isthmus.trainer.task.objective import Objective, chosen, detached
from isthmus.trainer.training import Training

Item = TypeVar("Item")

CALIBRATION_MOST = 4096
PARTS = 8  # pieces of the test part at least, so that each worker has about as many
_NEEDED = ("outputs that are a tensor, or have `logits`", "targets that are a tensor")
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
        held_out: training data that nobody trains on.
        test: test data.
    """

    training: Training
    objective: Objective
    kind: str | None
    readout: bool
    held_out: Examples
    test: Examples

    def __call__(self) -> Evaluation:
        """Evaluate on the test part; the metric is nan on other workers than 0."""
        factor = best_factor(self.search()) if self.readout else 1.0
        return self._evaluate(factor, self.test)

    def search(self) -> dict[float, Evaluation]:
        """Evaluate on training data held out, with other factors on the evaluation scale too where that is asked for.

        Each factor is a pass of its own, which fetches what is away of the network; where nothing is scaled there is 1
        alone.
        """
        factors = _FACTORS if self.readout and self.training.strategy.scales else (1.0,)
        return {factor: self._evaluate(factor, self.held_out) for factor in factors}

    def _evaluate(self, factor: float, examples: Examples) -> Evaluation:
        """Test a share of the batches; sum those of all workers in the order of the batches, however many share.

        If a worker is lost meanwhile, its share is missing, and all is done again.
        """
        training = self.training
        devices = [training.device] if training.device.type == "cuda" else []
        while True:
            tested = []
            with training.whole(factor=factor) as model, torch.no_grad(), torch.random.fork_rng(devices=devices):
                assert model is not None
                dealt = training.worker, training.workers
                for number, positions in enumerate(examples.pieces(parts=PARTS)):
                    if number % dealt[1] == dealt[0]:
                        torch.manual_seed(number)  # a network may draw numbers in evaluation too
                        tested.append(self._test(model, examples.batch(positions)))
            metric = self._metric(tested)
            found = training.gather(*dealt, *(number for each in tested for number in each.sums))
            if all(row[:2] == [worker, len(found)] for worker, row in enumerate(found)):
                break
        sums = in_turn([[row[at : at + 3] for at in range(2, len(row), 3)] for row in found])
        loss, count, right = (sum(column) for column in zip(*sums, strict=True))
        return Evaluation(loss / count, right / count, metric, int(count))

    def _test(self, model: nn.Module, batch: Batch) -> _Tested:
        with autocast(self.kind, self.training.device):
            output = model(*batch.args, **batch.kwargs)
        sums = self.objective.tested(output, batch)
        if self.objective.metric is None:
            return _Tested(sums)
        pair = detached(chosen(output, batch)), batch.targets
        for found, what in zip(pair, _NEEDED, strict=True):
            if not isinstance(found, Tensor):
                raise InvalidInput(f"`metric` needs {what}, got {type(found).__name__}")
        return _Tested(sums, pair)

    def _metric(self, tested: Sequence[_Tested]) -> float:
        """Return the metric of the outputs of all batches, in their order, on worker 0."""
        if self.objective.metric is None:
            return math.nan
        found = self.training.collect(*(tensor for each in tested for tensor in each.pair))
        if not found:
            return math.nan
        pairs = in_turn([list(zip(row[::2], row[1::2], strict=True)) for row in found])
        outputs, targets = (torch.cat([pair[side].cpu() for pair in pairs]) for side in (0, 1))
        return float(self.objective.metric(outputs, targets))


@dataclass(frozen=True, eq=False)
class _Tested:
    """What one batch gave: loss summed over targets, number of targets, how many are right; outputs and targets."""

    sums: tuple[float, int, float]
    pair: tuple[Tensor, ...] = ()


def calibration(share: Examples, workers: int) -> Iterator[Positions]:
    """Return what each of some workers measures the statistics of norms on."""
    return share.pieces(-(-CALIBRATION_MOST // workers))


def in_turn(rows: Sequence[Sequence[Item]]) -> list[Item]:
    """Return items that were dealt in turn, in their order.

    >>> in_turn([[0, 2, 4], [1, 3]])
    [0, 1, 2, 3, 4]
    """
    return [row[place] for place in range(len(rows[0])) for row in rows if place < len(row)]


def best_factor(tried: Mapping[float, Evaluation]) -> float:
    """Return the factor with the smallest loss, of equal ones that nearest to 1; 1 if none is finite."""
    finite = {factor: found.loss for factor, found in tried.items() if math.isfinite(found.loss)}
    return min(finite, key=lambda factor: (finite[factor], abs(math.log(factor))), default=1.0)


def line_search_record(tried: Mapping[float, Evaluation]) -> dict[str, Any]:
    """Return the line search as plain data: best factor, and its held-out loss beside that of the rule (factor 1),
    which alone was tried where no search was asked for."""
    best = best_factor(tried)
    return {
        "best_factor": best,
        "held_out_loss": tried[best].loss,
        "held_out_loss_of_rule": tried[1.0].loss,
        "losses": {f"{factor:.3g}": found.loss for factor, found in tried.items()},
    }
