"""Heartbeats over a real store: who is silent, late or dead is named, and nobody else."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st

from cases.groups import PRELOADED
from isthmus.errors import InvalidInput
from isthmus.trainer.membership.beat import PHASES, Beat
from isthmus.trainer.membership.monitor import Heard, Monitor, Patience

QUICK = Patience(interval=0.05, say_after=0.5, silent=1.0)


@pytest.fixture
def port() -> Iterator[int]:
    """The port of a store that lives as long as the test."""
    listener = socket.create_server(("127.0.0.1", 0))
    number = listener.getsockname()[1]
    server = dist.TCPStore(
        "127.0.0.1", number, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach()
    )
    yield number
    del server


def client(port: int) -> dist.Store:
    return dist.PrefixStore("isthmus", dist.TCPStore("127.0.0.1", port, is_master=False))


class Worker:
    """A worker as its monitor sees it; a test changes its attributes."""

    def __init__(
        self,
        port: int,
        seat: int,
        members: list[int],
        phase: str = "waiting",
        round: int = 5,
        patience: Patience = QUICK,
    ) -> None:
        self.store = client(port)
        self.beat = Beat(seat, 0, os.getpid(), round, phase)
        self.members, self.incarnations = members, dict.fromkeys(members, 0)
        self.began: float | None = None  # of the present exchange
        self.deadline = 1e9
        self.lost: list[tuple[int, str]] = []
        self.said: list[str] = []
        self.known: list[Heard] = []
        self.told_to_stop: list[str] = []
        self.broke: list[str] = []
        self.monitor = Monitor(
            self.store,
            seat,
            status=lambda: self.beat,
            members=lambda: self.members,
            incarnations=lambda: self.incarnations,
            waiting=lambda: None if self.began is None else time.monotonic() - self.began,
            deadline=lambda: self.deadline,
            lose=lambda seat, why: self.lost.append((seat, why)),
            log=self.said.append,
            publish=self._publish,
            stop=self.told_to_stop.append,
            broken=self.broke.append,
            patience=patience,
        )

    def _publish(self, known: object) -> None:
        self.known = list(known)  # type: ignore[call-overload]

    def __enter__(self) -> Worker:
        self.monitor.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.monitor.stop()

    def waits(self, deadline: float = 1e9) -> None:
        self.deadline, self.began = deadline, time.monotonic()


def soon(true: Callable[[], object], within: float = 5.0) -> None:
    """Wait until something is true."""
    until = time.monotonic() + within
    while not true():
        assert time.monotonic() < until, "did not become true"
        time.sleep(0.005)


def live_in_a_process(port: int, seat: int, members: list[int]) -> None:
    """Be a worker that waits for the others, in a process of its own, and note whom it declares lost."""
    with Worker(port, seat, members) as worker:
        worker.waits(deadline=1.0)
        while not worker.store.check(["end"]):
            time.sleep(0.01)
        worker.store.set("lost", json.dumps(worker.lost))


@given(
    beat=st.builds(
        Beat,
        seat=st.integers(0, 1000),
        incarnation=st.integers(0, 99),
        process=st.integers(0, 2**22),
        round=st.integers(0, 10**9),
        phase=st.sampled_from(sorted(PHASES)),
        sent=st.integers(0, 2**62),
        received=st.integers(0, 2**62),
        loss=st.none() | st.floats(),
        number=st.integers(0, 10**9),
        steps=st.integers(0, 10**9),
        exchanges=st.integers(0, 10**9),
    ),
    cut=st.integers(0, 60),
)
def test_a_beat_is_read_as_it_was_written_and_a_damaged_one_is_none(beat: Beat, cut: int) -> None:
    text = beat.to_text()
    assert Beat.of_text(text) == beat == Beat.of_text(text.encode())
    assert Beat.of_text(text[:cut]) is None
    for other in ("null", "[]", "{}", "[" * 4000, text.replace('"phase"', '"face"'), text + " " * 5000, b"\xff" * 9):
        assert Beat.of_text(other) is None


def test_a_beat_says_which_rule_a_value_breaks() -> None:
    with pytest.raises(InvalidInput, match="`round` must be at least 0, got -1"):
        Beat(0, 0, 1, -1, "waiting")
    with pytest.raises(InvalidInput, match="`phase` must be one of"):
        Beat(0, 0, 1, 1, "sleeping")
    with pytest.raises(InvalidInput, match="`silent` must be greater than 0"):
        Patience(silent=0)


@given(st.lists(st.booleans(), max_size=12), st.integers(0, 12))
def test_a_loop_is_uneven_where_a_step_was_passed_over_and_never_by_the_age_of_a_beat(
    program: list[bool], more: int
) -> None:
    """A worker's course is steps (True) and exchanges (False); its beat may be of any place in it."""

    def beat(course: list[bool]) -> Beat:
        phase = "stepping" if course[-1:] == [True] else "waiting"
        return Beat(1, 0, 1, 5, phase, steps=sum(course), exchanges=len(course) - sum(course))

    places = range(len(program) + 1)
    everywhere = [beat(program[:at]) for at in places]
    assert not any(one.uneven(other) for one in everywhere for other in everywhere)
    at = min(more, len(program))
    stuck = beat([*program[:at], True])  # as far as the one comes: the other does not take this step
    passed = [each for each in everywhere[at + 1 :] if each.phase == "waiting" and each.steps == sum(program[:at])]
    assert all(stuck.uneven(each) for each in passed)
    assert bool(passed) == (program[at : at + 1] == [False])


