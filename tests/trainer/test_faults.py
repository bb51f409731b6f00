"""What cheap machines do to a run, done to real processes; ``make chaos`` does the same in all phases, for longer."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest
import torch
from torch.nn import functional

from cases.loops import batch, perceptron
from isthmus import Training, launch
from isthmus.errors import WorkerError
from isthmus.trainer.config import Faults
from isthmus.trainer.membership import link as links
from isthmus.trainer.membership.link import Elastic, join

pytestmark = pytest.mark.processes
ROUNDS = 12


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def first() -> bool:
    return os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"


def at_exchange(number: int) -> None:
    """Die when so many exchanges have been made."""
    link = join()
    assert isinstance(link, Elastic)
    made, exchange = [0], link.exchange

    def counted(request: Any) -> Any:
        made[0] += 1
        if made[0] > number:
            die()
        return exchange(request)

    link.exchange = counted  # type: ignore[method-assign]


def when_joining(epoch: int) -> None:
    """Die when the members of an epoch are agreed on and about to be joined."""
    connect = links.Epoch.connect

    def late(self: links.Epoch, *args: Any) -> None:
        if self.number >= epoch:
            die()
        connect(self, *args)

    links.Epoch.connect = late  # type: ignore[method-assign]


def train(harm: dict[int, tuple[Any, int]], again: bool = False) -> dict[str, Any]:
    """Be one worker; some come to harm, if they are there for the first time, or again."""
    torch.set_num_threads(1)
    seat = int(os.environ["RANK"])
    if seat in harm and first() is not again:
        harm[seat][0](harm[seat][1])
    training = Training(
        perceptron(), (torch.zeros(2, 6),), lambda m: torch.optim.SGD(m.parameters(), lr=0.1), local_steps=2,
        faults=Faults(min_workers=1),
    )  # fmt: skip
    begun, longest = time.monotonic(), 0.0
    while training.round < ROUNDS or (again and training.workers < 4 and training.round < 500):
        x, y = batch(training.seat, training.steps)
        functional.cross_entropy(training.module(x), y).backward()
        training.optimizer.step()
        training.optimizer.zero_grad()
        longest, begun = max(longest, time.monotonic() - begun), time.monotonic()
    training.close()
    return {"longest": longest, "events": [(event.what, event.seat) for event in training.events]}


def test_one_more_dies_when_those_who_are_left_are_about_to_be_joined() -> None:
    """Who waits for it notices at once, and not when a connection has not come for long."""
    found = launch(train, {2: (at_exchange, 30), 0: (when_joining, 1)}, workers=4)
    assert {seat for what, seat in found["events"] if what == "lost"} == {0, 2}
    assert found["longest"] < 12  # gloo itself gives up after 20


def test_nobody_waits_for_ever_when_all_have_died() -> None:
    begun = time.monotonic()
    with pytest.raises(WorkerError, match=r"no worker is left that knows the network: go on from a checkpoint"):
        launch(train, dict.fromkeys(range(3), (at_exchange, 30)), workers=3)
    assert time.monotonic() - begun < 20
