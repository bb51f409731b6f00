"""Workers that die, freeze, raise or are told to stop, under a launcher that starts them again; nobody outlives it.

What is tried here does nothing but wait for keys in the store; whole trainings are cut short elsewhere.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed import PrefixStore, TCPStore

from isthmus.errors import DataError, InvalidInput, WorkerError
from isthmus.trainer.executors import launcher, nursery, supervisor
from isthmus.trainer.executors.kin import SERVES
from isthmus.trainer.executors.launcher import launch

pytestmark = pytest.mark.processes
LONG = timedelta(seconds=60)  # for what must come


@pytest.fixture(autouse=True)
def from_a_script(monkeypatch: pytest.MonkeyPatch) -> None:
    """Launch as from a script, wherever the tests run; what a notebook does has a test of its own."""
    monkeypatch.setattr(nursery, "interactive", lambda: False)


def board() -> PrefixStore:
    """The store of the run, as a worker sees it."""
    port = int(os.environ["MASTER_PORT"])
    return PrefixStore(supervisor.PREFIX, TCPStore("127.0.0.1", port, is_master=False, timeout=LONG))


def me() -> tuple[int, int]:
    return int(os.environ["RANK"]), int(os.environ["TORCHELASTIC_RESTART_COUNT"])


def text(store: PrefixStore, key: str) -> str:
    return bytes(store.get(key)).decode()


def die(_: PrefixStore) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave(_: PrefixStore) -> None:
    os._exit(3)


def freeze(store: PrefixStore) -> None:
    store.set("frozen", str(os.getpid()))
    os.kill(os.getpid(), signal.SIGSTOP)


def watch(harm: Callable[[PrefixStore], None]) -> list[str] | None:
    """Worker 1 comes to harm twice; the others see what became of it, and are themselves left alone."""
    store, (seat, incarnation) = board(), me()
    if seat == 1 and incarnation < 2:
        store.set(f"here/{incarnation}", "")
        harm(store)
    elif seat == 1:
        store.set("back", f"{os.environ['LOCAL_RANK']} of {os.environ['WORLD_SIZE']}")
        return None
    assert incarnation == 0
    for number in range(2):
        if harm is freeze:
            store.wait([f"here/{number}"])
            store.set(f"lost/1/{number}", "silent for 31 s")
        store.wait([f"out/1/{number}"])
    return [text(store, "out/1/0"), text(store, "out/1/1"), text(store, "back")]


@pytest.mark.parametrize(
    ("harm", "how"),
    [(die, "was killed (signal 9)"), (leave, "failed (exit code 3)"), (freeze, "was killed (signal 9)")],
)
def test_who_dies_or_is_declared_lost_is_told_and_comes_back(harm: Any, how: str, caplog: Any) -> None:
    assert launch(watch, harm, workers=3, elastic=True) == [how, how, "1 of 3"]
    assert caplog.messages == [f"isthmus: worker 1 {how}; starting it again"] * 2


@pytest.mark.parametrize(
    ("room", "name", "does"),
    [(nursery, "interactive", lambda: True), (launcher, "adopting", lambda: nullcontext(False))],
    ids=["notebook", "no adoption"],
)
def test_processes_are_made_otherwise_where_they_must_be(room: Any, name: str, does: Any, monkeypatch: Any) -> None:
    """Forked from what a notebook was at the start; and, where the kernel has no adoption, each on its own."""
    monkeypatch.setattr(room, name, does)
    assert launch(back, workers=1, elastic=True) == "1 of 1"


def test_nothing_is_forked_from_a_notebook_that_keeps_a_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread of the store's may hold a lock, which the new process would wait for without end."""
    monkeypatch.setattr(nursery, "interactive", lambda: True)
    here, others, forks = os.getpid(), stores(), []
    os.register_at_fork(before=lambda: forks.append(stores() - others) if os.getpid() == here else None)
    assert launch(back, workers=2, elastic=True) == "1 of 1"
    assert forks == [set()]


def stores() -> set[str]:
    """The threads that keep stores in this process; other tests may have left some, which may end meanwhile."""
    found = set()
    for each in Path("/proc/self/task").glob("*/comm"):
        with suppress(FileNotFoundError, ProcessLookupError):
            found |= {each.parent.name} if each.read_text() == "pt_tcpstore_uv\n" else set()
    return found


def back() -> str:
    if me()[1] == 0:
        die(board())
    return f"{me()[1]} of 1"


def end() -> None:
    die(board())


def test_workers_that_always_die_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "PAUSE", 0.0)
    with pytest.raises(WorkerError, match=r"^worker [01] was killed \(signal 9\), and no worker is left$"):
        launch(end, workers=2, elastic=True)


