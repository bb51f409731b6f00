"""The plan of memory: against counts by hand, and against what workers then hold."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

import isthmus
from cases.loops import processes
from isthmus.trainer import memory_plan
from isthmus.trainer.executors.in_turn import run_in_turn
from isthmus.trainer.plan.live import Live
from isthmus.trainer.plan.plan import Plan
from isthmus.trainer.plan.show import table
from isthmus.trainer.strategies import buckets
from isthmus.trainer.wire import tensors

INPUTS, HIDDEN, CLASSES, BATCH, STEPS = 6, 8, 3, 4, 3
NUMBERS = HIDDEN * INPUTS + HIDDEN + CLASSES * HIDDEN + CLASSES
MAKERS: dict[str, Callable[[nn.Module], Optimizer]] = {
    "sgd": lambda module: torch.optim.SGD(module.parameters(), 0.1),
    "momentum": lambda module: torch.optim.SGD(module.parameters(), 0.1, momentum=0.9),
    "adamw": lambda module: torch.optim.AdamW(module.parameters(), 0.1),
    "adagrad": lambda module: torch.optim.Adagrad(module.parameters(), 0.1),  # with state before the first step
}
# numbers of state for each parameter entry, and bytes beside them for each of the four tensors
STATE = {"sgd": (0, 0), "momentum": (1, 0), "adamw": (2, 4), "adagrad": (1, 4)}


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(INPUTS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES))


def normed() -> nn.Module:
    layers = [nn.Linear(INPUTS, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, CLASSES)]
    layers[3].weight.requires_grad = False  # type: ignore[union-attr]
    return nn.Sequential(*layers)


def job(make: Callable[[], nn.Module], strategy: str, optimizer: str) -> tuple[int, ...]:
    x = torch.ones(BATCH, INPUTS)
    with isthmus.Training(make, (x,), MAKERS[optimizer], strategy, local_steps=2) as training:
        for _ in range(STEPS):
            training.module(x).square().mean().backward()
            training.optimizer.step()
            training.optimizer.zero_grad()
        return training.account().memory_bytes


@pytest.mark.parametrize("optimizer", MAKERS)
@pytest.mark.parametrize(("strategy", "hidden"), [("ist", 4), ("narrow", 4), ("local-sgd", 8), ("data-parallel", 8)])
def test_what_is_held_is_counted_by_hand_and_held(strategy: str, hidden: int, optimizer: str) -> None:
    plans = memory_plan(network, (torch.ones(BATCH, INPUTS),), MAKERS[optimizer], strategy, workers=2, copies=False)
    piece = hidden * INPUTS + hidden + CLASSES * hidden + CLASSES
    each, beside = STATE[optimizer]
    homes = [0, 0]
    if strategy == "ist":  # rows 0-3 and 4-7 of the hidden layer; of the three classes two rows and one
        homes = [4 * (4 * INPUTS + 4 + rows * HIDDEN + rows) for rows in (2, 1)]
    if strategy == "data-parallel":  # room for three times the other worker's gradients of one's own half
        homes = [3 * 4 * -(-piece // 2)] * 2
    for plan, home in zip(plans, homes, strict=True):
        assert (plan.home, plan.piece, plan.gradients) == (home, 4 * piece, 4 * piece)
        assert plan.state == 4 * piece * each + 4 * beside
    assert run_in_turn(job, [(network, strategy, optimizer)] * 2)[0] == tuple(plan.held for plan in plans)


@pytest.mark.parametrize("strategy", ["ist", "narrow", "local-sgd"])
def test_norms_and_frozen_weights_are_held_as_planned(strategy: str) -> None:
    plans = memory_plan(normed, (torch.ones(BATCH, INPUTS),), MAKERS["adamw"], strategy, workers=3, copies=False)
    assert run_in_turn(job, [(normed, strategy, "adamw")] * 3)[0] == tuple(plan.held for plan in plans)


@pytest.mark.processes
@pytest.mark.parametrize("strategy", ["ist", "local-sgd"])
def test_workers_that_can_be_lost_hold_the_copies_that_are_planned(strategy: str) -> None:
    call = network, (torch.ones(BATCH, INPUTS),), MAKERS["adamw"], strategy
    plans, without = memory_plan(*call, workers=2), memory_plan(*call, workers=2, copies=False)
    found: list[tuple[int, ...]] = processes(job, 2, network, strategy, "adamw")
    assert found[0] == tuple(plan.held for plan in plans)
    homes = [plan.home for plan in without]
    neighbours = homes[::-1] if strategy == "ist" else [0, 0]
    assert [plan.home for plan in plans] == [own + copy for own, copy in zip(homes, neighbours, strict=True)]


def deep(layers: int, width: int) -> nn.Module:
    return nn.Sequential(*(layer for _ in range(layers) for layer in (nn.Linear(width, width), nn.ReLU())))


@pytest.mark.parametrize("layers", [1, 4, 9])
def test_activations_are_what_the_backward_pass_keeps(layers: int) -> None:
    """The input, and what every ReLU returns; and in the backward pass two gradients of that size, or less than two."""
    width, batch = 4, 1000
    x = torch.ones(batch, width)
    plan = memory_plan(lambda: deep(layers, width), (x,), strategy="local-sgd", workers=1)[0]
    assert 1 + layers <= plan.activations / x.nbytes <= 1 + layers + 2 + 0.1


def test_an_optimizers_temporaries_count_where_they_are_more() -> None:
    """AdamW needs the square root of the second moment beside it: of a large weight more than a small batch."""
    plan = memory_plan(
        lambda: nn.Linear(300, 400, bias=False), (torch.ones(1, 300),), MAKERS["adamw"], "local-sgd", workers=1
    )[0]
    assert 4 * 300 * 400 <= plan.activations <= 2.1 * 4 * 300 * 400


def test_a_networks_pieces_shrink_with_the_workers_and_their_plans_too() -> None:
    x = torch.ones(8, 64)
    plans = [memory_plan(lambda: deep(3, 64), (x,), MAKERS["adamw"], workers=n, copies=False)[0] for n in (1, 2, 4)]
    for fewer, more in pairwise(plans):
        assert more.home == math.ceil(fewer.home / 2)
        assert more.piece < fewer.piece
        assert more.held < fewer.held


class Square(nn.Module):
    """A linear layer without a bias that begins at zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight)


