"""The seconds of an account: a worker that computes longer is seen to, and nobody's waiting counts as computing."""

import time

import pytest
import torch
from torch import nn

import isthmus
from isthmus.trainer import Account
from isthmus.trainer.executors.in_turn import run_in_turn

PAUSE, STEPS = 0.05, 6


def job(strategy: str, slow: int) -> tuple[list[float], list[float]]:
    """Be one worker, of which one sleeps in every step; return what it computed and waited, by worker."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    x = torch.randn(16, 4)
    with isthmus.Training(
        network, (x,), lambda module: torch.optim.SGD(module.parameters(), 0.1), strategy, local_steps=2
    ) as training:

        def steps(count: int, pause: float) -> Account:
            for _ in range(count):
                loss = training.module(x).square().mean()
                time.sleep(pause if training.worker == slow else 0)
                loss.backward()
                training.optimizer.step()
                training.optimizer.zero_grad()
                time.sleep(pause)  # as in a loader: no part of a step
            return training.account()

        before, after = steps(2, 0), steps(STEPS, PAUSE)
    return (
        [late - early for early, late in zip(before.computing_seconds, after.computing_seconds, strict=True)],
        [late - early for early, late in zip(others(before), others(after), strict=True)],
    )


def others(account: Account) -> list[float]:
    """The seconds spent in exchanges, by worker: while workers take turns, any of them may stand in a message."""
    return [sum(each) for each in zip(account.moving_seconds, account.waiting_seconds, strict=True)]


@pytest.mark.parametrize("strategy", ["ist", "data-parallel"])
@pytest.mark.parametrize("slow", [0, 1])
def test_the_seconds_of_steps_are_computing(strategy: str, slow: int) -> None:
    computing, waiting = run_in_turn(job, [(strategy, slow)] * 2)[0]
    assert computing[slow] >= STEPS * PAUSE
    assert computing[slow] - computing[1 - slow] >= STEPS * PAUSE / 2  # the other does the same, but for the pause
    assert waiting[1 - slow] >= STEPS * PAUSE  # workers of one process take turns
