"""Saving and going on: the same bits as the run that was not disturbed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from cases.laws import LAW_CASES, OWN_CASES
from cases.loops import adamw, batch, in_turn, normed, perceptron, sgd, state_of
from isthmus import Training
from isthmus.partitions import Core, Rotated
from isthmus.strategies import IST, DataParallel, LocalSGD, Narrow, Strategy
from isthmus.trainer.wire.group import join

EXAMPLE = (torch.zeros(2, 6),)
IMAGES = (torch.zeros(2, 1, 4, 4),)
WORKERS = 2
STRATEGIES = {
    **{f"ist-{name}": IST(law(WORKERS)) for name, law in {**LAW_CASES, **OWN_CASES}.items()},
    "ist-core": IST(Core(Rotated(), 0.25)),
    "local-sgd": LocalSGD(),
    "narrow": Narrow(),
    "data-parallel": DataParallel(),
}


def make(strategy: Strategy, optimizer: Any = sgd, images: bool = False, seed: int = 0) -> Training:
    network, example = (normed, IMAGES) if images else (perceptron, EXAMPLE)
    return Training(network, example, optimizer, strategy, local_steps=3, seed=seed)


def steps(training: Training, numbers: range, images: bool = False) -> list[float]:
    """Make some steps, with dropout where the network has it; return the losses."""
    losses = []
    for step in numbers:
        x, y = batch(training.worker, step, (1, 4, 4) if images else (6,))
        loss = functional.cross_entropy(training.module(x), y)
        loss.backward()
        training.optimizer.step()
        training.optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def standing(training: Training) -> dict[str, Any]:
    """All that a worker has at the end: weights, moments, options, what it sent, its next random number."""
    moments = training.optimizer.state_dict()
    sent = training.account().sent_bytes
    with training.whole() as merged:
        assert merged is not None
        weights = state_of(merged)
    return {"weights": weights, "moments": moments, "sent": sent, "steps": training.steps, "next": torch.rand(2)}


def assert_equal(one: Any, other: Any) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other


def goes_on(folder: Path, strategy: Strategy, optimizer: Any, images: bool) -> None:
    """Save after two rounds, go on for two; then do so again from the checkpoint, with another network to begin."""
    torch.manual_seed(5 + join().index)
    training = make(strategy, optimizer, images)
    before = steps(training, range(6), images)
    training.save(folder, extra={"losses": before})
    losses = steps(training, range(6, 12), images)
    expected = standing(training)
    torch.manual_seed(77)
    again = make(strategy, optimizer, images)
    steps(again, range(2), images)
    assert again.resume(folder) == {"losses": before}
    assert (again.round, again.steps) == (2, 6)
    assert steps(again, range(6, 12), images) == losses
    assert_equal(standing(again), expected)


@pytest.mark.parametrize("optimizer", [sgd, adamw])
@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)
def test_going_on_gives_the_same_bits(tmp_path: Path, strategy: Strategy, optimizer: Any) -> None:
    in_turn(goes_on, WORKERS, tmp_path, strategy, optimizer, False)
