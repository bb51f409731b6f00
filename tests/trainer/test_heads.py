"""Strategies that change the last layer: a checkpoint in the middle changes nothing, and neither does a look."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cases.loops import in_turn, sgd
from isthmus import Training
from isthmus.strategies import Factored, HashedCodes, Mach, SampledSoftmax, ShardedSoftmax, Strategy

CLASSES, WORKERS = 20, 2
EXAMPLE = (torch.zeros(2, 6),)
CASES = [Mach(5), Mach(5, tables=2), HashedCodes(4), Factored(2), SampledSoftmax(negatives=4), ShardedSoftmax()]


def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, CLASSES))


def steps(training: Training, numbers: range) -> None:
    for step in numbers:
        random = torch.Generator().manual_seed(step)
        x, y = torch.randn(8, 6, generator=random), torch.randint(0, CLASSES, (8,), generator=random)
        wanted = training.targets(y)
        functional.cross_entropy(training.module(x).flatten(0, -2), wanted.flatten()).backward()
        training.optimizer.step()
        training.optimizer.zero_grad()


def scores(training: Training) -> Tensor:
    with training.whole() as merged, torch.no_grad():
        assert merged is not None
        found: Tensor = merged(torch.linspace(-1, 1, 30).reshape(5, 6))
    return found


@pytest.mark.parametrize("strategy", CASES, ids=lambda each: each.slug)
def test_training_goes_on_from_a_checkpoint_to_the_same_bits(strategy: Strategy, tmp_path: Path) -> None:
    def straight() -> Tensor:
        training = Training(network(), EXAMPLE, sgd, strategy, local_steps=2)
        torch.manual_seed(training.seat)
        steps(training, range(4))
        looked = scores(training)
        assert looked.shape == (5, CLASSES)
        training.save(tmp_path)
        steps(training, range(4, 7))
        found = scores(training)
        training.close()
        return found

    def resumed() -> Tensor:
        training = Training(network(), EXAMPLE, sgd, strategy, local_steps=2)
        training.resume(tmp_path)
        steps(training, range(4, 7))
        found = scores(training)
        training.close()
        return found

    first, again = in_turn(straight, WORKERS), in_turn(resumed, WORKERS)
    assert all(torch.equal(each, first[0]) for each in (*first, *again))
