"""A run as it stands now, read from its folder by anybody who may: a view, which owns nothing and changes nothing.

The folder is another's and is being written to: every file is read up to a bound, what is torn, missing or of another
shape is left out, and what is no plain file (a pipe would block for ever) is not opened for reading.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from isthmus.errors import InvalidInput, RecordError
from isthmus.records import is_locked
from isthmus.records.files import open_file
from isthmus.records.reader import EVENTS
from isthmus.trainer.membership.live import LIVE

QUIET = 10.0  # seconds without a change in the folder after which a run may no longer live
_START = 60.0  # seconds that processes may take to start
_TAIL = 1 << 18  # bytes that are read from the end of a file of rows
_MOST = 1 << 20  # bytes of a file of one object
_EVENT = ("event", "round", "seconds", "worker", "text")
_LARGEST = 1e300  # of a number
_RUNNING = ("running", "quiet")


@dataclass(frozen=True)
class View:
    """What can be seen of a run.

    Attributes:
        folder: of the run.
        status: running; quiet (nothing was written for a while); killed (and no process holds it); or as its summary
            says: finished, diverged, ...
        quiet: seconds since something changed in the folder, by the clock of its files.
        config: of the run.
        live: what its root last said of all workers, {} where it says nothing.
        rows: the last ones, one a round.
        events: the last ones.
        summary: {} before its end.
    """

    folder: Path
    status: str
    quiet: float
    config: Mapping[str, Any] = field(repr=False)
    live: Mapping[str, Any] = field(repr=False)
    rows: tuple[Mapping[str, Any], ...] = field(repr=False)
    events: tuple[Mapping[str, Any], ...] = field(repr=False)
    summary: Mapping[str, Any] = field(repr=False)

    @property
    def ended(self) -> bool:
        """Whether the run goes on no more."""
        return self.status not in _RUNNING

    @property
    def round(self) -> int:
        """Rounds merged."""
        said = [count(each.get("round")) for each in (self.live, *self.rows[-1:])]
        return max((number for number in said if number is not None), default=0)

    @property
    def rounds(self) -> int | None:
        """Rounds in all, if known."""
        said = count(self.live.get("rounds"))
        return count(self.config.get("rounds")) if said is None else said

    @property
    def seconds(self) -> float | None:
        """Seconds the run has taken."""
        said = [amount(each.get("seconds")) for each in (self.live, *self.rows[-1:])]
        return max((number for number in said if number is not None), default=None)

    @property
    def workers(self) -> list[Mapping[str, Any]]:
        """What is known of each worker, by seat; silence counts on while nobody writes."""
        said = self.live.get("workers")
        known = [each for each in said if isinstance(each, dict)] if isinstance(said, list) else []
        seated = [each for each in known if count(each.get("seat")) is not None]
        heard = [each | {"silence": (amount(each.get("silence")) or 0.0) + self.quiet} for each in seated]
        return sorted(heard, key=lambda each: each["seat"])

    def last(self, column: str) -> float | None:
        """Return the last number in a column of the rows, None where there is none."""
        said = (amount(row.get(column)) for row in reversed(self.rows))
        return next((number for number in said if number is not None), None)

    def to_json(self) -> dict[str, Any]:
        """Return the view as plain JSON data."""
        return {
            "run": str(self.folder),
            "status": self.status,
            "quiet_seconds": round(self.quiet, 3),
            "round": self.round,
            "rounds": self.rounds,
            "seconds": self.seconds,
            "train_loss": self.last("train_loss"),
            "test_accuracy": self.last("test_accuracy"),
            "workers": self.workers,
            "events": [{name: each.get(name) for name in _EVENT} for each in self.events],
        }


def look(folder: Path) -> View:
    """Return what can be seen of a training now.

    Raises:
        RecordError: the folder is no run of isthmus.
        InvalidInput: a run that is no training.
    """
    said = read_object(folder / "config.json")
    config, kind = said.get("config"), said.get("kind")
    if not isinstance(config, dict) or not isinstance(kind, str):
        raise RecordError(f"{folder} is not a run of isthmus: cannot read config.json")
    if kind != "train":
        raise InvalidInput(f"`run` must be a training, {folder} is a run of `isthmus {printable(kind)}`")
    summary = read_object(folder / "summary.json")
    live = {} if summary else read_object(folder / LIVE)
    quiet, rows = _quiet(folder), tuple(lines(folder / "rows.jsonl"))
    status = printable(summary.get("status", "ended")) if summary else _running(folder, quiet, live, rows)
    return View(folder, status, quiet, config, live, rows, tuple(lines(folder / EVENTS)), summary)


def lines(path: Path, most: int = _TAIL) -> list[dict[str, Any]]:
    """Return the objects on the last lines of a file, as far as some bytes reach; torn lines are left out."""
    text, whole = _end(path, most)
    pieces = text.split(b"\n")
    read = (_parsed(piece) for piece in (pieces if whole else pieces[1:]))
    return [each for each in read if each]


def printable(value: object, most: int = 200) -> str:
    """Return a text from a run's folder so that it can do nothing to a terminal.

    >>> printable("a\\x1b[2Jb")
    'a?[2Jb'
    """
    text = str(value)
    cut = text if len(text) <= most else text[: most - 1] + "…"
    return "".join(letter if letter.isprintable() else "?" for letter in cut)


def count(value: object) -> int | None:
    """Return a number as it stands in a file, if it is a whole one that counts something."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def amount(value: object) -> float | None:
    """Return a number as it stands in a file, if it is a finite one."""
    fine = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= _LARGEST
    return float(value) if fine else None  # type: ignore[arg-type]


