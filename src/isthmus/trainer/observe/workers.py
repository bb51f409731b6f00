"""What each worker does, as a table for a terminal: of a run that is followed, and beside the progress of one's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import filesize
from rich.table import Table
from rich.text import Text

from isthmus.progress import duration
from isthmus.trainer.observe.watch import amount, count, printable

_SILENT = 3.0  # seconds without a heartbeat that are worth a colour
_COLORS = {"computing": "green", "moving": "cyan", "waiting": "yellow", "looking": "blue", "saving": "blue"}
_COLUMNS = {"worker": "left", "state": "left", "round": "right", "sent": "right", "received": "right", "loss": "right",
            "last heard": "right"}  # fmt: skip


def table(workers: Sequence[Mapping[str, Any]]) -> Table:
    """Return a line a worker, from what the run last said of them."""
    shown = Table(box=None, pad_edge=False)
    for heading, side in _COLUMNS.items():
        shown.add_column(heading, justify=side)  # type: ignore[arg-type]
    for each in workers:
        loss, again = amount(each.get("loss")), count(each.get("incarnation")) or 0
        shown.add_row(
            f"{each['seat']}" + (f" (started {again + 1} times)" if again else ""),
            Text(state(each), style="red" if odd(each) else _COLORS.get(str(each.get("phase")), "")),
            f"{count(each.get('round')) or 0}",
            filesize.decimal(count(each.get("sent")) or 0),
            filesize.decimal(count(each.get("received")) or 0),
            "" if loss is None else f"{loss:.4g}",
            Text(ago(each), style="red" if _silent(each) else ""),
        )
    return shown


def state(worker: Mapping[str, Any]) -> str:
    """Return what a worker does, in a word; one that takes no part is out."""
    phase = printable(worker.get("phase", "unknown"))
    return phase if worker.get("member", True) or phase == "ended" else "out"


def odd(worker: Mapping[str, Any]) -> bool:
    """Whether there is something to say of it: it is silent, or takes no part."""
    return _silent(worker) or state(worker) == "out"


def _silent(worker: Mapping[str, Any]) -> bool:
    return (amount(worker.get("silence")) or 0.0) > _SILENT and worker.get("phase") != "ended"


def ago(worker: Mapping[str, Any]) -> str:
    """Return when it was last heard from, in words."""
    silence = amount(worker.get("silence"))
    return "never" if silence is None else "now" if silence <= _SILENT else f"{duration(silence)} ago"
