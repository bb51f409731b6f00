#!/usr/bin/env python3
"""Do to real runs what cheap machines do to them, and measure what it costs.

    python tools/chaos.py table [--kills 20] [--others 5] [--minutes 30] [--only WORD]   every fault, in every phase
    python tools/chaos.py long [--kills 200] [--minutes 30]    one run, its workers killed again and again
    python tools/chaos.py calm [--seeds 5]                     the same run undisturbed
    python tools/chaos.py show [--write docs/faults.md]        what was found, as Markdown

What was measured is kept in ``--out`` (runs/chaos), a line a fault, with the commit and the load of the machine.
``table`` and ``calm`` stop after ``--minutes``, or whenever they are told to, and go on where they stopped. How many
rounds ``long`` makes follows from a short run before it, and ``calm`` makes as many. With ``--json`` what is found is
printed as JSON. A fault is told to a thread inside each worker, which looks at what the worker's main thread is doing
and strikes at a random instant of the phase that was asked for. Whatever a run leaves behind is found by a variable
that all its processes carry.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

from isthmus.progress import progress, say
from isthmus.trainer.executors.supervisor import EARLY

ROOT = Path(__file__).resolve().parents[1]
WORKERS = 4
DEADLINE = 8.0  # seconds
_TICK = 0.0005  # seconds between two looks at what a worker does
_ORDERS = "ISTHMUS_CHAOS"  # variable: the folder of orders

# Functions that a worker is in, innermost last, by the phase that they are.
PHASES: dict[str, tuple[tuple[str, str], ...]] = {
    "start": (("training.py", "_begin"), ("setup.py", "set_up"), ("rendezvous.py", "check_in")),
    "cut": (("ist.py", "open"),),
    "steps": (("loop.py", "round"),),
    "merge": (("ist.py", "close"),),
    "commit": (("members.py", "_vote"), ("members.py", "_do")),
    "checkpoint": (("write.py", "write"),),
    "evaluation": (("evaluate.py", "__call__"),),
    "recovery": (("members.py", "change"), ("members.py", "come"), ("link.py", "_ask")),
}
_INNER = ("cut", "merge", "commit", "checkpoint", "evaluation", "recovery")  # what is no longer "steps"
# How often a second of a phase is struck: seldom enough that one instant of it is about as likely as any other.
_RATES = {"start": 1.0, "any": math.inf}
_RATE = 100.0


# ---------------------------------------------------------------- inside the workers


def network() -> tuple[Any, tuple[Any, ...]]:
    """Return a small perceptron for the digits; called in every worker, where it starts the thread that strikes."""
    import torch
    from torch import nn

    if _ORDERS in os.environ and "RANK" in os.environ:
        _listen(os.getpid())
    layers = nn.Sequential(
        nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(),
        nn.Linear(64, 10),
    )  # fmt: skip
    return layers, (torch.zeros(2, 64),)


@cache  # a network is made more than once by a worker: to be looked at, too
def _listen(pid: int) -> None:
    threading.Thread(target=_obey, args=(Path(os.environ[_ORDERS]),), daemon=True, name=f"strikes {pid}").start()


def _obey(folder: Path) -> None:
    """Wait for orders, and strike at some instant of the phase that they name."""
    from isthmus.trainer.membership import link

    seat, incarnation = int(os.environ["RANK"]), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    me = {"pid": os.getpid(), "seat": seat, "incarnation": incarnation}
    (folder / f"worker-{seat}-{incarnation}-{os.getpid()}").touch()
    main = threading.main_thread().ident
    assert main is not None
    while True:
        time.sleep(0.01)
        with suppress(OSError, ValueError, KeyError, IndexError):
            order = json.loads((folder / "order").read_text())
            done = folder / f"done-{order['number']}"
            chance, looked = random.Random(f"{order}/{seat}/{incarnation}"), time.monotonic()
            while not done.exists() and (folder / "order").exists():
                time.sleep(_TICK)
                before, looked = looked, time.monotonic()
                here = link._links[0] if link._links else None
                root = seat == 0 if here is None else here.members[:1] == [here.me]  # before they meet it is seat 0
                if not _meant(order, seat, root):
                    time.sleep(0.02)
                elif order["phase"] in ("any", _phase(sys._current_frames()[main])):
                    rate = _RATES.get(order["phase"], _RATE)
                    if chance.random() < rate * (looked - before):
                        _strike(order, done, {**me, "root": root, "at": time.monotonic()})


def _meant(order: dict[str, Any], seat: int, root: bool) -> bool:
    return {"root": root, "worker": not root, "launcher": True}.get(order["who"], order["who"] == seat)


def _phase(frame: Any) -> str:
    """Return what the innermost function says that the worker does."""
    inside = set()
    while frame is not None:
        where = os.path.basename(frame.f_code.co_filename), frame.f_code.co_name
        inside |= {phase for phase, functions in PHASES.items() if where in functions}
        frame = frame.f_back
    return next((phase for phase in _INNER if phase in inside), next(iter(sorted(inside)), ""))


def _strike(order: dict[str, Any], done: Path, said: dict[str, Any]) -> None:
    target = os.getppid() if order["who"] == "launcher" else os.getpid()
    text = done.with_name(f"{done.name}.{os.getpid()}-{threading.get_ident()}")
    text.write_text(json.dumps({**said, "target": target}))
    try:
        os.link(text, done)  # one strikes, not two
    except FileExistsError:
        return
    os.kill(target, order["signal"])


# ---------------------------------------------------------------- a run, from outside


@dataclass
class Tail:
    """The whole lines of a JSON file that grows; each is read once."""

    path: Path
    read: list[dict[str, Any]] = field(default_factory=list)
    place: int = 0

    def lines(self) -> list[dict[str, Any]]:
        """Return those that are there now."""
        with suppress(OSError), self.path.open("rb") as file:
            if os.fstat(file.fileno()).st_size < self.place:  # another run's
                self.read, self.place = [], 0
            file.seek(self.place)
            text = file.read()
            whole = text[: text.rfind(b"\n") + 1]
            self.read += [json.loads(line) for line in whole.splitlines()]
            self.place += len(whole)
        return self.read


@dataclass
class Trial:
    """A run that faults are done to.

    Attributes:
        folder: of the run; beside it is that of the orders.
        flags: of the run, beside those of all.
        paths: where workers look for modules, beside the usual ones.
    """

    folder: Path
    flags: Sequence[str] = ()
    paths: Sequence[Path] = ()
    process: subprocess.Popen[str] = field(init=False)
    orders: Path = field(init=False)
    number: int = 0
    _rows: Tail = field(init=False)
    _events: Tail = field(init=False)

    def __post_init__(self) -> None:
        self._rows, self._events = Tail(self.folder / "rows.jsonl"), Tail(self.folder / "events.jsonl")

    def start(self, *more: str) -> None:
        """Start it."""
        self.orders = self.folder.with_name(f"{self.folder.name}-orders")
        self.log = self.folder.with_name(f"{self.folder.name}.log")
        shutil.rmtree(self.orders, ignore_errors=True)
        self.orders.mkdir(parents=True)
        paths = [str(ROOT / "src"), str(ROOT / "tools"), *map(str, self.paths)]
        variables = {**os.environ, _ORDERS: str(self.orders), "PYTHONPATH": os.pathsep.join(paths)}
        command = [sys.executable, "-m", "isthmus", "train", *more, *(() if "--resume" in more else self._flags())]
        self.begun = time.monotonic()
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=variables, stdout=subprocess.DEVNULL, stderr=log, text=True,
                start_new_session=True,
            )  # fmt: skip

    def _flags(self) -> list[str]:
        shutil.rmtree(self.folder, ignore_errors=True)
        own = ["--model", "chaos:network", "--workers", str(WORKERS), "--local-steps", "4", "--out", str(self.folder)]
        given = {"--checkpoint-every": "20", "--eval-every": "10"}
        if "serial" not in self.flags:
            given["--deadline"] = str(DEADLINE)
        return [*own, *(word for pair in given.items() if pair[0] not in self.flags for word in pair), *self.flags]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """What stands in its record so far."""
        return self._rows.lines()

    @property
    def events(self) -> list[dict[str, Any]]:
        """What has happened to its workers."""
        return self._events.lines()

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def wait(self, until: Callable[[], bool], seconds: float) -> bool:
        """Wait until something is so; return whether it came to be."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if until():
                return True
            time.sleep(0.02)
        return until()

    def wait_for_rounds(self, number: int, seconds: float = 300) -> bool:
        """Wait for some more rounds."""
        last = len(self.rows) + number
        return self.wait(lambda: len(self.rows) >= last or not self.running, seconds) and self.running

    def order(self, who: str | int, phase: str, how: int = signal.SIGKILL) -> None:
        """Tell the workers whom to strike (a seat, "root", "worker", "launcher"), and in which phase."""
        self.number += 1
        said = {"number": self.number, "who": who, "phase": phase, "signal": int(how)}
        partial = self.orders / "order.partial"
        partial.write_text(json.dumps(said))
        partial.replace(self.orders / "order")

    def struck(self, seconds: float = 150) -> dict[str, Any] | None:
        """Wait until it has been done; return by whom and when, None if the phase did not come."""
        done = self.orders / f"done-{self.number}"
        came = self.wait(lambda: done.exists() or not self.running, seconds) and done.exists()
        (self.orders / "order").unlink(missing_ok=True)
        time.sleep(0.02)
        return json.loads(done.read_text()) if came or done.exists() else None

    def pause(self, since: float, rounds: int = 3, seconds: float = 90) -> float | None:
        """Return the longest time without a new row from an instant on until some more rounds; None if it ended."""
        last, count, longest, wanted = since, len(self.rows), 0.0, rounds
        while time.monotonic() - since < seconds and wanted:
            if not self.running:
                return None
            now, there = time.monotonic(), len(self.rows)
            longest = max(longest, now - last)
            if there > count:
                wanted -= there - count
                wanted, count, last = max(0, wanted), there, now
            time.sleep(0.01)
        return longest if not wanted else float("inf")

    def wait_for_all(self, seconds: float = 120) -> bool:
        """Wait until all workers take part again."""
        return self.wait(lambda: not self.running or not self.absent, seconds) and self.running

    @property
    def here(self) -> dict[int, int]:
        """The process of each seat that has one which has told that it is there."""
        named = sorted(self.orders.glob("worker-*"), key=lambda path: int(path.name.split("-")[2]))
        found = {int(path.name.split("-")[1]): _pid(path) for path in named}
        return {seat: pid for seat, pid in found.items() if _lives(pid)}

    @property
    def absent(self) -> set[int]:
        """Seats that are lost and have not come back, by the events."""
        gone: set[int] = set()
        for event in self.events:
            (gone.add if event["event"] == "lost" else gone.discard)(event["worker"])
        return gone

    def end(self) -> int | None:
        """Tell it to stop; return its exit code, None if it would not and was killed."""
        if self.running:
            self.process.terminate()
        try:
            code: int | None = self.process.wait(60)
        except subprocess.TimeoutExpired:
            code = None
        return code

    def orphans(self, seconds: float = 3.0) -> list[int]:
        """Return the processes that are left; they are ended."""
        until = time.monotonic() + seconds
        mark = f"{_ORDERS}={self.orders}"
        while (left := marked(mark)) and time.monotonic() < until:
            time.sleep(0.05)
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        return sorted(left)

    def check(self) -> str:
        """Return what `isthmus check` says, and whether rows are missing."""
        found = subprocess.run(
            [sys.executable, "-m", "isthmus", "check", str(self.folder)], capture_output=True, text=True, check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        )  # fmt: skip
        numbers = [row["round"] for row in _lines(self.folder / "rows.jsonl")]
        if not numbers:  # it never came as far
            return "sound"
        said = "sound" if found.returncode == 0 else (found.stdout + found.stderr).strip()
        return said if numbers == list(range(len(numbers))) else f"{said}; rows are not all there"

    def said(self) -> list[str]:
        """Return the lines that it has printed, without those of its progress."""
        lines = re.split(r"[\r\n]+", self.log.read_text(errors="replace"))
        return [line for line in lines if line.startswith("isthmus:") and line != "isthmus: interrupted"]


