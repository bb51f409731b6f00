"""Progress: one living line on a terminal, plain lines now and then anywhere else."""

import itertools
import os
import pty
import re
import subprocess
import sys
from itertools import pairwise

import pytest

from isthmus.progress import progress

CODE = (
    "from isthmus.progress import progress\n"
    "with progress('counting', 3) as advance:\n"
    "    for step in range(3):\n"
    "        advance(1, f'step {step}')\n"
    "print('done')\n"
)


def test_short_work_says_nothing_where_there_is_no_terminal() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("done\n", "")


def lines(capsys: pytest.CaptureFixture[str], seconds_a_step: float, total: int, note: str = "") -> list[str]:
    """What is written on standard error by ``total`` steps of this length, on a clock that only the steps move."""
    now = [100.0]
    with progress("train digits", total, clock=lambda: now[0]) as advance:
        for _ in range(total):
            now[0] += seconds_a_step
            advance(1, note)
    shown = capsys.readouterr()
    assert shown.out == ""
    return shown.err.splitlines()


@pytest.mark.parametrize(("seconds", "total"), [(0.19, 10), (1.9, 1), (60.0, 1)])
def test_work_that_is_over_or_shorter_than_two_seconds_says_nothing(
    seconds: float, total: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lines(capsys, seconds, total) == []


def test_a_line_says_how_far_how_long_and_how_much_longer(capsys: pytest.CaptureFixture[str]) -> None:
    assert lines(capsys, 1.0, 5, "accuracy 0.93") == ["train digits: 2/5 (accuracy 0.93), 2 s, about 3 s left"]
    first, second, *_ = lines(capsys, 700.0, 100)
    assert first == "train digits: 1/100, 12 min, about 19.2 h left"
    assert second.startswith("train digits: 2/100, 23 min")


def test_lines_come_after_two_seconds_then_every_five_then_more_rarely(capsys: pytest.CaptureFixture[str]) -> None:
    found = [int(re.search(r": (\d+)/", line)[1]) / 10 for line in lines(capsys, 0.1, 6000)]
    pauses = [later - before for before, later in pairwise(found)]
    assert found[0] == pytest.approx(2.0, abs=0.11)
    assert pauses[0] == pytest.approx(5.0, abs=0.11)
    assert all(later >= before - 0.11 for before, later in pairwise(pauses))
    assert max(pauses) == pytest.approx(30.0, abs=0.11)


def test_a_part_of_other_work_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    clock = itertools.count(0, 100).__next__
    with progress("whole", 9, clock) as advance:
        with progress("part", 9, clock) as advance_part:
            advance_part()
        advance()
    with progress("next", 9, clock) as advance:
        advance()
    assert [line.partition(":")[0] for line in capsys.readouterr().err.splitlines()] == ["whole", "next"]


def test_a_helping_process_says_nothing() -> None:
    code = (
        "import itertools\n"
        "from isthmus.progress import progress, silence\n"
        "clock = itertools.count(0, 100).__next__\n"
        "with progress('said', 9, clock) as advance: advance()\n"
        "silence()\n"
        "with progress('not said', 9, clock) as advance: advance()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("said: 1/9, ")


def test_shown_on_a_terminal_and_not_mixed_with_the_result() -> None:
    """Standard error is a real pseudo-terminal, standard output a pipe."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    command = [sys.executable, "-c", CODE]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, env=environment, check=True)
    os.close(theirs)
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    assert done.stdout == b"done\n"
    assert "counting" in shown
    assert "3/3" in shown
    assert "step 2" in shown


def test_a_line_beside_the_living_one_stands_above_it() -> None:
    code = CODE.replace("advance(1,", "say('waiting for worker 2')\n        advance(1,").replace(
        "progress\n", "progress, say\n", 1
    )
    master, slave = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", code], stderr=slave, stdout=subprocess.DEVNULL)
    os.close(slave)
    shown = b""
    while True:
        try:
            shown += os.read(master, 4096)
        except OSError:
            break
    assert process.wait() == 0
    os.close(master)
    words = re.sub(rb"\x1b\[[0-9;?]*[a-zA-Z]", b"", shown).decode()
    assert words.count("isthmus: waiting for worker 2\r\n") == 3
    plain = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert plain.stderr == "isthmus: waiting for worker 2\n" * 3
