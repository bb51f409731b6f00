#!/usr/bin/env python3
"""Do to real runs what cheap machines do to them, and measure what it costs.

    python tools/chaos.py table [--kills 20] [--minutes 30] [--only WORD]    every fault, in every phase
    python tools/chaos.py long [--kills 200] [--minutes 30]                  one run, killed again and again
    python tools/chaos.py calm [--seeds 5]                                   the same run undisturbed
    python tools/chaos.py show                                               what was found, as Markdown

What was measured is kept in ``--out`` (runs/chaos), a line a fault; ``table`` goes on where it stopped. A fault is told
to a thread inside each worker, which looks at what the worker's main thread is doing and strikes when that is in the
phase that was asked for. Whatever a run leaves behind is looked for afterwards, by the process ids that were seen.
"""

from __future__ import annotations

import argparse
import json
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
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

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


# ---------------------------------------------------------------- inside the workers


def network() -> tuple[Any, tuple[Any, ...]]:
    """Return a small perceptron for the digits; called in every worker, where it starts the thread that strikes."""
    import torch
    from torch import nn

    if _ORDERS in os.environ and "RANK" in os.environ:
        threading.Thread(target=_obey, args=(Path(os.environ[_ORDERS]),), daemon=True).start()
    layers = nn.Sequential(
        nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(),
        nn.Linear(64, 10),
    )  # fmt: skip
    return layers, (torch.zeros(2, 64),)


def _obey(folder: Path) -> None:
    """Wait for orders, and strike in the phase that they name."""
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
            while not done.exists() and (folder / "order").exists():
                time.sleep(_TICK)
                here = link._links[0] if link._links else None
                root = here is not None and here.members[:1] == [here.me]
                if not _meant(order, seat, incarnation, root):
                    time.sleep(0.02)
                    continue
                if order["phase"] == "any" or _phase(sys._current_frames()[main]) == order["phase"]:
                    _strike(order, done, {**me, "root": root, "at": time.monotonic()})