def read_from(path: Path, place: int) -> tuple[list[dict[str, Any]], int]:
    """Return the objects on the whole lines of a file after a place, and the place after them; 0 if it has shrunk."""
    found: list[dict[str, Any]] = []
    with contextlib.suppress(OSError), open_file(path) as number, os.fdopen(os.dup(number), "rb") as file:
        if os.fstat(number).st_size < place:
            return [], 0
        file.seek(place)
        for line in iter(lambda: file.readline(_TAIL), b""):
            if not line.endswith(b"\n"):  # it is being written, or is no line of ours
                break
            place += len(line)
            found.append(_parsed(line))
    return [each for each in found if each], place


def read_object(path: Path) -> dict[str, Any]:
    """Return the object that a small file holds, {} where there is none."""
    text, whole = _end(path, _MOST)
    return _parsed(text) if whole else {}


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _end(path: Path, most: int) -> tuple[bytes, bool]:
    """The last bytes of a plain file, and whether that is all of it; nothing of anything else."""
    with contextlib.suppress(OSError), open_file(path) as number, os.fdopen(os.dup(number), "rb") as file:
        size = os.fstat(number).st_size
        file.seek(max(0, size - most))
        return file.read(most), size <= most
    return b"", False


def _running(folder: Path, quiet: float, live: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """How a run is that has no end: at its start, or without a live file, it may be quiet for longer."""
    spent, done = (amount(rows[-1].get(name)) if rows else None for name in ("seconds", "round"))
    usual = QUIET if live else 10 * (spent or 0.0) / max(done or 0.0, 1.0) if rows else _START
    if quiet <= QUIET or (quiet <= usual and is_locked(folder)):
        return "running"
    return "quiet" if is_locked(folder) else "killed"  # a lock alone says little: other hosts may not see it


def _quiet(folder: Path) -> float:
    """Seconds since a file of the run changed; a clock that was set back gives 0."""
    changed = 0.0
    for name in ("config.json", "rows.jsonl", LIVE, EVENTS):
        try:
            changed = max(changed, (folder / name).stat().st_mtime)
        except OSError:
            continue
    return max(0.0, time.time() - changed)
