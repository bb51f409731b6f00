"""Real processes through the command: joined by torchrun, killed, interrupted, failing; never an orphan."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import isthmus
from cases.objectives import Items, Plain, blobs
from cases.runs import trained, without_times
from cases.strategies import ON_ANY
from isthmus.errors import InvalidInput, WorkerError
from isthmus.partitions import Rotated
from isthmus.records import read_run
from isthmus.trainer.membership.link import join
from isthmus.trainer.wire.exchange import all_gather, drive
from isthmus.trainer.wire.meter import Meter

pytestmark = pytest.mark.processes
ENDLESS = ["train", "--workers", "3", "--rounds", "100000", "--widths", "32", "16", "--eval-every", "1000"]

PROGRESS = re.compile(r"train \S+: \d+/\d+.*, \d.*\n")  # may or may not be due before the harm is done
KILLED = r"isthmus: worker {} was killed \(signal {}\) in round \d+; rows so far are in .*run"


def start(out: Path, *flags: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "isthmus", *ENDLESS, "--out", str(out), *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def rows(out: Path) -> list[dict[str, Any]]:
    try:
        lines = (out / "rows.jsonl").read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]
    except FileNotFoundError:
        return []


def wait_for(condition: Callable[[], bool], seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "took too long"
        time.sleep(0.05)


def running(process: int) -> bool:
    """Whether a process exists and is more than a zombie that nobody has waited for."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def kill_worker(index: int, how: int) -> Callable[[subprocess.Popen[str], list[int]], None]:
    return lambda command, workers: os.kill(workers[index], how)


def to_all(how: int) -> Callable[[subprocess.Popen[str], list[int]], None]:
    return lambda command, workers: os.killpg(command.pid, how)


ALONE = "data-parallel"  # which cannot go on without a worker


