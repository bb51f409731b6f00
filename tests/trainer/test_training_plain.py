"""One worker and nothing cut: a loop under Training gives the very bits of the loop without it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.optim.lr_scheduler import OneCycleLR

from cases.loops import adamw, batch, normed, perceptron, same, sgd, state_of
from cases.trainable import Deep
from isthmus import Training
from isthmus.strategies import STRATEGIES, DiLoCo, Narrow

STEPS = 30
# The outer step of DiLoCo is a step more, of one worker too; without momentum it is exact to rounding (test_diloco.py).
EXACT = [name for name, kind in STRATEGIES.items() if kind is not DiLoCo and not kind.by_class]
IN_WIDTH = [name for name in EXACT if STRATEGIES[name].axes is None]
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "schedule": {"schedule": True},
    "accumulated": {"accumulate": 3},
    "clipped": {"clip": 0.05},
    "autocast": {"autocast": True},
    "all": {"schedule": True, "accumulate": 2, "clip": 0.1, "autocast": True},
}


def loop(
    module: nn.Module, optimizer: torch.optim.Optimizer, shape: tuple[int, ...], schedule: bool = False,
    accumulate: int = 1, clip: float | None = None, autocast: bool = False,
) -> list[float]:  # fmt: skip
    """A loop as people write it; returns the losses."""
    torch.manual_seed(0)
    rates = OneCycleLR(optimizer, max_lr=0.1, total_steps=STEPS + 1) if schedule else None
    losses = []
    for step in range(STEPS):
        for part in range(accumulate):
            x, y = batch(part, step, shape)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
                loss = functional.cross_entropy(module(x), y, label_smoothing=0.1) / accumulate
            loss.backward()
            losses.append(loss.item())
        if clip is not None:
            nn.utils.clip_grad_norm_(module.parameters(), clip)
        optimizer.step()
        if rates is not None:
            rates.step()
        optimizer.zero_grad()
    return losses


@pytest.mark.parametrize("strategy", IN_WIDTH)
@pytest.mark.parametrize("make", [sgd, adamw])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_perceptron(strategy: str, make: Callable[..., Any], options: dict[str, Any]) -> None:
    check(perceptron(), (6,), strategy, make, options)


@pytest.mark.parametrize("strategy", IN_WIDTH)
@pytest.mark.parametrize("options", [OPTIONS["plain"], OPTIONS["all"]], ids=["plain", "all"])
def test_convolutions_norms_and_dropout(strategy: str, options: dict[str, Any]) -> None:
    check(normed(), (1, 4, 4), strategy, adamw, options)


@pytest.mark.parametrize("strategy", ["ist", "shallow"])
@pytest.mark.parametrize("options", [OPTIONS["plain"], OPTIONS["all"]], ids=["plain", "all"])
def test_residual_blocks(strategy: str, options: dict[str, Any]) -> None:
    check(Deep(), (64,), strategy, adamw, options, cut=("block",))


def check(
    network: nn.Module, shape: tuple[int, ...], strategy: str, make: Callable[..., Any], options: dict[str, Any],
    cut: tuple[str, ...] | None = None,
) -> None:  # fmt: skip
    plain = copy.deepcopy(network)
    expected = loop(plain, make(plain), shape, **options)
    training = Training(network, (torch.zeros(2, *shape),), make, strategy=strategy, local_steps=7, cut=cut)
    module, optimizer = training.module, training.optimizer
    assert loop(training.module, training.optimizer, shape, **options) == expected
    assert (training.module, training.optimizer) == (module, optimizer)
    assert (training.round, training.steps, training.merged) == (STEPS // 7, STEPS, False)
    # The module's own running statistics go on too; those of the network to use are measured anew.
    assert same(dict(training.module.named_parameters()), dict(plain.named_parameters()))
    assert same(own_state(training.module), state_of(plain))
    with training.whole() as merged:
        assert merged is not None
        assert same(dict(merged.named_parameters()), dict(plain.named_parameters()))
        assert type(merged) is type(plain) or issubclass(STRATEGIES[strategy], Narrow)
        assert not merged.training
    assert training.merged
    training.close()


def own_state(module: nn.Module) -> dict[str, torch.Tensor]:
    """The state under the names that the user's own network has."""
    return {name: tensor for name, tensor in state_of(module).items() if not name.startswith("_constants")}


def test_generators_are_left_alone() -> None:
    """A network that is there already draws nothing, and neither does looking at it."""
    training_state = torch.manual_seed(5).get_state()
    network = normed()
    torch.manual_seed(5)
    training = Training(network, (torch.zeros(2, 1, 4, 4),), sgd, local_steps=2)
    assert torch.equal(torch.get_rng_state(), training_state)
    x, y = batch(0, 0, (1, 4, 4))
    functional.cross_entropy(training.module(x), y).backward()
    training.optimizer.step()
    before = torch.get_rng_state()
    with training.whole():
        pass
    training.recalibrate([x])
    with training.whole(on="root"):
        pass
    training.account()
    assert torch.equal(torch.get_rng_state(), before)