def test_the_end_of_a_process_is_told_at_once_while_it_is_a_member_and_not_of_an_earlier_incarnation(port: int) -> None:
    with Worker(port, 0, [0, 1, 2]) as root:
        root.incarnations = {1: 1}
        other = client(port)
        other.set("out/1/0", "was killed (signal 9)")
        time.sleep(0.2)
        assert root.lost == []
        begun = time.monotonic()
        other.set("out/2/0", "was killed (signal 9)")
        soon(lambda: root.lost)
        took = time.monotonic() - begun
        other.set("out/1/1", "ended with exit code 1")
        other.set("out/0/0", "silent for 31 s")
        soon(lambda: len(set(root.lost)) == 3)
        told = len(root.lost)
        soon(lambda: len(root.lost) > told + 3)  # it is said again while they are members
        root.members = [0]
        root.incarnations = {}
        time.sleep(0.1)
        told = root.lost.count((2, "was killed (signal 9)"))
        time.sleep(0.1)
        assert root.lost.count((2, "was killed (signal 9)")) == told
    assert sorted(set(root.lost)) == [
        (0, "silent for 31 s"), (1, "ended with exit code 1"), (2, "was killed (signal 9)"),
    ]  # fmt: skip
    assert took < 0.5


@pytest.mark.processes
def test_a_stopped_process_is_named_and_does_not_blame_others_when_it_goes_on(port: int) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    frozen = context.Process(target=live_in_a_process, args=(port, 2, [2, 0, 1]), daemon=True)
    frozen.start()
    try:
        with Worker(port, 0, [2, 0, 1]) as second, Worker(port, 1, [2, 0, 1]) as third:
            soon(lambda: client(port).check(["beat/2"]), within=60)
            soon(lambda: second.monitor._ears.beats.get(2) and third.monitor._ears.beats.get(2))
            second.known = []
            second.waits(deadline=1.0)
            third.waits(deadline=1.0)
            time.sleep(0.2)
            assert second.known == second.said == []  # the first of the members speaks
            os.kill(frozen.pid or 0, signal.SIGSTOP)
            soon(lambda: second.lost and third.lost and second.said and second.known)
            time.sleep(0.3)
            assert {seat for seat, _ in second.lost} == {seat for seat, _ in third.lost} == {2}
            assert second.lost[0][1].startswith("silent for ")
            assert re.fullmatch(r"waiting for worker 2 \(last heard from \d s ago, round 5\)", second.said[0])
            assert third.said == third.known == []  # and the next stands in for it
            os.kill(frozen.pid or 0, signal.SIGCONT)
            soon(lambda: second.monitor._ears.beats[2] != second.known[2].beat)
            second.store.set("end", "")
            assert json.loads(second.store.get("lost")) == []
    finally:
        frozen.kill()
        frozen.join()