@pytest.mark.parametrize(
    ("strategy", "harm", "code", "status", "line"),
    [
        (ALONE, kill_worker(2, signal.SIGKILL), 1, "failed", KILLED.format(2, 9)),
        (ALONE, kill_worker(0, signal.SIGKILL), 1, "failed", KILLED.format(0, 9)),
        (ALONE, kill_worker(1, signal.SIGTERM), 1, "failed", KILLED.format(1, 15)),
        ("ist", to_all(signal.SIGINT), 130, "interrupted", "isthmus: interrupted"),
        ("ist", to_all(signal.SIGTERM), 130, "interrupted", "isthmus: interrupted"),
        ("ist", lambda command, _: command.send_signal(signal.SIGHUP), 130, "interrupted", "isthmus: interrupted"),
        ("ist", lambda command, workers: command.kill(), -signal.SIGKILL, "unfinished", None),
    ],
    ids=["kill-9-worker", "kill-9-root", "kill-worker", "ctrl-c", "sigterm", "sighup-launcher", "kill-9-launcher"],
)
def test_a_run_that_is_cut_short(
    strategy: str, harm: Any, code: int, status: str, line: str | None, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    command = start(out, "--strategy", strategy)
    try:
        wait_for(lambda: len(rows(out)) > 3)
        workers = rows(out)[0]["processes"]
        assert len(set(workers)) == 3
        assert all(running(worker) for worker in workers)
        harm(command, workers)
        _, errors = command.communicate(timeout=20)
    finally:
        command.kill()
    assert command.returncode == code
    if line is not None:
        *plan, said = PROGRESS.sub("", errors).strip().splitlines()
        assert re.fullmatch(line, said), errors
        assert plan[0].startswith("memory each worker will need"), errors
        assert not any("isthmus" in each or "Traceback" in each for each in plan), errors
    wait_for(lambda: not any(running(worker) for worker in workers), 10)
    run = read_run(out)
    assert run.status == status
    assert [row["round"] for row in run.rows] == list(range(len(run.rows)))


def test_a_worker_that_raises_is_named() -> None:
    with pytest.raises(WorkerError, match=r"^worker 1 failed \(ValueError: the third number is odd\)$"):
        isthmus.launch(fail_on_one, workers=3)


def fail_on_one() -> None:
    link = join()
    drive(all_gather(torch.zeros(2), link), link, Meter())
    if link.index == 1:
        raise ValueError("the third number\nis odd")
    drive(all_gather(torch.zeros(2), link), link, Meter())


def test_bad_input_that_a_worker_finds_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    """A loss of one's own is first called by workers; what it finds wrong is no failure of theirs."""
    flags = ["--loss", "cases.objectives:picky", "--workers", "2", "--rounds", "2", "--out", str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "-m", "isthmus", "train", *flags],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 2, done.stderr
    *plan, said = done.stderr.splitlines()
    assert said == "isthmus: `data` must hold digits up to 8, got 9"
    assert "Traceback" not in "".join(plan)
    assert read_run(tmp_path / "run").status == "failed"


def test_a_label_out_of_range_that_a_worker_finds_is_what_python_raises(tmp_path: Path) -> None:
    inputs, targets = blobs()
    targets[250] = -3
    own = {"data": (Items(inputs, targets), Items(*blobs(200, 1))), "model": Plain, "example": (torch.zeros(2, 6),)}
    with pytest.raises(
        InvalidInput, match=r"^the target of sample 250 is -3, but the network returns 3 classes, 0\.\.2$"
    ):
        isthmus.train(**own, workers=2, batch_size=16, rounds=20, out=tmp_path / "run")


@pytest.mark.parametrize("strategy", ON_ANY)
def test_the_launchers_processes_equal_serial(tmp_path: Path, strategy: str) -> None:
    flags = {"widths": (16,), "rounds": 3, "workers": 2, "strategy": strategy}
    launched = trained(tmp_path / "launched", **flags, executor="processes")
    serial = trained(tmp_path / "serial", **flags)
    assert launched.status == serial.status == "finished"
    assert launched.summary["weights_sha256"] == serial.summary["weights_sha256"]
    assert without_times(launched) == without_times(serial)
    assert all(peak > 0 for peak in launched.summary["measured_peak_bytes"])
    assert serial.summary["measured_peak_bytes"] == [None] * 2


def test_objects_go_to_the_launchers_processes(tmp_path: Path) -> None:
    """A network already made, datasets, a loss and an optimizer, as from a script."""
    data = (Items(*blobs()), Items(*blobs(200, 1)))
    own = {"data": data, "model": Plain(), "example": (torch.zeros(2, 6),), "loss": torch.nn.CrossEntropyLoss()}
    flags = {**own, "workers": 2, "batch_size": 16, "rounds": 3, "optimizer": make_adamw, "law": Rotated()}
    launched = trained(tmp_path / "launched", **flags, executor="processes")
    serial = trained(tmp_path / "serial", **flags)
    assert launched.summary["weights_sha256"] == serial.summary["weights_sha256"]


def make_adamw(module: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(module.parameters(), lr=0.01)


def test_torchrun_joins_and_equals_serial(tmp_path: Path) -> None:
    flags = ["--workers", "2", "--rounds", "3", "--widths", "16"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, "-m", "isthmus", "train", *flags, "--out", str(tmp_path / "joined"), "--json"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)  # only the root prints
    serial = trained(tmp_path / "serial", workers=2, rounds=3, widths=(16,))
    assert summary["weights_sha256"] == serial.summary["weights_sha256"]
    assert read_run(tmp_path / "joined").status == "finished"


def test_torchrun_that_starts_workers_again_goes_on_from_the_last_checkpoint(tmp_path: Path) -> None:
    """Worker 1 kills itself once, in round 5 of 6; the other, told to end, saves what is there, and both go on."""
    flags = ["--workers", "2", "--rounds", "6", "--widths", "16", "--local-steps", "2", "--checkpoint-every", "2"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, "--max-restarts", "1", "-m", "isthmus", "train", *flags, "--out", str(tmp_path / "run"), "--json",
         "--loss", "cases.objectives:deadly"],
        capture_output=True,
        text=True,
        # a store for each start: in one that outlives it, gloo finds who was there before
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    run = read_run(tmp_path / "run")
    assert run.status == "finished"
    assert [row["round"] for row in run.rows] == list(range(7))
    assert re.search(r"worker 1 silent for \d s \(round 4, 1 take part\)", done.stderr)
    assert re.search(r"checkpoint-00000\d was written by 1 workers, now there are 2", done.stderr)
    assert all(sent > 0 for sent in run.rows[-1]["sent_bytes"])  # the account that began anew is no less than nothing
    assert run.summary["test_accuracy"] > run.rows[4]["test_accuracy"]


def test_torchrun_with_another_number_of_workers_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    with pytest.raises(ValueError, match="number of processes that were started, 1, got 4"):
        isthmus.train(workers=4, out=tmp_path / "run")


def test_a_worker_of_torchrun_ends_without_taking_the_interpreter_apart(tmp_path: Path) -> None:
    """While it is taken apart a thread of the process group may abort the process, and with it the whole run."""
    flags = ["train", "--workers", "1", "--rounds", "1", "--widths", "8", "--out", str(tmp_path / "run"), "--json"]
    code = f"import atexit; atexit.register(print, 'apart'); from isthmus.cli import main; main({flags})"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    worker = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **worker})
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "finished"
    assert (tmp_path / "run" / "summary.json").exists()
