"""What cheap machines do to a run, done to real processes; ``make chaos`` does the same in all phases, for longer."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from cases.loops import batch, perceptron
from cases.runs import DIGITS, trained
from isthmus import Training, launch
from isthmus.errors import WorkerError
from isthmus.records import read_run
from isthmus.trainer.checkpoint.manifest import checkpoints, number_of
from isthmus.trainer.config import Faults
from isthmus.trainer.executors import supervisor
from isthmus.trainer.executors.supervisor import Supervisor
from isthmus.trainer.local.loop import Loop
from isthmus.trainer.membership import link as links
from isthmus.trainer.membership.link import Elastic, join
from isthmus.trainer.wire.exchange import LostPeer, all_gather, drive
from isthmus.trainer.wire.meter import Meter

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
from chaos import Trial

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


def in_epoch(number: int) -> None:
    """Die at the second exchange with the members of an epoch, while things are brought to where they belong."""
    link = join()
    assert isinstance(link, Elastic)
    made, exchange = [0], link.exchange

    def counted(request: Any) -> Any:
        made[0] += link.epoch.number == number
        if made[0] > 1:
            die()
        return exchange(request)

    link.exchange = counted  # type: ignore[method-assign]


def freeze_at_exchange(number: int) -> None:
    """Stand still for four seconds when so many exchanges have been made."""
    link = join()
    assert isinstance(link, Elastic)
    made, exchange = [0], link.exchange

    def counted(request: Any) -> Any:
        made[0] += 1
        if made[0] == number:
            subprocess.Popen(["sh", "-c", f"sleep 4; kill -CONT {os.getpid()}"])
            os.kill(os.getpid(), signal.SIGSTOP)
        return exchange(request)

    link.exchange = counted  # type: ignore[method-assign]


def complete(training: Training) -> bool:
    """Whether a worker has come back, which may be this one."""
    link = join()
    assert isinstance(link, Elastic)
    return "joined" in {event.what for event in training.events} or link.me.incarnation > 0


def train(harm: dict[int, tuple[Any, int]], deadline: float | None = None, most: int = ROUNDS) -> dict[str, Any] | None:
    """Be one worker; some come to harm the first time that they are there."""
    torch.set_num_threads(1)
    seat = int(os.environ["RANK"])
    if seat in harm and first():
        harm[seat][0](harm[seat][1])
    training = Training(
        perceptron(), (torch.zeros(2, 6),), lambda m: torch.optim.SGD(m.parameters(), lr=0.1), local_steps=2,
        faults=Faults(min_workers=1, deadline=deadline),
    )  # fmt: skip
    begun, longest = time.monotonic(), 0.0
    while training.round < ROUNDS or (training.round < most and not complete(training)):
        x, y = batch(training.seat, training.steps)
        functional.cross_entropy(training.module(x), y).backward()
        training.optimizer.step()
        training.optimizer.zero_grad()
        longest, begun = max(longest, time.monotonic() - begun), time.monotonic()
    training.close()
    if os.environ["TORCHELASTIC_RESTART_COUNT"] != "0":  # it knows only what has happened since it came
        return None
    return {"longest": longest, "events": [(event.what, event.seat) for event in training.events]}


def test_one_more_dies_when_those_who_are_left_are_about_to_be_joined() -> None:
    """Who waits for it notices at once, and not when a connection has not come for long."""
    found = launch(train, {2: (at_exchange, 30), 0: (when_joining, 1)}, workers=4)
    assert found is not None
    assert {seat for what, seat in found["events"] if what == "lost"} == {0, 2}
    assert found["longest"] < 12  # gloo itself gives up after 20


def test_one_more_dies_while_a_worker_is_being_let_in() -> None:
    """The newcomer and those who were there agree again at once on who goes on."""
    found = launch(train, {2: (at_exchange, 30), 3: (in_epoch, 2)}, None, 5000, workers=4)
    assert [event for event in found["events"] if event[0] == "lost"] == [("lost", 2), ("lost", 3)]
    assert ("joined", 2) in found["events"]
    assert found["longest"] < 12


def leaves_at_once() -> list[int] | None:
    """Be one of three; one meets the others and has nothing to do with them."""
    link = join()
    assert isinstance(link, Elastic)
    link.deadline = 1e6
    if link.seat == 1:
        return None
    try:
        drive(all_gather(torch.zeros(1), link, counted=False), link, Meter())
    except LostPeer:
        link.regroup(False)
    return [member.seat for member in link.members]


def test_a_worker_that_returns_without_a_word_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its launcher knows that it has left, whatever the deadline."""
    monkeypatch.setattr(supervisor, "LINGER", 0.2)
    assert launch(leaves_at_once, workers=3) == [0, 2]


