"""`isthmus watch`: what it shows of a run that lives, has ended, was killed or whose folder is damaged."""

from __future__ import annotations

import doctest
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from isthmus import progress
from isthmus.cli import main, watch
from isthmus.records import RunWriter
from isthmus.records.reader import EVENTS
from isthmus.trainer.membership.beat import Beat
from isthmus.trainer.membership.live import LIVE, LiveFile
from isthmus.trainer.membership.monitor import Heard
from isthmus.trainer.observe import watch as observe
from isthmus.trainer.observe.watch import look

LOST = {"event": "lost", "round": 5, "seconds": 7.5, "worker": 2, "text": "was killed (signal 9)"}


def beat(seat: int, phase: str = "computing", **more: Any) -> Beat:
    return Beat(seat, 0, 123, 6, phase, sent=4_000_000, received=5_000_000, loss=0.25, **more)


KNOWN = [
    Heard(0, True, beat(0), 0.0),
    Heard(1, True, beat(1, "waiting"), 0.4),
    Heard(2, False, beat(2), 720.0),
    Heard(3, True, None, 3900.0),
]


@pytest.fixture
def writer(tmp_path: Path) -> RunWriter:
    """A run of ten rounds that has made six of them."""
    config = {"data": "digits", "strategy": "ist", "law": "block", "workers": 4, "rounds": 10}
    writer = RunWriter(tmp_path / "run", "train", config, ["isthmus", "train"])
    for number in range(7):
        accuracy = 0.75 if number == 3 else None
        writer.append({"round": number, "seconds": 1.5 * number, "train_loss": 1 / 4, "test_accuracy": accuracy})
    (writer.path / EVENTS).write_text(json.dumps(LOST) + "\n")
    LiveFile(lambda: writer.path, rounds=10).write(KNOWN)
    return writer


