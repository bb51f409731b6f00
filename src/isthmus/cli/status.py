"""Exit codes: what a shell or a batch system learns about how a command ended."""

from __future__ import annotations

import sys

from isthmus.errors import IsthmusError

FINE, WORKER_FAILED, DAMAGED, BAD_INPUT, DIVERGED, INTERRUPTED = 0, 1, 1, 2, 3, 130
MEANINGS = {
    FINE: "fine",
    WORKER_FAILED: "a worker failed, or a record is damaged",
    BAD_INPUT: "bad input",
    DIVERGED: "a training diverged",
    INTERRUPTED: "interrupted",
}
_OF_STATUS = {"finished": FINE, "failed": WORKER_FAILED, "diverged": DIVERGED, "interrupted": INTERRUPTED}


def exit_unless_fine(run_status: str) -> None:
    """Raise SystemExit with the code for a run's status, as it stands in its summary; return where it is fine."""
    code = _OF_STATUS[run_status]
    if code != FINE:
        raise SystemExit(code)


def say(error: IsthmusError) -> None:
    """Print the one line of an error; of one that all workers of a run raise, once."""
    if error.everywhere:
        from isthmus.trainer.wire.rendezvous import last_words  # torch is loaded: a worker raised it

        last_words(error)
    else:
        print(f"isthmus: {error}", file=sys.stderr)