def test_one_that_keeps_dying_rests_while_the_others_go_on(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    monkeypatch.setattr(supervisor, "PAUSE", 0.0)
    monkeypatch.setattr(supervisor, "REST", 0.25)
    assert launch(outlive, workers=2, elastic=True) == "over"
    again = "isthmus: worker 1 was killed (signal 9); starting it again"
    assert caplog.messages == [again, again, f"{again} in 0.25 s", f"{again} in 0.5 s"]


def outlive() -> str | None:
    store, (seat, incarnation) = board(), me()
    if seat == 1 and incarnation < 4:
        die(store)
    store.set(f"here/{seat}", "")
    store.wait(["here/0", "here/1"])
    return "over" if seat == 0 else None


def test_who_dies_when_the_run_is_over_is_not_started_again() -> None:
    assert launch(finish, "done", workers=2, elastic=True) == "done"
    with pytest.raises(WorkerError, match=r"^worker 1 was killed \(signal 9\) while the others were leaving$"):
        launch(finish, None, workers=2, elastic=True)  # the result may have been that one's


def finish(result: str | None) -> str | None:
    store, (seat, incarnation) = board(), me()
    assert incarnation == 0
    if seat == 0:
        store.set("first", str(os.getpid()))
        return result
    first = Path("/proc") / text(store, "first")
    while first.exists():
        time.sleep(0.01)
    die(store)
    return None


@pytest.mark.parametrize("elastic", [False, True])
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (ValueError, "worker 1 failed (ValueError: two lines)"),
        (InvalidInput, "two lines"),
        (DataError, "two lines"),
        (SystemExit, "worker 1 failed (SystemExit: two lines)"),
    ],
)
def test_what_a_worker_raises_ends_the_run(kind: Any, message: str, elastic: bool) -> None:
    expected = kind if issubclass(kind, InvalidInput) else WorkerError
    with pytest.raises(expected, match=f"^{re.escape(message)}$") as caught:
        launch(fail, kind, workers=2, elastic=elastic)
    assert type(caught.value) is expected


def fail(kind: type[BaseException]) -> None:
    if me()[0] == 1:
        raise kind("two\nlines")
    board().wait(["never"])


def give(value: str) -> Any:
    seat = me()[0]
    if value == "tensor":
        return torch.arange(3.0) + seat
    if value == "late":
        return None if seat == 0 else seat
    return lambda: seat


def test_results_come_back_from_the_lowest_worker_that_has_one() -> None:
    assert launch(give, "late", workers=3) == 1
    assert launch(give, "tensor", workers=2).tolist() == [0.0, 1.0, 2.0]
    with pytest.raises(WorkerError, match=r"^worker [01] failed \(\w+: .*lambda"):
        launch(give, "function", workers=2)


def obey(folder: Path, number: int, stubborn: bool) -> None:
    """All get a signal, as from a terminal; then the launcher does, and those that are not stubborn leave."""
    store, (seat, _) = board(), me()
    os.kill(os.getpid(), number)
    store.set(f"here/{seat}", "")
    store.wait(["here/0", "here/1"])
    if seat == 0:
        os.kill(os.getppid(), number)
    why = text(store, "stop")
    if stubborn and seat == 0:
        os.kill(os.getppid(), number)
    if stubborn:
        time.sleep(60)
    (folder / f"{seat}").write_text(why)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_lets_workers_leave_in_order(number: int, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        launch(obey, tmp_path, number, False, workers=2, elastic=True)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "0": f"signal {number}",
        "1": f"signal {number}",
    }


def test_a_second_signal_ends_them_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "LEAVE", 60.0)
    with pytest.raises(KeyboardInterrupt):
        launch(obey, tmp_path, signal.SIGTERM, True, workers=2, elastic=True)
    assert not list(tmp_path.iterdir())


def test_who_does_not_leave_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "LEAVE", 0.2)
    with pytest.raises(KeyboardInterrupt):
        launch(stay, workers=2, elastic=True)


def stay() -> None:
    if me()[0] == 0:
        os.kill(os.getppid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGSTOP)


SCRIPT = """
import os, sys, time
from pathlib import Path
import isthmus
from isthmus.trainer.executors import nursery, supervisor

def settle(folder):
    name = f"{os.environ['RANK']}-{os.environ['TORCHELASTIC_RESTART_COUNT']}"
    (folder / "new").mkdir(exist_ok=True)
    (folder / "new" / name).write_text(str(os.getpid()))
    (folder / "new" / name).rename(folder / name)  # whole, once it is there
    while not (folder / "over").exists():
        time.sleep(0.02)
    return "over" if name[0] == "0" else None

if __name__ == "__main__":
    nursery._PRELOADED = nursery._PRELOADED[:2]
    supervisor.SILENT = 1.0
    print(isthmus.launch(settle, Path(sys.argv[1]), workers=3, elastic=sys.argv[2] == "elastic"))
"""


