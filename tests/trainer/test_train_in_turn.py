"""Workers that take turns in one process: who failed is named, nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from isthmus.errors import InvalidInput, WorkerError
from isthmus.records import read_run
from isthmus.trainer.executors.in_turn import run_in_turn
from isthmus.trainer.membership.link import join
from isthmus.trainer.training import Training
from isthmus.trainer.wire.exchange import all_gather, drive
from isthmus.trainer.wire.meter import Meter


def meet() -> list[int]:
    """Every worker's number, told by itself."""
    link = join()
    told = drive(all_gather(torch.tensor([link.index]), link), link, Meter())
    return [int(each.item()) for each in told]


def worker_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("worker ")]


def test_all_meet_and_are_told_apart() -> None:
    assert run_in_turn(meet, [()] * 3) == [[0, 1, 2]] * 3
    assert not worker_threads()


@pytest.mark.parametrize("culprit", [0, 1, 2])
def test_a_worker_that_raises_is_named(culprit: int) -> None:
    def fail() -> None:
        meet()
        if join().index == culprit:
            raise ValueError("the third number is odd")
        meet()

    with pytest.raises(WorkerError, match=rf"^worker {culprit} failed \(ValueError: the third number is odd\)$"):
        run_in_turn(fail, [()] * 3)
    assert not worker_threads()


def test_what_isthmus_refuses_is_raised_as_it_is() -> None:
    def refuse() -> None:
        meet()
        if join().index == 2:
            raise InvalidInput("`rate` must be less than 1, got 3")
        meet()

    with pytest.raises(InvalidInput, match=r"^`rate` must be less than 1, got 3$"):
        run_in_turn(refuse, [()] * 3)


@pytest.mark.parametrize("deserter", [0, 1, 2])
def test_a_worker_that_ends_while_others_wait_is_named(deserter: int) -> None:
    def leave() -> None:
        meet()
        if join().index != deserter:
            meet()

    with pytest.raises(WorkerError, match=rf"^worker {deserter} ended while worker \d waits for it: .*close\(\)$"):
        run_in_turn(leave, [()] * 3)
    assert not worker_threads()


def test_a_training_that_is_not_closed_is_named() -> None:
    def steps() -> None:
        training = Training(Two, example=(torch.zeros(2, 4),), optimizer=make_sgd, local_steps=2)
        for _ in range(1 + training.worker):  # worker 0 never merges its one step, and leaves
            training.module(torch.ones(3, 4)).sum().backward()
            training.optimizer.step()

    with pytest.raises(WorkerError, match=r"^worker 0 ended while worker 1 waits for it: .*training\.close\(\)$"):
        run_in_turn(steps, [()] * 2)


class Two(nn.Sequential):
    """Two layers."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))


def make_sgd(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(module.parameters(), lr=0.1)


def test_the_callers_generator_and_threads_are_left_alone() -> None:
    torch.manual_seed(7)
    before, threads = torch.random.get_rng_state(), torch.get_num_threads()
    drawn = run_in_turn(lambda: [meet(), torch.rand(3)][1], [()] * 2)
    assert torch.equal(*drawn)  # as in processes of their own, which have drawn nothing
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_an_interrupted_run_says_so(tmp_path: Path, how: signal.Signals) -> None:
    out = tmp_path / "run"
    flags = ["--executor", "serial", "--workers", "3", "--rounds", "100000", "--widths", "32", "--eval-every", "1000"]
    command = subprocess.Popen(
        [sys.executable, "-m", "isthmus", "train", *flags, "--out", str(out)], stderr=subprocess.PIPE, text=True
    )
    try:
        wait_for(lambda: (out / "rows.jsonl").exists() and (out / "rows.jsonl").read_text().count("\n") > 3)
        os.kill(command.pid, how)
        _, errors = command.communicate(timeout=20)
    finally:
        command.kill()
    assert command.returncode == 130
    assert errors.splitlines()[-1] == "isthmus: interrupted"
    assert "Traceback" not in errors
    run = read_run(out)
    assert run.status == "interrupted"
    assert [row["round"] for row in run.rows] == list(range(len(run.rows)))


def wait_for(condition: Callable[[], bool], seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "took too long"
        time.sleep(0.05)