@pytest.mark.parametrize("frozen_for", [None, 7.5])
@pytest.mark.parametrize(("deadline", "least"), [(8.0, 8.0), (6.0, 6.0), (30.0, 30.0), (2.0, 4.0)])
def test_a_frozen_worker_is_lost_at_the_deadline_whenever_it_froze(
    deadline: float, least: float, frozen_for: float | None
) -> None:
    """Within two looks, a fifth of a heartbeat's interval; by a clock that is told, so on any machine.

    Where the deadline is shorter it still takes four beats: three that do not come, and one to be heard.
    """
    for late in (0.04, 0.39, 0.95):  # of the other's looks, and of when it listens, after those of the one that freezes
        for froze in (20.0, 20.13, 20.39, 20.65, 20.91, 20.999):
            woke = math.inf if frozen_for is None else froze + frozen_for
            lost = _lost_at(froze, woke, late, deadline)
            if woke < froze + least:
                assert lost is None
            else:
                assert lost is not None
                assert deadline < lost - froze <= least + 0.2 + 1e-9


def _lost_at(froze: float, woke: float, late: float, deadline: float) -> float | None:
    """Return when a worker is declared lost that freezes while another waits for it; None if it never is."""
    store, now, lost = dist.HashStore(), [0.0], list[float]()

    def monitor(seat: int, waiting: Callable[[], float | None]) -> Monitor:
        return Monitor(
            dist.PrefixStore("isthmus", store),
            seat,
            status=lambda: Beat(seat, 0, 1, 5, "waiting"),
            members=lambda: [0, 1],
            incarnations=lambda: {0: 0, 1: 0},
            waiting=waiting,
            deadline=lambda: deadline,
            lose=lambda seat, why: lost.append(now[0]),
        )

    freezes = monitor(1, lambda: None)
    waits = monitor(0, lambda: now[0] - froze if froze <= now[0] < woke else None)
    looks = [(number / 10, freezes) for number in range(600) if not froze < number / 10 <= woke]
    looks += [(number / 10 + late, waits) for number in range(600)]
    for at, one in sorted(looks, key=lambda look: look[0]):
        now[0] = at
        one._look(at)
        if lost:
            return lost[0]
    return None


def test_nobody_is_lost_where_all_live_and_wait_and_it_is_said(port: int) -> None:
    with Worker(port, 0, [0, 1]) as root, Worker(port, 1, [0, 1]) as other:
        soon(lambda: len([each for each in root.known if each.beat is not None]) == 2)
        root.waits(deadline=0.3)
        other.waits(deadline=0.3)
        soon(lambda: root.said)
    assert len(root.said) == 1
    assert root.said[0].startswith("all workers live and have waited for each other for ")
    assert other.said == []


@pytest.mark.processes
def test_a_store_that_stands_still_makes_nobody_silent() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    number = listener.getsockname()[1]
    code = (
        "import time, torch.distributed as dist\n"
        f"server = dist.TCPStore('127.0.0.1', {number}, is_master=True, wait_for_workers=False,"
        f" master_listen_fd={listener.fileno()})\n"
        "time.sleep(60)"
    )
    server = subprocess.Popen([sys.executable, "-c", code], pass_fds=[listener.fileno()])
    listener.close()
    try:
        with Worker(number, 0, [0, 1]) as one, Worker(number, 1, [0, 1]) as other:
            soon(lambda: len([each for each in one.known if each.beat is not None]) == 2, within=60)
            one.waits(deadline=1.0)
            other.waits(deadline=1.0)
            server.send_signal(signal.SIGSTOP)
            time.sleep(1.0)
            time.sleep(0.5)  # longer than a worker may be silent
            server.send_signal(signal.SIGCONT)
            before = one.monitor._number
            soon(lambda: one.monitor._number > before + 2)
        assert one.lost == other.lost == []
    finally:
        server.kill()
        server.wait()