def _meant(order: dict[str, Any], seat: int, incarnation: int, root: bool) -> bool:
    if order["again"] and not incarnation:
        return False
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
    seen: set[int] = field(default_factory=set)

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
        return _lines(self.folder / "rows.jsonl")

    @property
    def events(self) -> list[dict[str, Any]]:
        """What has happened to its workers."""
        return _lines(self.folder / "events.jsonl")

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def look(self) -> set[int]:
        """Note the processes that it has now."""
        now = children(self.process.pid)
        self.seen |= now | {int(p.name.split("-")[3]) for p in self.orders.glob("worker-*")}
        return now

    def wait(self, until: Callable[[], bool], seconds: float) -> bool:
        """Wait until something is so; return whether it came to be."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if until():
                return True
            self.look()
            time.sleep(0.02)
        return until()

    def wait_for_rounds(self, number: int, seconds: float = 300) -> bool:
        """Wait for some more rounds."""
        last = len(self.rows) + number
        return self.wait(lambda: len(self.rows) >= last or not self.running, seconds) and self.running

    def order(self, who: str | int, phase: str, how: int = signal.SIGKILL, again: bool = False) -> None:
        """Tell the workers whom to strike, and when; ``again``: only one that was started again."""
        self.number += 1
        said = {"number": self.number, "who": who, "phase": phase, "signal": int(how), "again": again}
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
            self.look()
            self.process.terminate()
        try:
            code: int | None = self.process.wait(60)
        except subprocess.TimeoutExpired:
            code = None
        return code

    def orphans(self, seconds: float = 3.0) -> list[int]:
        """Return the processes that are left; they are ended."""
        until = time.monotonic() + seconds
        while (left := [pid for pid in self.seen if _lives(pid)]) and time.monotonic() < until:
            time.sleep(0.05)
        for pid in [*left, *([self.process.pid] if self.running else [])]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        return left

    def check(self) -> str:
        """Return what `isthmus check` says, and whether rows are missing."""
        found = subprocess.run(
            [sys.executable, "-m", "isthmus", "check", str(self.folder)], capture_output=True, text=True, check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        )  # fmt: skip
        numbers = [row["round"] for row in self.rows]
        said = "sound" if found.returncode == 0 else (found.stdout + found.stderr).strip()
        return said if numbers == list(range(len(numbers))) else f"{said}; rows are not all there"

    def said(self) -> list[str]:
        """Return the lines that it has printed, without those of its progress."""
        lines = re.split(r"[\r\n]+", self.log.read_text(errors="replace"))
        return [line for line in lines if line.startswith("isthmus:") and line != "isthmus: interrupted"]


def children(pid: int) -> set[int]:
    """Return all processes below one."""
    found, waiting = set(), [pid]
    while waiting:
        with suppress(OSError):
            for task in os.listdir(f"/proc/{(one := waiting.pop())}/task"):
                more = {int(each) for each in Path(f"/proc/{one}/task/{task}/children").read_text().split()} - found
                found |= more
                waiting += more
    return found


def _lives(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] != "Z"


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        text = path.read_text()
    except OSError:
        return []
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


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


RUNNING = ("cut", "steps", "merge", "commit", "checkpoint", "evaluation")
_HOWS = {"kill -9": signal.SIGKILL, "freeze for 5 s": signal.SIGSTOP, "freeze for good": signal.SIGSTOP}


@dataclass
class Table:
    """Makes the faults one after the other, in as few runs as will do.

    Attributes:
        out: folder of everything.
        trial: the run that faults are done to now.
    """

    out: Path
    chance: random.Random
    trial: Trial | None = None

    def here(self) -> Trial:
        """Return a run with all its workers."""
        if self.trial is not None and not (self.trial.running and self.trial.wait_for_all()):
            self.close()
        if self.trial is None:
            self.trial = self.fresh()
            self.trial.wait_for_rounds(3)
        self.trial.wait_for_rounds(self.chance.randint(1, 3))
        return self.trial

    def fresh(self, *flags: str) -> Trial:
        """Start a run of its own."""
        trial = Trial(self.out / f"run-{time.time():.2f}", ("--rounds", "20000", *flags))
        trial.start()
        return trial

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
        if own and phase == "start":
            trial.wait(trial.orders.exists, 5)
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
        """Kill two workers, at once or the second while the others recover."""
        trial = self.here()
        before, said = len(trial.rows), len(trial.said())
        live = trial.here
        first, second = self.chance.sample(sorted(live), 2)
        begun = time.monotonic()
        os.kill(live[first], signal.SIGKILL)
        if not at_once:
            time.sleep(self.chance.uniform(0.02, 0.2))
        os.kill(live[second], signal.SIGKILL)
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
            trial.look()
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


Fault = tuple[str, Callable[[Table], "Found | None"]]


def faults() -> Iterator[Fault]:
    """Yield every fault, with a name."""
    for phase in RUNNING:
        for who in ("worker", "root"):
            yield f"kill -9, {who}, {phase}", lambda table, w=who, p=phase: table.strike("kill -9", w, p)
    yield "two at once", lambda table: table.two(True)
    yield "during recovery", lambda table: table.two(False)
    for how in ("freeze for 5 s", "freeze for good"):
        for who in ("worker", "root"):
            for phase in ("steps", "merge"):
                yield f"{how}, {who}, {phase}", lambda table, h=how, w=who, p=phase: table.strike(h, w, p)
    for who in ("worker", "root", "launcher"):
        yield f"kill -9, {who}, start", lambda table, w=who: table.strike("kill -9", w, "start")
    for phase in RUNNING:
        yield f"kill -9, launcher, {phase}", lambda table, p=phase: table.strike("kill -9", "launcher", p)
    for how in ("freeze for 5 s", "freeze for good"):
        yield f"{how}, launcher, steps", lambda table, h=how: table.strike(h, "launcher", "steps")
    yield "disk full", full_disk
    yield "network cut", network_cut
    yield "clock set back", clock_set_back


def table(args: argparse.Namespace) -> None:
    """Make every fault as often as was asked for, until the time is over; go on where it was left."""
    until = time.monotonic() + 60 * args.minutes
    results = args.out / "table.jsonl"
    done = [line["name"] for line in _lines(results)]
    board = Table(args.out, random.Random(f"{args.seed}/{len(done)}"))
    try:
        for count in range(args.kills):
            for name, make in faults():
                if args.only not in name or done.count(name) > count:
                    continue
                if time.monotonic() > until:
                    break
                found = make(board)
                if found is not None:
                    _note(results, {"name": name, **asdict(found)})
                print(f"{time.strftime('%H:%M:%S')} {name}: {found}", flush=True)
    finally:
        bad = board.close()
        if bad is not None:
            _note(results, {"name": "stop", **asdict(bad)})
            print(f"at the end: {bad}", flush=True)


def long(args: argparse.Namespace) -> None:
    """Kill random workers of one run at random instants; hold it against the same run undisturbed, over seeds."""
    chance = random.Random(f"{args.seed}/long")
    rounds = ("--rounds", str(args.rounds), "--seed", str(args.seed))
    trial = Trial(args.out / f"long-{time.time():.0f}", rounds)
    trial.start()
    pauses: list[float] = []
    kills = 0
    until = time.monotonic() + 60 * args.minutes
    try:
        trial.wait_for_rounds(3)
        while trial.running and kills < args.kills and time.monotonic() < until:
            trial.wait(lambda: not trial.running or _enough(trial), 60)
            time.sleep(chance.uniform(0.0, 2 * 60 * args.minutes / args.kills / 3))
            here = trial.here
            if not (_enough(trial) and trial.running):
                continue
            begun = time.monotonic()
            with suppress(ProcessLookupError):
                os.kill(here[chance.choice(sorted(here))], signal.SIGKILL)
                kills += 1
            pause = trial.pause(begun, rounds=1)
            pauses += [] if pause is None else [pause]
            if pause == float("inf"):
                print(f"after {kills} kills the run hangs; see {trial.log}", flush=True)
                break
        seconds = time.monotonic() - trial.begun
        ended = trial.wait(lambda: not trial.running, max(60.0, until + 600 - time.monotonic()))
    finally:
        code, left = trial.end(), trial.orphans()
    summary = json.loads((trial.folder / "summary.json").read_text()) if ended else {}
    found = {
        "kills": kills, "lost": sum(event["event"] == "lost" for event in trial.events), "seconds": round(seconds),
        "rounds": len(trial.rows) - 1, "code": code, "orphans": len(left), "check": trial.check(),
        "accuracy": summary.get("test_accuracy"), "pauses": sorted(round(pause, 2) for pause in pauses),
        "folder": str(trial.folder),
    }  # fmt: skip
    _note(args.out / "long.jsonl", found)
    print(json.dumps(found), flush=True)


def _enough(trial: Trial) -> bool:
    """Whether the run need not wait for others when one more is killed: it does when less than half of it is left."""
    return WORKERS - len(trial.absent) > WORKERS // 2 and len(trial.here) > WORKERS // 2


def calm(args: argparse.Namespace) -> None:
    """Make the same run undisturbed, over seeds; the workers take turns, which gives the same bits."""
    for seed in range(args.seed, args.seed + args.seeds):
        folder = args.out / f"calm-{args.rounds}-{seed}"
        trial = Trial(folder, ("--rounds", str(args.rounds), "--seed", str(seed), "--executor", "serial"))
        trial.start()
        trial.process.wait()
        accuracy = json.loads((folder / "summary.json").read_text())["test_accuracy"]
        _note(args.out / "calm.jsonl", {"rounds": args.rounds, "seed": seed, "accuracy": accuracy})
        print(f"undisturbed, seed {seed}: {accuracy:.4f}", flush=True)


def show(args: argparse.Namespace) -> None:
    """Print what was found, as Markdown, a line for each kind of fault."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for line in _lines(args.out / "table.jsonl"):
        who = line["who"] if re.fullmatch("[a-z ]+", line["who"]) else "workers"
        groups.setdefault(f"{line['fault']} | {who} | {line['phase']}", []).append(line)
    print("| what | of | when | times | went on, or ended, within s (most) | lost | left over | said |")
    print("|---|---|---|---|---|---|---|---|")
    for name, lines in groups.items():
        known = [line["seconds"] for line in lines if line["seconds"] is not None]
        lost = " / ".join(sorted({line["lost"].replace("\n", " ") for line in lines}))
        said = next((line["message"].removeprefix("isthmus: ") for line in lines if line["message"]), "")
        said = re.sub(r"/\S+/", "", said).replace("|", "/")
        worst = f"{statistics.median(known):.1f} ({max(known):.1f})" if known else "it hangs"
        print(f"| {name} | {len(lines)} | {worst} | {lost} | {sum(line['orphans'] for line in lines)} | {said} |")
    for line in _lines(args.out / "long.jsonl"):
        print(f"\n{line['kills']} kills in {line['rounds']} rounds: accuracy {line['accuracy']}, {line['check']}")
    calm = [line["accuracy"] for line in _lines(args.out / "calm.jsonl")]
    if len(calm) > 1:
        print(f"\nundisturbed, {len(calm)} seeds: {statistics.mean(calm):.4f} +- {statistics.stdev(calm):.4f}")


def _note(path: Path, entry: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(entry) + "\n")


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("table", "long", "calm", "show"))
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--rounds", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", default="")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "chaos")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    {"table": table, "long": long, "calm": calm, "show": show}[args.what](args)


if __name__ == "__main__":
    main()
