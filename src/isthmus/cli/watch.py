"""Follow a training that goes on, or look at it once: each worker, the whole, and what has happened; Ctrl-C leaves."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from isthmus.errors import InvalidInput
from isthmus.progress import duration
from isthmus.records.reader import EVENTS
from isthmus.trainer.observe.watch import View, amount, count, look, printable, read_from
from isthmus.trainer.observe.workers import ago, odd, state, table

_EVERY = 0.5  # seconds between two looks
_FIRST_PAUSE, _LONGEST_PAUSE, _GROWTH = 5.0, 60.0, 1.25  # seconds between plain lines; a factor
_EVENTS = 8  # shown


@dataclass(frozen=True)
class Options:
    """The flags of `isthmus watch`.

    Attributes:
        run: Folder of the run.
        once: Print one table and leave.
        json: Print one JSON object and leave.
        tensorboard: Also write what the rows and events say to event files in the folder, for `tensorboard --logdir`.
    """

    run: Annotated[Path, tyro.conf.Positional] = Path()
    once: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    tensorboard: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False

    def __post_init__(self) -> None:
        if self.run == Path():
            raise InvalidInput("`run` must be given: isthmus watch RUN")


def run(options: Options, command: list[str]) -> None:
    """Look once, or follow until the run has ended or the user leaves, which is no failure."""
    first = look(options.run)
    console = Console()
    with _also_for_tensorboard(options) as update:
        if options.json:
            print(json.dumps(first.to_json()))
        elif options.once:
            console.print(shown(first))
        else:
            views = _views(first, update)
            with suppress(KeyboardInterrupt):
                _follow(views, console) if console.is_terminal else _lines(views)


@contextmanager
def _also_for_tensorboard(options: Options) -> Iterator[Callable[[], None]]:
    """Give what is to be called after every look."""
    if not options.tensorboard:
        yield lambda: None
        return
    from isthmus.trainer.observe.tensorboard import EventFiles  # PyTorch is loaded here

    with closing(EventFiles(options.run)) as files:
        files.update()
        yield files.update


def _views(view: View, update: Callable[[], None]) -> Iterator[View]:
    """Look again and again until the run has ended."""
    yield view
    while not view.ended:
        time.sleep(_EVERY)
        view = look(view.folder)
        update()
        yield view


def _follow(views: Iterator[View], console: Console) -> None:
    with Live(console=console, auto_refresh=False) as living:
        for view in views:
            living.update(shown(view), refresh=True)


def _lines(views: Iterator[View]) -> None:
    """Write a line now and then, each event when it happens, and how it ended."""
    due, pause, place = 0.0, _FIRST_PAUSE, None
    for view in views:
        happened, place_now = read_from(view.folder / EVENTS, place or 0)
        if place is not None:  # what had happened before it began is no news
            print("".join(f"{event_line(event)}\n" for event in happened), end="", flush=True)
        place = place_now
        if view.ended or time.monotonic() >= due:
            print(line(view), flush=True)
            due, pause = time.monotonic() + pause, min(_LONGEST_PAUSE, _GROWTH * pause)


def line(view: View) -> str:
    """Return the whole as one line, with the workers that are silent or out."""
    strange = [f"worker {each['seat']} {state(each)}, heard {ago(each)}" for each in view.workers if odd(each)]
    return "; ".join([f"{view.folder.name}: {_progress(view)}", *strange])


def shown(view: View) -> RenderableType:
    """Return the whole view for a terminal."""
    total, title = view.rounds, Text(f"{view.folder}  ", style="bold")
    title.append(_what(view.config), style="dim not bold")
    parts: list[RenderableType] = [title, Text(_progress(view), style=_style(view))]
    if total and not view.ended:
        bar = Table.grid()  # a bar alone does not end its line
        bar.add_row(ProgressBar(total=total, completed=min(view.round, total), width=62))
        parts.append(bar)
    if view.workers:
        parts.append(table(view.workers))
    elif not view.ended:
        parts.append(Text("no word from its workers yet", style="dim"))
    parts += [Text(event_line(event), style=_event_style(event)) for event in view.events[-_EVENTS:]]
    return Group(*parts)


def event_line(event: Mapping[str, Any]) -> str:
    """Return an event as a line.

    >>> event_line({"event": "lost", "round": 41, "seconds": 700.0, "worker": 2, "text": "was killed (signal 9)"})
    'round 41, 12 min: worker 2 lost: was killed (signal 9)'
    """
    at, spent, worker = count(event.get("round")), amount(event.get("seconds")), count(event.get("worker"))
    when = ", ".join([*([] if at is None else [f"round {at}"]), *([] if spent is None else [duration(spent)])])
    what = " ".join([*([] if worker is None else [f"worker {worker}"]), printable(event.get("event", "event"))])
    return ": ".join(part for part in (when, what, printable(event.get("text") or "")) if part)


def _progress(view: View) -> str:
    """Return "round 41/100, loss 0.31, accuracy 93.0 %, 12 min, about 17 min left"."""
    spent, done, total = view.seconds, view.round, view.rounds
    loss, accuracy = view.last("train_loss"), view.last("test_accuracy")
    said = [
        *([view.status] if view.ended else []),
        f"round {done}" + (f"/{total}" if total else ""),
        *([] if loss is None else [f"loss {loss:.4g}"]),
        *([] if accuracy is None else [f"accuracy {accuracy:.1%}"]),
        *([] if spent is None else [duration(spent)]),
    ]
    if view.status == "quiet":
        said.append(f"nothing heard for {duration(view.quiet)}: is it stopped?")
    elif not view.ended and spent and done and total and done < total:
        said.append(f"about {duration(spent * (total - done) / done)} left")
    return ", ".join(said)


def _what(config: Mapping[str, Any]) -> str:
    named = [printable(config[key]) for key in ("data", "strategy", "law") if config.get(key)]
    return ", ".join(named)


def _style(view: View) -> str:
    return {"running": "", "finished": "green", "quiet": "yellow"}.get(view.status, "red")


def _event_style(event: Mapping[str, Any]) -> str:
    colours = {"lost": "red", "refused": "red", "restored": "red", "late": "yellow", "joined": "green"}
    return colours.get(str(event.get("event")), "dim")