def test_who_lives_but_has_not_come_is_late_and_who_waits_is_not(port: int) -> None:
    with (
        Worker(port, 0, [0, 1, 2, 3]) as root,
        Worker(port, 1, [0, 1, 2, 3], phase="computing") as waits,  # inside an exchange, says its link
        Worker(port, 2, [0, 1, 2, 3], phase="computing") as slow,
        Worker(port, 3, [0, 1, 2, 3], phase="computing", round=6),
    ):
        soon(lambda: len([each for each in root.known if each.beat is not None]) == 4)
        waits.waits()
        soon(lambda: root.known[1].beat is not None and root.known[1].beat.phase == "waiting")
        root.waits(deadline=1.0)
        soon(lambda: root.lost)
        slow.beat = replace(slow.beat, phase="waiting")
        time.sleep(0.3)
        assert {seat for seat, _ in root.lost} == {2}
        assert root.lost[0][1].startswith("late: computing in round 5 while others have waited ")
        waits.monitor.stop()
        soon(lambda: root.lost[-1] == (1, "has left"))
    assert root.said[:2] == ["waiting for worker 2 (computing, round 5)", "waiting for worker 3 (computing, round 6)"]


def test_a_worker_that_never_came_is_silent_and_lines_come_ever_more_rarely(port: int) -> None:
    with Worker(port, 0, [0, 1], patience=replace(QUICK, say_after=0.15)) as root:
        root.waits(deadline=0.6)
        soon(lambda: root.lost)
        time.sleep(0.8)
    assert root.lost[0][0] == 1
    assert set(root.said) <= {f"waiting for worker 1 (not heard from in {n} s)" for n in range(3)}
    assert 2 <= len(root.said) <= 3  # at 0.15, 0.6 and 1.5 s


def test_what_is_known_of_all_is_published_by_the_root_alone(port: int) -> None:
    with Worker(port, 1, [2, 1]) as second, Worker(port, 2, [2, 1]) as first:
        second.beat = replace(second.beat, phase="computing", sent=7, loss=0.5, round=6)
        soon(lambda: len(first.known) == 2 and first.known[0].beat and first.known[0].beat.sent == 7)
        assert [each.seat for each in first.known] == [1, 2]
        assert replace(first.known[0].beat or first.beat, number=0) == second.beat
        assert second.known == []
        first.members = [2]
        second.monitor.stop()
        soon(lambda: first.known[0].beat is not None and first.known[0].beat.phase == "ended")
        assert [each.member for each in first.known] == [False, True]


def test_the_word_to_stop_is_passed_on_once(port: int) -> None:
    with Worker(port, 1, [0, 1]) as worker:
        client(port).set("stop", "signal 15")
        soon(lambda: worker.told_to_stop)
        time.sleep(0.15)
    assert worker.told_to_stop == ["signal 15"]


def test_a_run_that_is_to_stop_waits_for_the_living_and_not_for_the_dead(port: int) -> None:
    with Worker(port, 0, [0, 1, 2]) as root, Worker(port, 1, [0, 1, 2], phase="computing"):
        soon(lambda: root.known and root.known[1].beat is not None)
        root.waits()
        time.sleep(5 * QUICK.interval)
        assert root.lost == []
        client(port).set("stop", "signal 15")
        soon(lambda: root.lost)
        time.sleep(5 * QUICK.interval)
    assert {seat for seat, _ in root.lost} == {2}
    assert root.lost[0][1].startswith("silent for ")


def test_a_view_that_fails_ends_alone(port: int, caplog: pytest.LogCaptureFixture) -> None:
    with Worker(port, 0, [0, 1]) as root:
        root.monitor._publish = lambda known: [][0]
        soon(lambda: root.monitor._publish is None)
        client(port).set("out/1/0", "was killed (signal 9)")
        soon(lambda: root.lost)
    assert caplog.messages == ["isthmus: no live view any more (IndexError: list index out of range)"]


def test_a_broken_store_or_a_callback_that_fails_ends_the_thread_with_one_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raised: list[object] = []
    monkeypatch.setattr(threading, "excepthook", raised.append)
    listener = socket.create_server(("127.0.0.1", 0))
    number = listener.getsockname()[1]
    server = dist.TCPStore(
        "127.0.0.1", number, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach()
    )
    with Worker(number, 0, [0, 1]) as fails, Worker(number, 1, [0, 1]) as root:
        soon(lambda: fails.known)
        fails.beat = None  # type: ignore[assignment]
        soon(lambda: fails.broke)
        del server
        soon(lambda: root.broke)
        time.sleep(0.1)
    assert fails.broke == ["AttributeError: 'NoneType' object has no attribute 'phase'"]
    assert len(root.broke) == 1
    assert "\n" not in root.broke[0]
    assert not raised
    assert not any(thread.name.startswith("monitor of") for thread in threading.enumerate())
