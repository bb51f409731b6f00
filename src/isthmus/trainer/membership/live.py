"""What a run is doing now, as a small file in its folder that anybody on this host may read.

::

    RUN/live.json     {"format": 1, "round": 41, "rounds": 100, "seconds": 12.3, "workers": [{"seat": 0, ...}, ...]}

It is replaced about once a second while the run lives and removed at its end; nothing else reads or needs it.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from isthmus.trainer.membership.monitor import Heard

LIVE = "live.json"
FORMAT = 1


class LiveFile:
    """Writes it; :meth:`write` is what a monitor publishes with.

    Args:
        folder: returns the run's folder; None while it is not known, then nothing is written.
        rounds: of the whole run, if known.
        before: seconds of the run before this process took part.

    Attributes:
        workers: what it last said of each.
    """

    def __init__(self, folder: Callable[[], Path | None], rounds: int | None = None, before: float = 0.0) -> None:
        self._folder, self._rounds = folder, rounds
        self.workers: list[dict[str, object]] = []
        self._start = time.monotonic() - before

    def write(self, known: Sequence[Heard]) -> None:
        """Replace the file; a folder that cannot be written is none of a live view's business."""
        self.workers = [_entry(each) for each in known]
        folder = self._folder()
        if folder is None:
            return
        said = {
            "format": FORMAT,
            "round": max((each.round for each in known if each.member), default=0),
            "rounds": self._rounds,
            "seconds": time.monotonic() - self._start,
            "workers": self.workers,
        }
        with contextlib.suppress(OSError):
            partial = folder / f"{LIVE}.partial"
            partial.write_text(json.dumps(said, allow_nan=False) + "\n", encoding="utf-8")
            partial.replace(folder / LIVE)

    def remove(self) -> None:
        """Remove it: the run has ended."""
        folder = self._folder()
        if folder is not None:
            with contextlib.suppress(OSError):
                (folder / LIVE).unlink(missing_ok=True)


def _entry(worker: Heard) -> dict[str, object]:
    said = {} if worker.beat is None else asdict(worker.beat)
    return {"phase": "starting", "round": 0, **said, "seat": worker.seat,
            "member": worker.member, "silence": round(worker.silence, 3)}  # fmt: skip