def test_planning_holds_no_weights() -> None:
    """Of a network with 80 GB."""
    width = 100_000
    plan = memory_plan(
        lambda: nn.Sequential(Square(width), nn.ReLU(), Square(width)), (torch.ones(1, width),), workers=4, copies=False
    )[0]
    assert plan.home == 2 * 4 * width * width // 4
    assert plan.piece == 2 * 4 * width * width // 4
    assert plan.total > plan.held == plan.home + 2 * plan.piece


def test_a_loss_that_asks_for_values_is_said_and_leaves_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    def loss(output: Tensor) -> Tensor:
        return output.sum() if output.sum().item() > 0 else output.mean()

    plan = memory_plan(network, (torch.ones(BATCH, INPUTS),), MAKERS["momentum"], workers=2, loss=loss)[0]
    assert "lacks activations" in caplog.text
    assert plan.piece == plan.gradients == plan.state


def test_live_bytes_are_those_of_what_lives() -> None:
    with Live() as live:
        first = torch.zeros(100)
        view, second = first[:50], first + 1
        first.add_(1)
        del first, second
        assert live.now == 400  # the view keeps it
        del view
    assert (live.now, live.most) == (0, 800)


def test_workers_that_need_the_same_share_a_row() -> None:
    alike, other = Plan(1, 2, 3, 4, 5, 6, 7), Plan(10**6, 2, 3, 4, 5, 6, 7)
    rows = list(table([alike, alike, other]).columns[0].cells)
    assert rows == ["0-1", "2"]


def test_a_run_says_what_it_plans_and_what_it_took(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = isthmus.train(out=tmp_path / "run", executor="serial", rounds=1, workers=2, widths=(16,), optimizer="adamw")
    assert run is not None
    assert "memory each worker will need" in capsys.readouterr().err
    planned, held = run.summary["planned_memory_bytes"], run.summary["worker_memory_bytes"]
    assert all(0 < least < most for least, most in zip(held, planned, strict=True))
    assert run.summary["measured_peak_bytes"] == [None, None]


@pytest.mark.parametrize("strategy", ["local-sgd", "data-parallel"])
def test_means_are_the_same_bits_however_much_travels_at_once(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for at_once, part in ((1 << 20, 1 << 20), (1, 1 << 20), (1 << 20, 8), (100, 40)):
        monkeypatch.setattr(tensors, "AT_ONCE", at_once)
        monkeypatch.setattr(tensors, "PART", part)
        monkeypatch.setattr(buckets, "BUCKET", at_once)
        results.append(run_in_turn(weights, [(strategy,)] * 3)[0])
    for result in results[1:]:
        assert all(torch.equal(one, other) for one, other in zip(results[0], result, strict=True))


def weights(strategy: str) -> list[Tensor]:
    with isthmus.Training(network, (torch.ones(1, INPUTS),), MAKERS["momentum"], strategy, local_steps=2) as training:
        x = torch.linspace(-1, 1 + training.worker, BATCH * INPUTS).view(BATCH, INPUTS)
        for _ in range(STEPS):
            training.module(x).square().mean().backward()
            training.optimizer.step()
            training.optimizer.zero_grad()
        training.merge()
        return [parameter.detach().clone() for parameter in training.module.parameters()]
