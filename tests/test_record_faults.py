"""Two runs in one folder, killed owners, full disks, removed folders: real processes and real file systems."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cases.runs import trained, without_times
from isthmus.errors import RecordError, WorkerError
from isthmus.records import RunWriter, check_run, is_locked, read_run
from isthmus.records.chain import begin, read_lines
from isthmus.records.place import claim

WON, LOST = 0, 3


def forked(action: Callable[[], int]) -> int:
    """Call something in a child process, which ends with what it returns; return its number."""
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # whatever the test does, no child outlives it for long
        try:
            os._exit(action())
        except BaseException:
            os._exit(99)
    return child


def code_of(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


# ------------------------------------------------------------------------------ the lock


@pytest.mark.parametrize("replace", [False, True])
def test_of_two_runs_that_claim_a_folder_at_one_instant_one_wins(tmp_path: Path, replace: bool) -> None:
    """60 pairs of processes in all. Before there was a lock, both won in 6 of 60."""
    for attempt in range(30):
        folder = tmp_path / str(attempt)
        if replace:
            RunWriter(folder, "train", {}).finish({})
        (go, start), (wait, end) = os.pipe(), os.pipe()

        def take(folder: Path = folder, go: int = go, wait: int = wait, end: int = end) -> int:
            os.close(end)
            os.read(go, 1)
            try:
                held = claim(folder, replace)
            except RecordError as error:
                return LOST if "is being written by process" in str(error) else 98
            os.read(wait, 1)  # until the other has lost
            held.release()
            return WON

        pair = [forked(take), forked(take)]
        os.write(start, b"..")
        first, status = os.wait()
        os.close(end)
        (second,) = set(pair) - {first}
        assert [os.waitstatus_to_exitcode(status), code_of(second)] == [LOST, WON]
        for place in (go, start, wait):
            os.close(place)


def test_the_lock_of_a_process_that_was_killed_is_free(tmp_path: Path) -> None:
    def die() -> int:
        writer = RunWriter(tmp_path / "run", "train", {})
        writer.append({"round": 0})
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    assert code_of(forked(die)) == -signal.SIGKILL
    assert (tmp_path / "run" / "lock").exists()
    assert not is_locked(tmp_path / "run")
    assert "no process writes it" in check_run(tmp_path / "run").notes[0]
    with pytest.raises(RecordError, match="already holds a run"):
        RunWriter(tmp_path / "run", "train", {})
    RunWriter.again(tmp_path / "run", {}, None).close()
    assert len(read_run(tmp_path / "run").rows) == 1
    RunWriter(tmp_path / "run", "train", {}, replace=True).finish({})
    assert not (tmp_path / "run" / "lock").exists()


def test_a_live_run_is_neither_replaced_nor_resumed_and_says_who_writes_it(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "run", "train", {})
    writer.append({"round": 0})
    for take in (lambda: RunWriter(tmp_path / "run", "train", {}, replace=True),
                 lambda: RunWriter.again(tmp_path / "run", {}, None)):  # fmt: skip
        with pytest.raises(RecordError, match=rf"is being written by process {os.getpid()} on ") as caught:
            take()
        assert "\n" not in str(caught.value)
    assert is_locked(tmp_path / "run")
    assert "it is being written" in check_run(tmp_path / "run").notes[0]
    writer.append({"round": 1})
    writer.finish({})
    assert len(read_run(tmp_path / "run").rows) == 2
    assert not is_locked(tmp_path / "run")


def test_a_forked_process_does_not_hold_the_lock(tmp_path: Path) -> None:
    """As the workers of a notebook are forked: one that outlives its run must not keep the folder."""
    writer = RunWriter(tmp_path / "run", "train", {})
    (wait, end), (heard, ready) = os.pipe(), os.pipe()
    child = forked(lambda: os.write(ready, b".") and len(os.read(wait, 1)))
    os.read(heard, 1)
    writer._lock.drop()  # type: ignore[union-attr]  # as the kernel does when this process is killed
    assert not is_locked(tmp_path / "run")
    os.write(end, b".")
    assert code_of(child) == 1


def test_replacing_removes_what_isthmus_wrote_and_names_the_rest(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, outside = tmp_path / "run", tmp_path / "outside"
    outside.mkdir()
    (outside / "thesis.tex").write_text("ten years")
    with RunWriter(folder, "figure", {}) as writer:
        (folder / "gap.png").write_bytes(b"picture")
        saved = folder / "checkpoints" / "checkpoint-000003"
        saved.mkdir(parents=True)
        for name in ("checkpoint.json", "shard-00000-of-00001.safetensors"):
            (saved / name).write_text("")
        writer.finish({}, files=[folder / "gap.png"])
    (folder / "notes.txt").write_text("mine")
    (folder / "summary.json.bak").write_text("mine")
    (folder / "live.json").mkdir()
    (folder / "checkpoints" / "kept").symlink_to(outside)
    (folder / "model.safetensors").symlink_to(outside / "thesis.tex")
    RunWriter(folder, "figure", {}, replace=True).finish({})
    assert caplog.messages == [
        f"isthmus: what isthmus did not write stays in {folder}: "
        "checkpoints/kept, live.json, notes.txt, summary.json.bak"
    ]
    assert (outside / "thesis.tex").read_text() == "ten years"
    assert sorted(path.name for path in folder.iterdir()) == [
        "checkpoints", "config.json", "environment.json", "live.json", "manifest.json", "notes.txt", "rows.jsonl",
        "summary.json", "summary.json.bak",
    ]  # fmt: skip
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["kept"]


def test_a_start_that_was_killed_leaves_a_folder_that_is_free(tmp_path: Path) -> None:
    """At each of its steps: the lock, files aside, the manifest, names one after another."""
    whole = tmp_path / "whole"
    RunWriter(whole, "train", {}).close()
    texts = {name: (whole / name).read_text() for name in ("config.json", "environment.json", "manifest.json")}
    for aside in (["config.json"], ["config.json", "environment.json"], [*texts]):
        folder = tmp_path / f"{len(aside)}"
        folder.mkdir()
        (folder / "lock").touch()
        for name in aside:
            (folder / f"{name}.partial").write_text(texts[name])
        RunWriter(folder, "train", {}).finish({})
        assert check_run(folder).faults == ()
    for named in ([], ["config.json"], ["config.json", "environment.json"]):  # after the manifest it is a run
        folder = tmp_path / f"run-{len(named)}"
        folder.mkdir()
        for name in texts:
            there = name in (*named, "manifest.json")
            (folder / (name if there else f"{name}.partial")).write_text(texts[name])
        (folder / "rows.jsonl").touch()
        assert check_run(folder).faults == ()
        RunWriter(folder, "train", {}, replace=True).finish({})
        assert check_run(folder).faults == ()


def test_several_processes_write_events_into_one_file(tmp_path: Path) -> None:
    with RunWriter(tmp_path / "run", "train", {}) as writer:

        def tell(number: int) -> int:
            own = RunWriter.attach(tmp_path / "run")
            for round in range(40):
                own.event("late", f"worker {number} was late", round, number)
            own.close()
            return 0

        children = [forked(lambda number=number: tell(number)) for number in range(3)]  # type: ignore[misc]
        writer.event("lost", "worker 3 is gone", 0, 3)
        assert [code_of(child) for child in children] == [0, 0, 0]
    events = read_run(tmp_path / "run").events
    assert check_run(tmp_path / "run").faults == ()
    assert len(events) == 121
    assert [event["round"] for event in events if event["worker"] == 1] == list(range(40))
    assert set(events[0]) == {"event", "round", "seconds", "worker", "text"}


# ------------------------------------------------------------------------------ the disk


@dataclass
class Disk:
    """A place that can be full."""

    folder: Path
    fill: Callable[[], None]
    free: Callable[[], None]


@pytest.fixture(params=["a small disk", "a limit on sizes"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if request.param == "a small disk":
        with mounted(folder, "256k"):
            yield Disk(folder, lambda: fill(folder / "other"), lambda: (folder / "other").unlink())
        return
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield Disk(folder, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1, before[1])),
               lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before))  # fmt: skip
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


class mounted:
    """A file system in memory of a few kilobytes; the test is skipped where none can be mounted."""

    def __init__(self, folder: Path, size: str) -> None:
        self.folder, self.size = folder, size

    def __enter__(self) -> None:
        command = ["mount", "-t", "tmpfs", "-o", f"size={self.size}", "tmpfs", self.folder]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode != 0:
            pytest.skip("needs the right to mount a file system")

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", self.folder], check=True)


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            pass


def row(round: int) -> dict[str, Any]:
    return {"round": round, "filling": "x" * 3000}  # less than a page, so that a line is cut in its middle


def test_rows_wait_while_the_disk_is_full_and_one_line_says_so(disk: Disk, caplog: pytest.LogCaptureFixture) -> None:
    with RunWriter(disk.folder / "run", "train", {}) as writer:
        for round in range(3):
            writer.append(row(round))
        disk.fill()
        for round in range(3, 9):
            writer.append(row(round))
            writer.event("late", "worker 1 was late", round, 1)
        full = list(caplog.messages)
        assert len(read_run(writer.path).rows) < 9
        disk.free()
        for round in range(9, 12):
            writer.append(row(round))
    assert [row["round"] for row in read_run(disk.folder / "run").rows] == list(range(12))
    assert len(read_run(disk.folder / "run").events) == 6
    assert check_run(disk.folder / "run").faults == ()
    assert len(full) == 2
    for name in ("rows.jsonl", "events.jsonl"):
        assert any(f"{name} cannot be written" in line for line in full)
        assert any(f"{name} is written again" in line for line in caplog.messages[2:])


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    with mounted(folder, "256k"):
        yield folder


@pytest.mark.parametrize("spare", [True, False])
def test_what_cannot_be_written_in_the_end_goes_to_the_spare_folder(small: Path, tmp_path: Path, spare: bool) -> None:
    (tmp_path / "spare").mkdir()
    (tmp_path / "spare" / "rows.jsonl").write_text("of another run")
    writer = RunWriter(small / "run", "train", {}, spare=tmp_path / "spare" if spare else None)
    for round in range(3):
        writer.append(row(round))
    fill(small / "other")
    for round in range(3, 9):
        writer.append(row(round))
    run = read_run(writer.path)
    where = r"they are in \S*spare/rows-2.jsonl" if spare else "they are lost"
    lacks = rf"rows.jsonl lacks {9 - len(run.rows)} lines, .*; {where}.*no summary"
    with pytest.raises(RecordError, match=lacks) as caught:
        writer.finish({"accuracy": 1})
    assert "\n" not in str(caught.value)
    assert not is_locked(writer.path)
    assert read_run(writer.path) == run  # with all that was written, and no end
    assert run.status == "unfinished"
    assert (tmp_path / "spare" / "rows.jsonl").read_text() == "of another run"
    if spare:  # one after the other they are the whole
        both = (writer.path / "rows.jsonl").read_bytes() + (tmp_path / "spare" / "rows-2.jsonl").read_bytes()
        found = read_lines(both, begin(writer._manifest.run, "rows.jsonl"))
        assert (found.faults, [one["round"] for one in found.rows]) == ([], list(range(9)))
        assert json.loads((tmp_path / "spare" / "summary.json").read_text())["status"] == "failed"


def test_a_folder_that_is_removed_is_one_line_and_is_not_made_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    writer = RunWriter(tmp_path / "run", "train", {}, spare=tmp_path / "spare")
    writer.append({"round": 0})
    shutil.rmtree(writer.path)
    for round in range(1, 5):
        writer.append({"round": round})
    assert len(caplog.messages) == 1
    assert "rows.jsonl cannot be written (No such file or directory)" in caplog.messages[0]
    with pytest.raises(RecordError, match=r"lacks 4 lines.*they are in .*spare/rows\.jsonl.*in .*spare/summary\.json"):
        writer.finish({})
    assert not writer.path.exists()


def test_rows_from_the_spare_folder_make_the_run_whole(tmp_path: Path) -> None:
    """Where only the rows could not be written, as on a disk that has room again too late."""
    writer = RunWriter(tmp_path / "run", "train", {}, spare=tmp_path / "spare")
    rows, aside = writer.path / "rows.jsonl", tmp_path / "aside"
    writer.append({"round": 0})
    rows.rename(aside)
    rows.mkdir()
    writer.append({"round": 1})
    with pytest.raises(RecordError, match="lacks 1 lines"):
        writer.finish({})
    rows.rmdir()
    rows.write_bytes(aside.read_bytes() + (tmp_path / "spare" / "rows.jsonl").read_bytes())
    assert [row["round"] for row in read_run(writer.path).rows] == [0, 1]
    assert check_run(writer.path).faults == ()
    assert read_run(writer.path).status == "failed"


def test_rows_that_are_removed_under_a_run_are_seen_to_be_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with RunWriter(tmp_path / "run", "train", {}) as writer:
        writer.append({"round": 0})
        (writer.path / "rows.jsonl").unlink()
        writer.append({"round": 1})
    assert "was removed while the run goes on" in caplog.messages[0]
    assert "rows.jsonl, line 1: does not follow" in check_run(writer.path).faults[0]


def test_a_failure_is_not_hidden_by_a_full_disk(small: Path, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        with RunWriter(small / "run", "train", {}) as writer:
            fill(small / "other")
            writer.append(row(0))
            writer.append(row(1))
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail()
    assert "lacks" in caplog.messages[-1]


def test_a_full_disk_at_the_start_is_one_line(small: Path) -> None:
    fill(small / "other")
    with pytest.raises(RecordError, match=r"cannot write .*: No space left on device"):
        RunWriter(small / "run", "train", {"filling": "x" * 10_000})


# --------------------------------------------------------------------- checkpoints

TRAINING: dict[str, Any] = {
    "data": "digits", "widths": (64,), "workers": 2, "batch_size": 16, "local_steps": 2, "rounds": 4, "lr": 0.05,
    "checkpoint_every": 1,
}  # fmt: skip
ROOM = 40_000  # bytes: for rows and summary, and neither for a checkpoint nor for the network, of 19 kB


@pytest.mark.parametrize("executor", ["serial", "processes"])
def test_a_training_goes_on_without_room_for_checkpoints_and_uses_the_spare_folder(
    small: Path, tmp_path: Path, executor: str, caplog: pytest.LogCaptureFixture
) -> None:
    whole = trained(tmp_path / "whole", **TRAINING)
    leave_room(small, ROOM)
    caplog.clear()
    run = trained(small / "run", **TRAINING, executor=executor, spare=tmp_path / "spare")
    assert without_times(run) == without_times(whole)
    assert run.summary["weights_sha256"] == whole.summary["weights_sha256"]
    assert check_run(run.path).faults == ()
    if executor == "serial":  # else the worker says it
        assert sum("no checkpoint in" in line and "No space left" in line for line in caplog.messages) == 4
        assert sum("model.safetensors" in line and "it goes to" in line for line in caplog.messages) == 1
    assert list((small / "run" / "checkpoints").iterdir()) == []
    kept = sorted(path.name for path in (tmp_path / "spare").rglob("*") if path.parent.name in ("spare", "checkpoints"))
    assert kept == ["checkpoint-000003", "checkpoint-000004", "checkpoints", "model.safetensors"]
    assert (tmp_path / "spare" / "model.safetensors").read_bytes() == (whole.path / "model.safetensors").read_bytes()


def test_a_training_whose_folder_is_removed_goes_on_to_its_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = RunWriter.append

    def append_and_remove(self: RunWriter, row: dict[str, Any]) -> None:
        append(self, row)
        if row["round"] == 2:
            shutil.rmtree(self.path)

    monkeypatch.setattr(RunWriter, "append", append_and_remove)
    with pytest.raises(RecordError, match=r"lacks 2 lines.*has no summary.*spare/summary\.json"):
        trained(tmp_path / "run", **TRAINING, spare=tmp_path / "spare")
    assert not (tmp_path / "run").exists()
    assert sorted(path.name for path in (tmp_path / "spare" / "checkpoints").iterdir()) == [
        "checkpoint-000003", "checkpoint-000004",
    ]  # fmt: skip
    assert (tmp_path / "spare" / "model.safetensors").exists()
    assert sum("no checkpoint in" in line and "No such file or directory" in line for line in caplog.messages) == 3


def test_a_checkpoint_that_a_user_asks_for_and_cannot_be_written_is_an_error(small: Path) -> None:
    leave_room(small, ROOM)
    with pytest.raises(WorkerError, match=r"worker 0 could not write .*model\.safetensors"):
        trained(small / "run", **TRAINING)
    assert len(read_run(small / "run").rows) == 5
    assert read_run(small / "run").status == "failed"


def leave_room(disk: Path, room: int) -> None:
    """Fill a disk but for some bytes."""
    path = disk / "other"
    fill(path)
    os.truncate(path, path.stat().st_size - room)