def test_nobody_waits_for_ever_when_all_have_died() -> None:
    begun = time.monotonic()
    with pytest.raises(WorkerError, match=r"no worker is left that knows the network: go on from a checkpoint"):
        launch(train, dict.fromkeys(range(3), (at_exchange, 30)), workers=3)
    assert time.monotonic() - begun < 20


def test_who_was_silent_and_lives_comes_back_where_nobody_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under another launcher, or on a host of its own, it wakes up and finds that the others have gone on."""
    monkeypatch.setattr(Supervisor, "_look", lambda self: None)
    found = launch(train, {2: (freeze_at_exchange, 30)}, 1.0, 5000, workers=3)
    assert found["events"][:2] == [("lost", 2), ("joined", 2)]


LATE = """
import os, time
from torch.nn import functional

def loss():
    calls = [0]
    def of(output, targets):
        calls[0] += 1
        if os.environ["RANK"] == "1" and calls[0] == 20:
            time.sleep(4)  # twice the deadline
        return functional.cross_entropy(output, targets)
    return of
"""


@pytest.fixture
def trial(tmp_path: Path) -> Iterator[Trial]:
    """A run of four workers, made when it is started; nothing is left of it afterwards."""
    made = Trial(tmp_path / "run", ("--rounds", "100000", "--deadline", "6", "--checkpoint-every", "5"))
    yield made
    if hasattr(made, "process"):
        if made.running:
            made.end()
        assert made.orphans() == []


def starts(trial: Trial) -> None:
    trial.start()
    assert trial.wait_for_rounds(3), trial.said()


def kinds(trial: Trial) -> list[tuple[str, int]]:
    return [(event["event"], event["worker"]) for event in trial.events]


def strikes(trial: Trial, who: str, phase: str, how: int = signal.SIGKILL) -> dict[str, Any]:
    trial.order(who, phase, how)
    done = trial.struck()
    assert done is not None, trial.said()
    return done


def test_a_worker_and_the_root_are_killed_and_come_back_and_sigterm_leaves_a_checkpoint(trial: Trial) -> None:
    """Rows go on, whoever writes them; a signal ends the run within ten seconds, and it can be gone on with."""
    starts(trial)
    first = strikes(trial, "worker", "merge")["seat"]
    assert trial.wait(lambda: ("joined", first) in kinds(trial), 150), trial.said()
    root = strikes(trial, "root", "any")["seat"]
    assert trial.wait(lambda: kinds(trial).count(("joined", root)) > (root == first), 150), trial.said()
    begun = time.monotonic()
    assert trial.end() == 130
    assert time.monotonic() - begun < 10, trial.said()
    assert trial.orphans() == []
    assert trial.check() == "sound"
    rounds = trial.rows[-1]["round"]
    assert (trial.folder / "checkpoints" / f"checkpoint-{rounds:06d}").is_dir()
    trial.start("--resume", str(trial.folder))
    assert trial.wait(lambda: trial.rows[-1]["round"] > rounds or not trial.running, 200), trial.said()
    os.kill(min(trial.here.values()), signal.SIGSTOP)  # not even one that stands still outlives the launcher
    trial.process.kill()
    assert trial.orphans() == []
    assert [row["round"] for row in trial.rows] == list(range(len(trial.rows)))


def test_who_stands_still_for_a_moment_is_waited_for_and_who_does_so_for_good_is_named(trial: Trial) -> None:
    starts(trial)
    seat = strikes(trial, "worker", "steps", signal.SIGSTOP)["seat"]
    time.sleep(3)
    os.kill(trial.here[seat], signal.SIGCONT)
    assert trial.wait_for_rounds(5)
    assert not kinds(trial)
    root = strikes(trial, "root", "any", signal.SIGSTOP)
    assert trial.wait(lambda: ("lost", root["seat"]) in kinds(trial), 60), trial.said()
    assert any(f"worker {root['seat']} silent for" in line for line in trial.said())
    assert {seat for what, seat in kinds(trial) if what == "lost"} == {root["seat"]}
    begun = time.monotonic()
    trial.process.terminate()
    time.sleep(0.2)
    trial.process.terminate()  # at once
    assert trial.process.wait(10) == 130
    assert time.monotonic() - begun < 5


def test_nobody_outlives_the_launcher_and_a_checkpoint_is_whole_or_not_there(trial: Trial) -> None:
    starts(trial)
    assert trial.wait(lambda: len(trial.rows) > 6, 150)
    strikes(trial, "launcher", "checkpoint")
    assert trial.orphans() == []
    assert trial.check() == "sound"


def too_few(folder: Path) -> None:
    """Be one of three, of whom one is lost for good."""
    torch.set_num_threads(1)
    if not first():
        return
    if os.environ["RANK"] == "1":
        at_exchange(60)
    training = Training(
        perceptron(), (torch.zeros(2, 6),), lambda m: torch.optim.SGD(m.parameters(), lr=0.1), local_steps=1,
        faults=Faults(min_workers=3),
    )  # fmt: skip
    training._members.patience = 0.5
    training.save(folder)
    for step in range(1000):
        x, y = batch(training.seat, step)
        functional.cross_entropy(training.module(x), y).backward()
        training.optimizer.step()


def test_a_signal_before_the_first_step_of_a_round_makes_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Loop.round

    def told_to_stop(self: Loop, number: int, steps: range) -> Any:
        if number == 2:
            self.training.open()
            self.training._stop.set()
        return made(self, number, steps)

    monkeypatch.setattr(Loop, "round", told_to_stop)
    found = trained(tmp_path / "run", **DIGITS)
    assert [row["round"] for row in found.rows] == [0, 1, 2]
    assert found.status == "interrupted"
    assert [number_of(each) for each in checkpoints(tmp_path / "run" / "checkpoints")] == [2]


def test_a_run_stops_when_too_few_are_left(tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match="2 of 3 workers are left, and --min-workers is 3"):
        launch(too_few, tmp_path, workers=3)
    assert max(number_of(each) for each in checkpoints(tmp_path)) > 0


def test_who_is_late_starts_from_what_the_others_have(tmp_path: Path) -> None:
    """It lives, but others do not wait for it any longer; its block is dropped, and what it missed is handed to it."""
    (tmp_path / "late.py").write_text(LATE)
    flags = ("--rounds", "100000", "--eval-every", "1", "--deadline", "2", "--loss", "late:loss")
    trial = Trial(tmp_path / "run", flags, (tmp_path,))
    trial.start()
    try:
        assert trial.wait(lambda: len(kinds(trial)) > 1, 200), trial.said()
        assert trial.wait_for_rounds(5), trial.said()
        assert trial.end() == 130
    finally:
        assert trial.orphans() == []
    assert [row["round"] for row in trial.rows] == list(range(len(trial.rows)))
    assert kinds(trial)[:2] == [("lost", 1), ("joined", 1)]
    assert trial.check() == "sound"


def test_workers_started_by_hand_save_and_leave_when_one_of_them_is_told_to(tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "isthmus", "train", "--workers", "2", "--rounds", "100000", "--out", str(out)]
    command += ["--eval-every", "1000", "--checkpoint-every", "100000", "--widths", "16"]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    shared = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    workers = [
        subprocess.Popen(command, env={**shared, "RANK": str(rank)}, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    try:
        until = time.monotonic() + 90
        while not (out / "rows.jsonl").exists() or len((out / "rows.jsonl").read_text().splitlines()) < 3:
            assert time.monotonic() < until
            time.sleep(0.1)
        workers[1].send_signal(signal.SIGTERM)
        said = [worker.communicate(timeout=60)[1] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [130, 130], said
    assert len(checkpoints(out / "checkpoints")) == 1
    assert read_run(out).status == "interrupted"


def phases(folder: Path) -> list[str] | None:
    """Return what this worker said that it was doing, whenever it turned to the others."""
    link = join()
    assert isinstance(link, Elastic)
    seen, exchange = dict[str, None](), link.exchange

    def noted(request: Any) -> Any:
        seen[link.own.phase] = None
        return exchange(request)

    link.exchange = noted  # type: ignore[method-assign]
    training = Training(
        perceptron(), (torch.zeros(2, 6),), lambda m: torch.optim.SGD(m.parameters(), lr=0.1), local_steps=1
    )
    x, y = batch(training.seat, 0)
    functional.cross_entropy(training.module(x), y).backward()
    training.optimizer.step()
    with training.whole() as merged:
        assert merged is not None
        merged(x)
    training.save(folder)
    training.close()
    return list(seen)


def test_a_worker_says_what_it_is_doing(tmp_path: Path) -> None:
    assert launch(phases, tmp_path, workers=2) == ["starting", "computing", "looking", "saving"]