def marked(mark: str) -> set[int]:
    """Return all processes that live and carry a variable, ``NAME=VALUE``."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is another user's
            if mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.add(int(folder.name))
    return found


def _lives(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] != "Z"


def _lines(path: Path) -> list[dict[str, Any]]:
    return Tail(path).lines()


# ---------------------------------------------------------------- faults


@dataclass(frozen=True)
class Found:
    """What came of one fault.

    Attributes:
        fault: what was done, to whom, in which phase.
        seconds: the longest time without a new row from then on, or until the run ended.
        went_on: whether the run did.
        lost: rounds whose rows are missing afterwards, by `isthmus check` and the numbers of the rows: in words.
        orphans: processes that were left.
        message: what was said.
        code: exit code of a run that ended by it.
    """

    fault: str
    who: str
    phase: str
    seconds: float | None
    went_on: bool
    lost: str
    orphans: int
    message: str
    code: int | None = None

    @property
    def words(self) -> str:
        """What came of it, in a line."""
        within = "without end" if self.seconds is None else f"within {self.seconds:.1f} s"
        how = "went on" if self.went_on else f"ended with exit code {self.code}"
        return f"{self.fault}, {self.who}, {self.phase}: {how} {within}; lost: {self.lost}; left over: {self.orphans}"


RUNNING = ("cut", "steps", "merge", "commit", "checkpoint", "evaluation")
_HOWS = {"kill -9": signal.SIGKILL, "freeze for 5 s": signal.SIGSTOP, "freeze for good": signal.SIGSTOP}


@dataclass
class Table:
    """Makes the faults one after the other, in as few runs as will do.

    Attributes:
        out: folder of everything.
        trial: the run that faults are done to now.
        begins: seconds that a run takes to begin, as last seen.
        last: the run that was started last, whoever has it.
    """

    out: Path
    chance: random.Random
    trial: Trial | None = None
    begins: float = 5.0
    last: Trial | None = None

    def here(self) -> Trial:
        """Return a run with all its workers."""
        if self.trial is not None and not (self.trial.running and self.trial.wait_for_all()):
            self.close()
        if self.trial is None:
            self.trial = self.fresh()
            self.trial.wait_for_rounds(1)
            self.begins = time.monotonic() - self.trial.begun
            self.trial.wait_for_rounds(2)
        self.trial.wait_for_rounds(self.chance.randint(1, 3))
        return self.trial

    def fresh(self, *flags: str) -> Trial:
        """Start a run of its own."""
        self.last = trial = Trial(self.out / f"run-{time.time():.2f}", ("--rounds", "1000000", *flags))
        trial.start()
        return trial

    def stop(self) -> Found | None:
        """End whatever runs, also if this tool was stopped in the middle of a fault; return what was wrong with it."""
        bad, last = self.close(), self.last
        if last is not None and last.running:
            last.end()
            last.orphans()
        return bad

    def close(self) -> Found | None:
        """End the run; return what was wrong with it."""
        trial, self.trial = self.trial, None
        if trial is None:
            return None
        code, left, wrong = trial.end(), trial.orphans(), trial.check()
        if code == 130 and not left and wrong == "sound":
            return None
        return Found("stop", "launcher", "at the end", None, False, wrong, len(left), f"see {trial.log}", code)

    def strike(self, what: str, who: str, phase: str) -> Found | None:
        """Strike a worker, the root or the launcher in a phase; None if that did not come."""
        own = phase == "start" or who == "launcher"
        if own:
            self.close()  # two would be in each other's way
        trial = self.fresh() if own else self.here()
        if own and phase != "start":
            trial.wait_for_rounds(2)
        before, said = len(trial.rows), len(trial.said())
        if who == "launcher" and phase == "start":  # before there are workers, too
            time.sleep(self.chance.uniform(0, self.begins))
            done: dict[str, Any] | None = {"at": time.monotonic(), "target": trial.process.pid}
            trial.process.kill()
        else:
            trial.order(who, phase, _HOWS[what])
            done = trial.struck()
        if done is None:
            return self._alone(trial, what, who, phase, None, before, said) if own else None
        if what == "freeze for 5 s":
            threading.Timer(5, _wake, (done["target"],)).start()
        seconds = trial.pause(done["at"], seconds=60)
        if own or seconds is None:
            self.trial = None if trial is self.trial else self.trial
            seconds = time.monotonic() - done["at"] if seconds is None else seconds
            return self._alone(trial, what, who, phase, seconds, before, said)
        return self._told(trial, what, who, phase, seconds, before, said)

    def two(self, at_once: bool) -> Found:
        """Kill two workers, at once or the second while the others recover; there is a checkpoint by then.

        Of two that are neighbours one's rows are nowhere else.
        """
        trial = self.here()
        trial.wait(lambda: any(trial.folder.glob("checkpoints/checkpoint-*[0-9]")) or not trial.running, 120)
        before, said = len(trial.rows), len(trial.said())
        live = trial.here
        first, second = self.chance.sample(sorted(live), 2)
        if not at_once:
            trial.order(second, "recovery")
        begun = time.monotonic()
        os.kill(live[first], signal.SIGKILL)
        if at_once:
            os.kill(live[second], signal.SIGKILL)
        else:
            begun = (trial.struck(60) or {"at": begun})["at"]
        seconds = trial.pause(begun)
        what = "two kill -9 at once" if at_once else "kill -9 during recovery"
        who = f"{first} and {second}"
        if seconds is None:
            self.trial = None
            return self._alone(trial, what, who, "any", time.monotonic() - begun, before, said)
        return self._told(trial, what, who, "any", seconds, before, said)

    def _told(
        self, trial: Trial, what: str, who: str, phase: str, seconds: float, before: int, said: int
    ) -> Found:
        numbers = [row["round"] for row in trial.rows]
        lost = "nothing" if numbers == list(range(len(numbers))) and len(numbers) > before else "rows"
        lines = [line for line in trial.said()[said:] if "starting it again" not in line]
        if seconds == float("inf"):
            bad = self.close()
            return Found(what, who, phase, None, False, f"the run hangs; {bad}", 0, "; ".join(lines))
        return Found(what, who, phase, round(seconds, 2), True, lost, 0, lines[0] if lines else "")

    def _alone(
        self, trial: Trial, what: str, who: str, phase: str, seconds: float | None, before: int, said: int
    ) -> Found:
        """End a run of its own; say what came of it."""
        went_on = trial.running
        if went_on and who == "launcher" and what == "freeze for good":
            trial.process.kill()
        code = trial.end()
        left, lines = trial.orphans(), trial.said()[said:]
        wrong = trial.check()
        shown = next(iter(lines), "")
        if seconds == float("inf"):
            seconds = None
        return Found(what, who, phase, None if seconds is None else round(seconds, 2), went_on,
                     "nothing" if wrong == "sound" else wrong, len(left), shown, code)  # fmt: skip


# ---------------------------------------------------------------- disks, networks and clocks


def full_disk(table: Table) -> Found | None:
    """Fill the disk of the run's folder for five seconds; a small one of its own, which only root may make."""
    if os.geteuid():
        return None
    table.close()
    disk = table.out / "disk"
    disk.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], check=True)
    trial = Trial(disk / "run", ("--rounds", "20000", "--checkpoint-every", "5"))
    try:
        trial.start()
        trial.wait_for_rounds(7)
        filler = disk / "filler"
        with suppress(OSError), filler.open("wb") as file:
            while True:
                file.write(bytes(4096))
                file.flush()
        before = len(trial.rows)
        time.sleep(5)
        waited = len(trial.rows) - before
        filler.unlink()
        begun = time.monotonic()
        went_on = trial.wait(lambda: len(trial.rows) > before + waited + 3, 30)
        seconds = round(time.monotonic() - begun, 2)
        said = [line for line in trial.said() if "waiting for workers" not in line]
        code, left, wrong = trial.end(), trial.orphans(), trial.check()
    finally:
        trial.orphans(0)
        subprocess.run(["umount", "-l", disk], check=True)
    return Found("disk full for 5 s", "rows and checkpoints", "any", seconds, went_on,
                 "nothing" if wrong == "sound" else wrong, len(left), said[0] if said else "", code)  # fmt: skip


_CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int code = real(clock, now);
    if (clock == CLOCK_REALTIME && access(getenv("ISTHMUS_CHAOS_CLOCK"), F_OK) == 0) now->tv_sec -= 3600;
    return code;
}
"""


def clock_set_back(table: Table) -> Found | None:
    """Show every process of a run, from an instant on, a time of day that is an hour back; the machine's own stays."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    table.close()
    library, mark = table.out / "clock.so", table.out / "clock-set-back"
    mark.unlink(missing_ok=True)
    made = [compiler, "-shared", "-fPIC", "-xc", "-", "-o", library, "-ldl"]
    subprocess.run(made, input=_CLOCK, text=True, check=True)
    before = {**os.environ}
    os.environ |= {"LD_PRELOAD": str(library.absolute()), "ISTHMUS_CHAOS_CLOCK": str(mark.absolute())}
    try:
        trial = table.fresh()
    finally:
        os.environ.clear()
        os.environ.update(before)
    trial.wait_for_rounds(5)
    said, begun = len(trial.said()), time.monotonic()
    mark.touch()
    seconds = trial.pause(begun, rounds=10)
    return table._alone(trial, "clock an hour back", "all", "any", seconds, 0, said)


def network_cut(table: Table) -> Found | None:
    """Cut a worker's network for ten seconds: each in a network namespace of its own, which only root may make."""
    if os.geteuid() or shutil.which("ip") is None:
        return None
    table.close()
    folder = table.out / f"cut-{time.time():.0f}"
    steps = [["ip", "link", "add", "chaosbr", "type", "bridge"], ["ip", "link", "set", "chaosbr", "up"]]
    for number in range(3):
        name, inside = f"chaos{number}", ["ip", "-n", f"chaos{number}"]
        steps += [
            ["ip", "netns", "add", name],
            ["ip", "link", "add", f"chaosv{number}", "type", "veth", "peer", "name", "e0", "netns", name],
            ["ip", "link", "set", f"chaosv{number}", "master", "chaosbr", "up"],
            [*inside, "link", "set", "lo", "up"],
            [*inside, "addr", "add", f"10.78.0.{number + 1}/24", "dev", "e0"],
            [*inside, "link", "set", "e0", "up"],
        ]
    workers: list[subprocess.Popen[bytes]] = []
    try:
        for step in steps:
            subprocess.run(step, check=True)
        log = folder.with_name(f"{folder.name}.log")
        for number in range(3):
            variables = {
                **os.environ, "RANK": str(number), "WORLD_SIZE": "3", "OMP_NUM_THREADS": "1",
                "MASTER_ADDR": "10.78.0.1", "MASTER_PORT": "29555",
                "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT / "tools")]),
            }  # fmt: skip
            command = [sys.executable, "-m", "isthmus", "train", "--model", "chaos:network", "--workers", "3"]
            flags = ["--local-steps", "4", "--rounds", "20000", "--deadline", "6", "--out", str(folder)]
            with log.open("a") as file:
                workers.append(subprocess.Popen(["ip", "netns", "exec", f"chaos{number}", *command, *flags],
                                                env=variables, stdout=file, stderr=file))  # fmt: skip
        trial = Trial(folder)
        trial.process, trial.log, trial.orders = workers[0], log, folder  # type: ignore[assignment]
        trial.wait_for_rounds(5)
        begun = time.monotonic()
        subprocess.run(["ip", "link", "set", "chaosv2", "down"], check=True)
        back = threading.Timer(10, subprocess.run, (["ip", "link", "set", "chaosv2", "up"],))
        back.start()
        seconds = trial.pause(begun, seconds=40)
        back.join()
        joined = trial.wait(lambda: any(event["event"] == "joined" for event in trial.events), 60)
        said = [line for line in trial.said() if "worker 2" in line]
        workers[0].terminate()
        ended = [_ended(worker) for worker in workers]
        lost = "nothing" if joined else "the worker did not come back"
        return Found("network cut for 10 s", "worker", "any", None if seconds is None else round(seconds, 2), True,
                     lost, sum(code is None for code in ended), said[0] if said else "", ended[0])  # fmt: skip
    finally:
        for worker in workers:
            worker.kill()
        for number in range(3):
            subprocess.run(["ip", "netns", "del", f"chaos{number}"], check=False)
        subprocess.run(["ip", "link", "del", "chaosbr"], check=False)