def watched(writer: RunWriter, capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    main(["watch", str(writer.path), *flags])
    return capsys.readouterr().out


def test_doctests() -> None:
    for module in (watch, observe, progress):
        failed, tried = doctest.testmod(module)
        assert (failed, tried > 0) == (0, True)


def test_one_table_says_what_every_worker_does_and_what_has_happened(
    writer: RunWriter, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    first, whole, _, heading, *rest = watched(writer, capsys, "--once").splitlines()
    assert first.endswith("digits, ist, block")
    assert whole.startswith("round 6/10, loss 0.25, accuracy 75.0%, 9 s, about 6 s left")
    assert heading.split() == ["worker", "state", "round", "sent", "received", "loss", "last", "heard"]
    assert [row.split() for row in rest[:4]] == [
        ["0", "computing", "6", "4.0", "MB", "5.0", "MB", "0.25", "now"],
        ["1", "waiting", "6", "4.0", "MB", "5.0", "MB", "0.25", "now"],
        ["2", "out", "6", "4.0", "MB", "5.0", "MB", "0.25", "12", "min", "ago"],
        ["3", "starting", "0", "0", "bytes", "0", "bytes", "65", "min", "ago"],
    ]
    assert rest[4:] == ["round 5, 8 s: worker 2 lost: was killed (signal 9)"]


def test_json_gives_the_same_as_one_object(writer: RunWriter, capsys: pytest.CaptureFixture[str]) -> None:
    said = json.loads(watched(writer, capsys, "--json"))
    assert (said["status"], said["round"], said["rounds"], said["test_accuracy"]) == ("running", 6, 10, 0.75)
    assert [worker["phase"] for worker in said["workers"]] == ["computing", "waiting", "computing", "starting"]
    assert said["events"] == [LOST]
    assert 720 <= said["workers"][2]["silence"] < 780


def test_a_run_that_nobody_writes_to_is_said_to_be_quiet_and_its_silence_counts_on(
    writer: RunWriter, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in writer.path.iterdir():
        os.utime(path, (time.time() - 600,) * 2)
    said = watched(writer, capsys, "--once")
    assert "nothing heard for 10 min: is it stopped?" in " ".join(said.split())
    assert "75 min ago" in said.splitlines()[-2]  # 65 and 10
    (writer.path / LIVE).unlink()  # as a run with one worker: its rows are a second and a half apart
    assert look(writer.path).status == "quiet"
    writer.append({"round": 7, "seconds": 700.0})
    os.utime(writer.path / "rows.jsonl", (time.time() - 600,) * 2)
    assert look(writer.path).status == "running"  # and here a round takes 100 s
    writer.close()
    assert watched(writer, capsys).startswith("run: killed, round 7/10")  # nobody holds it: there is nothing to follow


def test_a_run_that_has_ended_says_how_and_is_not_followed(
    writer: RunWriter, capsys: pytest.CaptureFixture[str]
) -> None:
    writer.finish({}, status="diverged")
    assert watched(writer, capsys) == "run: diverged, round 6/10, loss 0.25, accuracy 75.0%, 9 s\n"
    assert "computing" not in watched(writer, capsys, "--once")  # what workers did last is over


def test_without_a_terminal_there_are_lines_until_the_end(
    writer: RunWriter, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_EVERY", 0.02)

    def go_on() -> None:
        time.sleep(0.1)
        with (writer.path / EVENTS).open("a") as file:
            file.write(json.dumps({"event": "joined", "round": 8, "worker": 2}) + "\n")
        time.sleep(0.1)
        writer.finish({})

    other = threading.Thread(target=go_on)
    other.start()
    shown = watched(writer, capsys).splitlines()
    other.join()
    first = "run: round 6/10, loss 0.25, accuracy 75.0%, 9 s, about 6 s left"
    assert shown[0].startswith(f"{first}; worker 2 out, heard 12 min ago; worker 3 starting, heard 65 min ago")
    assert shown[1:] == [
        "round 8: worker 2 joined",
        "run: finished, round 6/10, loss 0.25, accuracy 75.0%, 9 s",
    ]


def test_on_a_terminal_it_is_followed_and_ctrl_c_leaves_without_failure(writer: RunWriter) -> None:
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "isthmus", "watch", str(writer.path)], stdout=follower, stderr=follower, stdin=follower
    )
    os.close(follower)
    seen = b""
    while seen.count(b"computing") < 2:  # drawn, and drawn again
        seen += os.read(leader, 4096)
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 0
    os.close(leader)
    assert b"Traceback" not in seen


def test_damaged_files_are_left_out_and_nothing_blocks(writer: RunWriter, capsys: pytest.CaptureFixture[str]) -> None:
    folder = writer.path
    with (folder / EVENTS).open("ab") as file:
        file.write(b'\xff\xfe\n[1]\n{"event": "\\u001b[2J\\u001b]0;x", "round": -1, "worker": true}\n{"event": "torn')
    for broken in ("", "{", "[]", '{"workers": 3}', '{"workers": [1, {}, {"seat": "x"}, {"seat": 1, "round": 1e999}]}'):
        (folder / LIVE).write_text(broken)
        shown = watched(writer, capsys, "--once")
        assert "round 6" in shown
        assert "\x1b" not in shown
    (folder / LIVE).unlink()
    os.mkfifo(folder / LIVE)
    (folder / "rows.jsonl").unlink()
    (folder / "rows.jsonl").symlink_to("/dev/zero")
    assert "round 0/10" in watched(writer, capsys, "--once")
    assert len(look(folder).events) == 2


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard reads in a folder: (step, value) by name; texts are shown as they are."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    read = accumulator.EventAccumulator(str(folder))
    read.Reload()
    found = {tag: [(each.step, each.value) for each in read.Scalars(tag)] for tag in read.Tags()["scalars"]}
    texts = {tag: [(each.step, each.tensor_proto.string_val[0].decode()) for each in read.Tensors(tag)]
             for tag in read.Tags()["tensors"]}  # fmt: skip
    return found | texts


def test_tensorboard_reads_the_rows_and_events_and_nothing_twice(
    writer: RunWriter, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    monkeypatch.setattr(watch, "_EVERY", 0.02)
    writer.append({"round": 7, "train_loss": None, "sent_bytes": [1, 2], "received_bytes": [3, 4], "seconds": 9})
    watched(writer, capsys, "--once", "--tensorboard")
    first = scalars(writer.path)
    assert first["train_loss"] == [(number, 0.25) for number in range(7)]
    assert first["test_accuracy"] == [(3, 0.75)]
    assert (first["sent_bytes"], first["received_bytes"]) == ([(7, 3.0)], [(7, 7.0)])
    assert first["events/lost/text_summary"] == [(5, "worker 2: was killed (signal 9)")]

    def go_on() -> None:
        time.sleep(0.1)
        writer.append({"round": 8, "train_loss": 0.5})
        writer.finish({})

    other = threading.Thread(target=go_on)
    other.start()
    watched(writer, capsys, "--tensorboard")
    other.join()
    assert scalars(writer.path) == first | {"train_loss": [*first["train_loss"], (8, 0.5)]}


def test_without_tensorboard_one_line_says_what_to_install(writer: RunWriter) -> None:
    code = (
        "import sys\n"
        "sys.modules['tensorboard'] = None\n"
        "from isthmus.cli import main\n"
        f"main(['watch', {str(writer.path)!r}, '--once', '--tensorboard'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("isthmus: writing TensorBoard files needs tensorboard: pip install ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("made", ["nothing", "no run", "another run"])
def test_what_is_no_training_is_refused_in_one_line(
    made: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if made == "no run":
        (tmp_path / "config.json").write_text("{}")
    if made == "another run":
        RunWriter(tmp_path, "analyze", {}, ["isthmus", "analyze"]).finish({})
    for arguments in (["watch", str(tmp_path)], ["watch"]):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_the_live_file_is_whole_at_every_moment_and_a_lost_folder_stops_nobody(tmp_path: Path) -> None:
    file = LiveFile(lambda: tmp_path, rounds=3)
    file.write(KNOWN)
    over = threading.Event()

    def write() -> None:
        while not over.is_set():
            file.write(KNOWN)

    other = threading.Thread(target=write)
    other.start()
    for _ in range(300):
        assert len(json.loads((tmp_path / LIVE).read_text())["workers"]) == 4
    over.set()
    other.join()
    file.remove()
    assert list(tmp_path.iterdir()) == []
    LiveFile(lambda: tmp_path / "gone").write(KNOWN)
    LiveFile(lambda: None).write(KNOWN)


def test_a_run_shows_its_workers_under_its_progress_on_a_terminal(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    command = ["train", "--workers", "2", "--rounds", "100000", "--local-steps", "2", "--out", str(tmp_path / "run")]
    run = subprocess.Popen(
        [sys.executable, "-m", "isthmus", *command], stdout=subprocess.DEVNULL, stderr=theirs, start_new_session=True,
        env={**os.environ, "COLUMNS": "120", "TERM": "xterm"},
    )  # fmt: skip
    os.close(theirs)
    shown, until = "", time.monotonic() + 120
    wanted = [r"worker +state +round +sent +received +loss +last heard", *(rf"\n *{n} +[a-z]+ +\d+ " for n in (0, 1))]
    try:
        while time.monotonic() < until and not all(re.search(each, shown) for each in wanted):
            shown += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", os.read(ours, 1 << 16).decode(errors="replace"))
    finally:
        run.terminate()
        while rest_of(ours):  # what it still has to say must not block it
            pass
        run.wait(30)
        os.close(ours)
    for each in wanted:
        assert re.search(each, shown), shown[-2000:]


def rest_of(descriptor: int) -> bytes:
    """Read what a terminal says; nothing once nobody writes to it any more."""
    try:
        return os.read(descriptor, 1 << 16)
    except OSError:
        return b""
