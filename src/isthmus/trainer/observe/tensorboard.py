"""A run's rows and events as TensorBoard event files in its folder, as far as the run has come.

They are written from the folder by whoever watches, so every run can have them, one of last year too, and training
knows nothing of them. ``tensorboard --logdir runs`` then shows all such runs by their names.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from isthmus.errors import RecordError, missing_dependency
from isthmus.records.reader import EVENTS
from isthmus.trainer.observe.watch import amount, count, printable, read_from, read_object

try:
    from torch.utils.tensorboard import SummaryWriter
except ImportError as error:
    raise missing_dependency("writing TensorBoard files", error) from error

_SCALARS = ("train_loss", "test_accuracy", "test_loss", "test_metric", "lr")
_OURS = ".isthmus"  # at the end of the files' names: those of an earlier watch are replaced
_SUMS = ("sent_bytes", "received_bytes")  # over workers


class EventFiles:
    """Writes them; :meth:`update` adds what has come since the last time.

    Args:
        folder: of the run.

    Raises:
        RecordError: the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._started = folder, _started(folder)
        self._begin()

    def _begin(self) -> None:
        self._places = {"rows.jsonl": 0, EVENTS: 0}
        try:
            for earlier in self._folder.glob(f"events.out.tfevents.*{_OURS}"):
                earlier.unlink()
            self._writer = SummaryWriter(str(self._folder), filename_suffix=_OURS)
        except OSError as error:
            raise RecordError(f"cannot write {self._folder}: {error.strerror}") from error

    def update(self) -> None:
        """Add rows and events that are new; all of them again where the run has gone back to a checkpoint."""
        for name, add in (("rows.jsonl", self._row), (EVENTS, self._event)):
            lines, place = read_from(self._folder / name, self._places[name])
            if place < self._places[name]:
                self.close()
                self._begin()
                return self.update()
            self._places[name] = place
            for line in lines:
                add(line)
        self._writer.flush()
        return None

    def close(self) -> None:
        """Write what waits, and close the file."""
        self._writer.close()

    def _row(self, row: Mapping[str, Any]) -> None:
        step, at = count(row.get("round")), self._time(row)
        sums = {name: sum(map(_or_nothing, values)) for name in _SUMS if isinstance(values := row.get(name), list)}
        for name, value in (*((name, amount(row.get(name))) for name in _SCALARS), *sums.items()):
            if value is not None:
                self._writer.add_scalar(name, value, step, at)

    def _event(self, event: Mapping[str, Any]) -> None:
        worker = count(event.get("worker"))
        said = [*([] if worker is None else [f"worker {worker}"]), *([text] if (text := event.get("text")) else [])]
        name = f"events/{printable(event.get('event'), 40)}"
        self._writer.add_text(name, printable(": ".join(map(str, said))), count(event.get("round")), self._time(event))

    def _time(self, row: Mapping[str, Any]) -> float:
        return self._started + (amount(row.get("seconds")) or 0.0)


def _or_nothing(value: Any) -> float:
    return amount(value) or 0.0


def _started(folder: Path) -> float:
    """When the run began, in seconds since 1970, as it is recorded; else when its folder was made ready."""
    try:
        return datetime.fromisoformat(read_object(folder / "environment.json")["started"]).timestamp()
    except (ValueError, TypeError, KeyError):
        return (folder / "config.json").stat().st_mtime
