"""What was home to a lost worker, and whose copy is lost too, is as old as the last checkpoint; the rest is not."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from cases.loops import batch
from cases.twins import network, plain
from isthmus import Training, launch
from isthmus.errors import WorkerError
from isthmus.strategies import IST
from isthmus.trainer.config import Faults
from isthmus.trainer.membership.link import Change
from isthmus.trainer.rounds.news import News
from isthmus.trainer.store.homes import Homes

WORKERS, STEPS = 4, 2
ROWS = "had rows that nobody has a copy of: they are now those of checkpoint-00000"


@dataclass(frozen=True)
class Case:
    """One run.

    Attributes:
        folder: of checkpoints.
        killed: the seats that are lost in the end, at once.
        saves: after which rounds a checkpoint is written.
        copies: whether rows are copied.
        comes: a seat that is lost after the last of them, and comes back before that.
        damages: whether the last checkpoint is damaged before that.
    """

    folder: Path
    killed: tuple[int, ...]
    saves: tuple[int, ...] = ()
    copies: bool = True
    comes: int | None = None
    damages: bool = False


def job(case: Case) -> dict[str, Any] | None:
    """Be one worker. Weights change until the worker that comes back is there, and not any more from then on."""
    came = os.environ["TORCHELASTIC_RESTART_COUNT"] != "0"
    if came and int(os.environ["RANK"]) != case.comes:
        return None
    torch.set_num_threads(1)
    faults = Faults(copies=case.copies, min_workers=1)
    training = Training(network(), (torch.zeros(2, 6),), plain, IST(scale="none"), local_steps=STEPS, faults=faults)
    saved: list[dict[str, np.ndarray[Any, Any]]] = []
    while not (came and training.merged):
        for _ in range(STEPS):
            x, y = batch(training.seat, training.steps)
            loss = functional.cross_entropy(training.module(x), y)
            came = came or any(event.what == "joined" for event in training.events)
            if came:
                training.optimizer.param_groups[0]["lr"] = 0.0
            loss.backward()
            training.optimizer.step()
            training.optimizer.zero_grad()
        if not came and training.round in case.saves:
            training.save(case.folder)
            saved.append(weights(training))
            if training.round == max(case.saves) and training.seat == case.comes:
                os.kill(os.getpid(), signal.SIGKILL)
        if case.comes is None and training.round == 3:
            break
    before = weights(training)
    if training.worker == 0 and case.damages:
        file = sorted(case.folder.glob("checkpoint-*/*.safetensors"))[-1]
        file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    training.gather()  # none is killed before the damage is done
    if training.seat in case.killed:
        os.kill(os.getpid(), signal.SIGKILL)
    after = weights(training)
    training.close()
    events = [(event.what, event.seat, event.text) for event in training.events]
    return {"saved": saved, "before": before, "after": after, "events": events}


def weights(training: Training) -> dict[str, np.ndarray[Any, Any]]:
    with training.whole() as merged:
        assert merged is not None
        return {name: p.detach().clone().numpy() for name, p in merged.named_parameters()}


def check(case: Case, gone: int, checkpoint: int) -> list[tuple[str, int, str]]:
    """Lose workers; return what is said of it.

    Args:
        case: the run.
        gone: the home whose rows nobody has.
        checkpoint: where they must come from, counted among those that were written.
    """
    found = launch(job, case, workers=WORKERS, elastic=True)
    assert found is not None
    old, before, after = found["saved"][checkpoint], found["before"], found["after"]
    homes = Homes(WORKERS, {name: value.shape for name, value in before.items()})
    older = 0
    for name, value in after.items():
        first, last = homes.rows(name, gone)
        expected = before[name].copy()
        expected[first:last] = old[name][first:last]
        older += int((expected != before[name]).sum())
        assert np.array_equal(value, expected), name
    assert older > 20  # there is something to tell apart
    events: list[tuple[str, int, str]] = found["events"]
    return events


def test_two_neighbours_at_once(tmp_path: Path) -> None:
    events = check(Case(tmp_path, (1, 2), (1, 2)), gone=1, checkpoint=1)
    assert ("restored", 1, f"{ROWS}2") in events


def test_one_of_whose_rows_there_is_no_copy(tmp_path: Path) -> None:
    events = check(Case(tmp_path, (2,), (1,), copies=False), gone=2, checkpoint=0)
    assert ("restored", 2, f"{ROWS}1") in events


def test_a_worker_that_has_never_saved_knows_where_others_did(tmp_path: Path) -> None:
    """It has come back since, and half of what is missing will live with it."""
    events = check(Case(tmp_path, (1, 2), (1,), comes=3), gone=1, checkpoint=0)
    assert ("restored", 1, f"{ROWS}1") in events


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(tmp_path: Path) -> None:
    events = check(Case(tmp_path, (1, 2), (1, 2), damages=True), gone=1, checkpoint=0)
    (text,) = [text for what, _, text in events if what == "restored"]
    assert text.startswith(f"{ROWS}1 (")
    assert "checkpoint-000002" in text


def test_where_there_is_no_checkpoint_the_run_ends_with_a_line(tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match="the worker that kept their copy is gone too, and there is no checkpoint"):
        launch(job, Case(tmp_path, (1, 2)), workers=WORKERS, elastic=True)


def test_rows_are_told_of_the_loss_that_they_belong_to_and_of_no_later_one() -> None:
    news = News()
    news.restored = "had rows"
    for change in (Change({}, (3,)), Change({1: "was killed"}, ())):
        news.changed(change, 5, (), 4, aloud=False)
    assert [event.what for event in news.events] == ["joined", "lost"]
