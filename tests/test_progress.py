"""The progress line: on a terminal, and nowhere else."""

import os
import pty
import subprocess
import sys

CODE = (
    "from isthmus.progress import progress\n"
    "with progress('counting', 3) as advance:\n"
    "    for step in range(3):\n"
    "        advance(1, f'step {step}')\n"
    "print('done')\n"
)


def test_silent_when_not_a_terminal() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("done\n", "")


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