class Run:
    """A script that launches three workers, and every process that has come of it."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder = folder
        self.mark = uuid.uuid4().hex
        script = folder / "script.py"
        script.write_text(SCRIPT)
        self.launcher = subprocess.Popen(
            [sys.executable, str(script), str(folder), kind],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "MARK": self.mark},
        )

    def worker(self, name: str) -> int:
        """The process of a worker, "seat-incarnation", once it is there."""
        wait_for((self.folder / name).exists)
        return int((self.folder / name).read_text())

    def processes(self) -> dict[int, str]:
        """Process -> its command line, of all that still run, frozen or not."""
        found = {}
        for place in Path("/proc").glob("[0-9]*"):
            try:
                if f"MARK={self.mark}" in (place / "environ").read_bytes().decode(errors="replace"):
                    found[int(place.name)] = (place / "cmdline").read_bytes().decode()
            except OSError:  # gone, or not ours
                continue
        return found

    def server(self) -> int:
        """The process that workers are forked from."""
        workers = {int(path.read_text()) for path in self.folder.glob("*-*")}
        (server,) = (each for each, line in self.processes().items() if "forkserver" in line and each not in workers)
        return server

    def over(self) -> tuple[str, str]:
        """What the script wrote, after its workers were told to end."""
        (self.folder / "over").touch()
        return self.launcher.communicate(timeout=60)


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "took too long"
        time.sleep(0.02)


@pytest.fixture
def run(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Run]:
    made = Run(tmp_path, request.param)
    yield made
    for process in made.processes():
        os.kill(process, signal.SIGKILL)
    made.launcher.communicate()


@pytest.mark.parametrize("there", [True, False])
def test_a_server_whose_launcher_died_before_it_could_ask_the_kernel_ends_too(there: bool) -> None:
    """As it begins, before it loads all that workers need."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    serves = {SERVES: str(os.getpid() if there else gone.pid)}
    code = f"import os, isthmus.trainer.executors.server as s; print({SERVES!r} in os.environ)"
    run = subprocess.run([sys.executable, "-c", code], env={**os.environ, **serves}, capture_output=True, text=True)
    assert (run.returncode, run.stdout) == ((0, "False\n") if there else (1, ""))


@pytest.mark.parametrize("noted", [True, False])
def test_a_worker_whose_launcher_died_before_it_was_its_child_waits_no_longer(noted: bool) -> None:
    """However patient it is, and though whoever started the launcher may not have taken note of its end yet."""
    launcher = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, launcher.pid, os.WEXITED | os.WNOWAIT)
    if noted:
        launcher.wait()
    code = f"from isthmus.trainer.executors import kin; kin._PATIENCE = 1e9; kin.wait_for_parent({launcher.pid})"
    assert subprocess.run([sys.executable, "-c", code], timeout=120, check=False).returncode == 1
    launcher.wait()


def test_a_server_is_told_whose_it_is(tmp_path: Path) -> None:
    """By the real way to start one: what stands in its environment is the launcher that made it."""
    code = (
        "import multiprocessing.forkserver as f, os\n"
        "from pathlib import Path\n"
        "from isthmus.trainer.executors import nursery\n"
        "from isthmus.trainer.executors.kin import adopting\n"
        "from isthmus.trainer.executors.worker import Task\n"
        "nursery.interactive = lambda: False\n"
        "with adopting() as adopts:\n"
        "    nursery.nursery(Task(os.getpid(), False, True, {}, print, ()), adopts)\n"
        "server = f._forkserver._forkserver_pid\n"
        # empty until the kernel has set up what the new program is, and that may be after the call that began it
        "while not (told := Path(f'/proc/{server}/environ').read_bytes()):\n"
        "    pass\n"
        f"print(f'{SERVES}={{os.getpid()}}'.encode() in told.split(bytes(1)), {SERVES!r} in os.environ)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert run.stdout == "True False\n", run.stderr


@pytest.mark.parametrize("run", ["plain"], indirect=True)
def test_nobody_outlives_a_killed_launcher_not_even_frozen(run: Run) -> None:
    workers = [run.worker(f"{seat}-0") for seat in range(3)]
    for frozen in (workers[1], run.server()):
        os.kill(frozen, signal.SIGSTOP)
    assert len(run.processes()) >= 5
    run.launcher.kill()
    wait_for(lambda: not run.processes(), 5)
    assert run.launcher.communicate() == ("", "")


@pytest.mark.parametrize("run", ["elastic"], indirect=True)
@pytest.mark.parametrize(
    ("harm", "state"),
    [
        (signal.SIGKILL, "has died"),
        (signal.SIGSTOP, "does not answer and is killed"),
    ],
)
def test_a_server_that_is_no_use_and_a_frozen_launcher_cost_no_worker(run: Run, harm: int, state: str) -> None:
    workers = [run.worker(f"{seat}-0") for seat in range(3)]
    os.kill(run.server(), harm)
    os.kill(run.launcher.pid, signal.SIGSTOP)
    os.kill(workers[2], signal.SIGKILL)
    time.sleep(0.2)
    os.kill(run.launcher.pid, signal.SIGCONT)
    wait_for(lambda: bool(list(run.folder.glob("2-[1-9]"))))
    assert {workers[0], workers[1]} <= set(run.processes())
    out, errors = run.over()
    assert out == "over\n"
    said = f"isthmus: the process that workers are forked from {state}; a new one is made when it is needed"
    assert {said, "isthmus: worker 2 was killed (signal 9); starting it again"} <= set(errors.splitlines()), errors
    assert all(line.startswith("isthmus: ") for line in errors.splitlines()), errors
    assert not run.processes()