def _ended(worker: subprocess.Popen[bytes]) -> int | None:
    try:
        return worker.wait(20)
    except subprocess.TimeoutExpired:
        return None


def _pid(path: Path) -> int:
    return int(path.name.split("-")[3])


def _wake(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


@dataclass(frozen=True)
class Fault:
    """Something to do to a run.

    Attributes:
        name: of it.
        make: does it.
        kill: whether it has a random instant, so that it is done more often.
    """

    name: str
    make: Callable[[Table], Found | None]
    kill: bool = False


def faults() -> Iterator[Fault]:
    """Yield every fault."""
    for phase in RUNNING:
        for who in ("worker", "root"):
            yield Fault(f"kill -9, {who}, {phase}", partial(_strike_at, "kill -9", who, phase), True)
    yield Fault("two at once", lambda table: table.two(True))
    yield Fault("during recovery", lambda table: table.two(False))
    for how in ("freeze for 5 s", "freeze for good"):
        for who in ("worker", "root"):
            for phase in ("steps", "merge"):
                yield Fault(f"{how}, {who}, {phase}", partial(_strike_at, how, who, phase))
    for who in ("worker", "root", "launcher"):
        yield Fault(f"kill -9, {who}, start", partial(_strike_at, "kill -9", who, "start"), True)
    for phase in RUNNING:
        yield Fault(f"kill -9, launcher, {phase}", partial(_strike_at, "kill -9", "launcher", phase), True)
    for how in ("freeze for 5 s", "freeze for good"):
        yield Fault(f"{how}, launcher, steps", partial(_strike_at, how, "launcher", "steps"))
    yield Fault("disk full", full_disk)
    yield Fault("network cut", network_cut)
    yield Fault("clock set back", clock_set_back)


def _strike_at(how: str, who: str, phase: str, table: Table) -> Found | None:
    return table.strike(how, who, phase)


# ---------------------------------------------------------------- what can be asked for


def table(args: argparse.Namespace) -> None:
    """Make every fault as often as was asked for, until the time is over; go on where it was left."""
    until = time.monotonic() + 60 * args.minutes
    results = args.out / "table.jsonl"
    done = Counter(line["name"] for line in _lines(results))
    rows = [
        fault
        for count in range(max(args.kills, args.others))
        for fault in faults()
        if args.only in fault.name and done[fault.name] <= count < (args.kills if fault.kill else args.others)
    ]
    board = Table(args.out, random.Random(f"{args.seed}/{done.total()}"))
    try:
        with progress("faults", len(rows)) as advance:
            for number, fault in enumerate(rows):
                if time.monotonic() > until:
                    say(f"the time is over, {len(rows) - number} faults are left: the same command goes on with them")
                    break
                advance(0, fault.name)
                try:
                    found = fault.make(board)
                except subprocess.CalledProcessError as error:  # no right to mount, or to make namespaces
                    say(f"{fault.name} is left out: {error}")
                    found = None
                if found is not None:
                    _note(results, {"name": fault.name, **asdict(found)}, args, found.words)
                advance(1, fault.name)
    finally:
        bad = board.stop()
        if bad is not None:
            _note(results, {"name": "stop", **asdict(bad)}, args, bad.words)


@dataclass(frozen=True)
class Pace:
    """How long a run must be to bear so many kills.

    Attributes:
        round: seconds that one takes.
        apart: rounds made between two kills, so that a worker has come back.
        rounds: of the whole run.
    """

    round: float
    apart: float
    rounds: int

    @classmethod
    def measured(cls, args: argparse.Namespace) -> Pace:
        """Measure it on a short run, of which three workers are killed, one after the other."""
        trial = Trial(args.out / f"pace-{time.time():.0f}", ("--rounds", "1000000"))
        trial.start()
        try:
            trial.wait_for_rounds(5)
            begun = time.monotonic()
            trial.wait_for_rounds(100)
            seconds, before = (time.monotonic() - begun) / 100, len(trial.rows)
            for seat in range(3):
                os.kill(trial.here[seat], signal.SIGKILL)
                trial.wait(lambda seat=seat: seat in trial.absent, 60)  # type: ignore[misc]
                trial.wait_for_all()
            apart = 1.25 * (len(trial.rows) - before) / 3
        finally:
            trial.end()
            trial.orphans()
        rounds = args.rounds or 100 * math.ceil(1.05 * args.kills * apart / 100)
        return cls(seconds, min(apart, rounds / 1.05 / args.kills), rounds)


def long(args: argparse.Namespace) -> None:
    """Kill random workers of one run at random instants, some rounds apart; none that has only begun, for one that dies
    so soon again and again is let rest."""
    pace = Pace.measured(args)
    say(f"a round takes {pace.round:.3f} s: {args.kills} kills in {pace.rounds} rounds, {pace.apart:.0f} apart")
    chance = random.Random(f"{args.seed}/long")
    trial = Trial(args.out / f"long-{time.time():.0f}", ("--rounds", str(pace.rounds), "--seed", str(args.seed)))
    until = time.monotonic() + 60 * args.minutes
    trial.start()
    pauses: list[float] = []
    seen: dict[int, float] = {}
    try:
        with progress("kills", args.kills) as advance:
            trial.wait_for_rounds(3)
            for number in range(args.kills):
                pause = _kill(trial, chance, pace.apart * (number + chance.random()), pace.round, until, seen)
                if pause is None:
                    break
                pauses.append(pause)
                advance(1, f"round {len(trial.rows)} of {pace.rounds}")
                if pause == float("inf"):
                    say(f"after {len(pauses)} kills the run hangs; see {trial.log}")
                    break
        killed = time.monotonic() - trial.begun
        ended = trial.wait(lambda: not trial.running, max(60.0, until - time.monotonic()))
        seconds = time.monotonic() - trial.begun
    finally:
        code, left = trial.end(), trial.orphans()
    summary = json.loads((trial.folder / "summary.json").read_text()) if ended else {}
    found = {
        "kills": len(pauses), "lost": sum(event["event"] == "lost" for event in trial.events),
        "seconds_killing": round(killed), "seconds": round(seconds), "rounds": len(trial.rows) - 1, "code": code,
        "orphans": len(left), "check": trial.check(), "accuracy": summary.get("test_accuracy"),
        "pauses": sorted(round(pause, 2) for pause in pauses), "folder": trial.folder.name,
    }  # fmt: skip
    words = "{kills} kills in {seconds} s: {rounds} rounds, accuracy {accuracy}, {check}, {orphans} processes left"
    _note(args.out / "long.jsonl", found, args, words.format(**found))


def _kill(
    trial: Trial, chance: random.Random, due: float, second: float, until: float, seen: dict[int, float]
) -> float | None:
    """Kill a worker when so many rounds are made; return the pause of the others, None if it did not come to that.

    When each process was first seen is kept in ``seen``.
    """
    while trial.running and (now := time.monotonic()) < until:
        here = trial.here
        old = [seat for seat, pid in sorted(here.items()) if now - seen.setdefault(pid, now) > EARLY]
        if len(trial.rows) > due and old and _enough(trial):
            time.sleep(chance.uniform(0, second))  # at any instant of a round
            with suppress(ProcessLookupError):
                begun = time.monotonic()
                os.kill(here[chance.choice(old)], signal.SIGKILL)
                return trial.pause(begun, rounds=1)
        time.sleep(0.02)
    return None


def _enough(trial: Trial) -> bool:
    """Whether the run need not wait for others when one more is killed: it does when less than half of it is left."""
    return WORKERS - len(trial.absent) > WORKERS // 2 and len(trial.here) > WORKERS // 2


def calm(args: argparse.Namespace) -> None:
    """Make the same run undisturbed, over seeds; the workers take turns, which gives the same bits."""
    results, until = args.out / "calm.jsonl", time.monotonic() + 60 * args.minutes
    rounds = args.rounds or next((line["rounds"] for line in reversed(_lines(args.out / "long.jsonl"))), 300)
    done = {(line["rounds"], line["seed"]) for line in _lines(results)}
    seeds = [seed for seed in range(args.seed, args.seed + args.seeds) if (rounds, seed) not in done]
    running: dict[int, Trial] = {}
    shown = Counter[int]()
    try:
        with progress("rounds, undisturbed", len(seeds) * rounds) as advance:
            while (seeds or running) and time.monotonic() < until:
                for seed in seeds[: args.processes - len(running)]:
                    running[seed] = _undisturbed(args.out / f"calm-{rounds}-{seed}", rounds, seed)
                    seeds.remove(seed)
                time.sleep(0.5)
                for seed, trial in list(running.items()):
                    made = max(0, len(trial.rows) - 1)
                    advance(made - shown[seed], f"seed {seed}")
                    shown[seed] = made
                    if not trial.running:
                        _ended_calmly(results, running.pop(seed), rounds, seed, args)
    finally:
        for trial in running.values():
            trial.end()
    if seeds or running:
        say(f"the time is over, {len(seeds) + len(running)} runs are left: the same command goes on with them")


def _undisturbed(folder: Path, rounds: int, seed: int) -> Trial:
    seldom = ("--checkpoint-every", str(rounds), "--eval-every", str(rounds))  # to save and to look changes no bit
    trial = Trial(folder, ("--rounds", str(rounds), "--seed", str(seed), "--executor", "serial", *seldom))
    trial.start()
    return trial


def _ended_calmly(results: Path, trial: Trial, rounds: int, seed: int, args: argparse.Namespace) -> None:
    if trial.process.returncode:
        say(f"seed {seed} ended with exit code {trial.process.returncode}: see {trial.log}")
        return
    seconds = round(time.monotonic() - trial.begun)
    accuracy = json.loads((trial.folder / "summary.json").read_text())["test_accuracy"]
    found = {"rounds": rounds, "seed": seed, "accuracy": accuracy, "seconds": seconds}
    _note(results, found, args, f"undisturbed, seed {seed}: {accuracy:.4f}, {seconds} s")


# ---------------------------------------------------------------- what was found


def show(args: argparse.Namespace) -> None:
    """Print what was found, as Markdown, a line for each kind of fault; or write it into a page."""
    rows, runs, calms = (_lines(args.out / f"{name}.jsonl") for name in ("table", "long", "calm"))
    if args.json:
        print(json.dumps({"table": rows, "long": runs, "calm": calms}))
        return
    text = "\n\n".join(part for part in (_faults_shown(rows), _runs_shown(runs, calms), _where(rows + runs)) if part)
    if args.write is None:
        print(text)
        return
    page = args.write.read_text()
    if page.count(_BEGIN) != 1 or page.count(_END) != 1:
        sys.exit(f"chaos: {args.write} has no place for it: a line {_BEGIN} and a line {_END}")
    before, after = page.split(_BEGIN)[0], page.split(_END)[1]
    args.write.write_text(f"{before}{_BEGIN}\n{text}\n{_END}{after}")


_BEGIN, _END = "<!-- python tools/chaos.py show -->", "<!-- end of what it shows -->"


def _faults_shown(rows: Sequence[dict[str, Any]]) -> str:
    """Return a row for each fault, to whom and when."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for line in rows:
        who = line["who"] if re.fullmatch("[a-z ]+", line["who"]) else "workers"
        groups.setdefault(f"{line['fault']} | {who} | {line['phase']}", []).append(line)
    if not groups:
        return ""
    shown = ["| what | of | when | times | went on, or ended, within s (most) | lost | left over | said |",
             "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for name, lines in groups.items():
        known = [line["seconds"] for line in lines if line["seconds"] is not None]
        hung = "" if len(known) == len(lines) else f", {len(lines) - len(known)} hung"
        worst = f"{statistics.median(known):.1f} ({max(known):.1f})" if known else "none did"
        lost = " / ".join(sorted({line["lost"].replace("\n", " ") for line in lines}))
        said = next((line["message"].removeprefix("isthmus: ") for line in lines if line["message"]), "")
        said = said.replace("|", "/")
        left = sum(line["orphans"] for line in lines)
        shown.append(f"| {name} | {len(lines)} | {worst}{hung} | {lost} | {left} | {said} |")
    return "\n".join(shown)


def _runs_shown(runs: Sequence[dict[str, Any]], calms: Sequence[dict[str, Any]]) -> str:
    """Return a row for each long run, and one for the undisturbed ones of as many rounds."""
    if not runs:
        return ""
    shown = ["| kills | minutes | rounds | accuracy | the others went on within s (most) | rows | left over |",
             "|---|---|---|---|---|---|---|"]  # fmt: skip
    for line in runs:
        pauses = line["pauses"] or [math.nan]
        within = f"{statistics.median(pauses):.2f} ({max(pauses):.2f})"
        accuracy = "none" if line["accuracy"] is None else f"{line['accuracy']:.2%}"
        shown.append(f"| {line['kills']} | {line['seconds'] / 60:.1f} | {line['rounds']} | {accuracy} | {within} "
                     f"| {line['check']} | {line['orphans']} |")  # fmt: skip
    for rounds in sorted({line["rounds"] for line in calms}):
        found = [line["accuracy"] for line in calms if line["rounds"] == rounds]
        spread = f" +- {statistics.stdev(found):.2%} ({min(found):.2%} to {max(found):.2%})" if len(found) > 1 else ""
        shown.append(f"| none, {len(found)} seeds | | {rounds} | {statistics.mean(found):.2%}{spread} | | | |")
    return "\n".join(shown)


def _where(lines: Sequence[dict[str, Any]]) -> str:
    """Return what was measured, and on how busy a machine."""
    loads = [line["load"] for line in lines if "load" in line]
    if not loads:
        return ""
    commits = ", ".join(sorted({line["commit"] for line in lines if "commit" in line}))
    cores = ", ".join(sorted({str(line["cores"]) for line in lines if "cores" in line}))
    return f"Commit {commits}, at a load of {min(loads):.1f} to {max(loads):.1f}, on {cores} cores."


def _note(path: Path, entry: dict[str, Any], args: argparse.Namespace, words: str) -> None:
    """Keep what was found, and print it; of files that a message names, the names alone."""
    bare = {key: re.sub(r"/\S*/", "", value) if isinstance(value, str) else value for key, value in entry.items()}
    entry = {**bare, "commit": _commit(), "load": round(os.getloadavg()[0], 1), "cores": os.cpu_count()}
    with path.open("a") as file:
        file.write(json.dumps(entry) + "\n")
    print(json.dumps(entry) if args.json else f"{time.strftime('%H:%M:%S')} {words}", flush=True)


@cache
def _commit() -> str:
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude=*"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or "unknown"


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("table", "long", "calm", "show"))
    parser.add_argument("--kills", type=int, default=None, help="of long, 200; of each phase and victim in table, 20")
    parser.add_argument("--others", type=int, default=5, help="of each other fault in table")
    parser.add_argument("--minutes", type=float, default=30, help="after which it stops")
    parser.add_argument("--rounds", type=int, default=None, help="of long: as many as the kills need; of calm: as long")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=5, help="of calm")
    parser.add_argument("--processes", type=int, default=1, help="runs of calm at a time")
    parser.add_argument("--only", default="", help="faults of table with this in their names")
    parser.add_argument("--json", action="store_true", help="print what is found as JSON")
    parser.add_argument("--write", type=Path, default=None, help="page that show writes into, between its marks")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "chaos")
    args = parser.parse_args()
    if args.kills is None:
        args.kills = 200 if args.what == "long" else 20
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a run must not outlive what watches it
    args.out.mkdir(parents=True, exist_ok=True)
    try:
        {"table": table, "long": long, "calm": calm, "show": show}[args.what](args)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
