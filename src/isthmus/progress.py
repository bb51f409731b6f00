"""How far a long piece of work is, on standard error: a living line on a terminal, plain lines now and then elsewhere.

A log, a pipe or a batch system gets a line after two seconds, then about every five, then ever more rarely up to every
thirty; work shorter than two seconds says nothing. Lines are written when a step ends, so no thread is needed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from threading import Event
from typing import Any, Protocol

_FIRST_LINE, _FIRST_PAUSE, _LONGEST_PAUSE, _GROWTH = 2.0, 5.0, 30.0, 1.25  # seconds; a factor


class Advance(Protocol):
    """Called with the steps done since the last call and an optional note shown at the line's end."""

    def __call__(self, steps: int = 1, note: str = "") -> None: ...


_silent = Event()
_inside: ContextVar[bool] = ContextVar("inside", default=False)


def silence() -> None:
    """Show no progress in this process any more: it helps another, which says how far the whole work is."""
    _silent.set()


def say(line: str) -> None:
    """Say one line on standard error: above the living line where there is one, from any thread."""
    if not _silent.is_set():
        print(f"isthmus: {line}", file=sys.stderr, flush=True)  # the living line has put itself in the place of stderr


def _say_nothing(steps: int = 1, note: str = "") -> None: ...


@contextmanager
def progress(
    title: str, total: int, clock: Callable[[], float] = time.monotonic, beside: Callable[[], Any] | None = None
) -> Iterator[Advance]:
    """Show on standard error how far the block is, while it runs.

    Work that is a part of other work says nothing: the whole says how far it is.

    Args:
        title: what is being done, in a few words.
        total: number of steps.
        clock: seconds, for the plain lines.
        beside: returns what a terminal shows under the living line (for rich), as it is now; None for nothing.
    """
    if _silent.is_set() or _inside.get():
        yield _say_nothing
        return
    token = _inside.set(True)
    try:
        with _shown(title, total, clock, beside) as advance:
            yield advance
    finally:
        _inside.reset(token)


@contextmanager
def _shown(
    title: str, total: int, clock: Callable[[], float], beside: Callable[[], Any] | None
) -> Iterator[Advance]:
    if not sys.stderr.isatty():
        yield _Lines(title, total, clock)
        return
    from rich.console import Console  # slow to import, and most of what says how far it is has no terminal
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    class Line(Progress):
        def get_renderables(self) -> Iterator[Any]:
            yield from super().get_renderables()
            more = None if beside is None else beside()
            if more is not None:
                yield more

    line = Line(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
        transient=True,
    )
    with line:
        task = line.add_task(title, total=total, note="")

        def advance(steps: int = 1, note: str = "") -> None:
            line.update(task, advance=steps, note=note)

        yield advance


@dataclass
class _Lines:
    """Writes "train digits: 120/600 (accuracy 0.93), 14 s, about 55 s left" where a line is due."""

    title: str
    total: int
    clock: Callable[[], float]
    done: int = 0
    pause: float = _FIRST_PAUSE
    start: float = field(init=False)
    due: float = field(init=False)

    def __post_init__(self) -> None:
        self.start = self.clock()
        self.due = self.start + _FIRST_LINE

    def __call__(self, steps: int = 1, note: str = "") -> None:
        self.done += steps
        now = self.clock()
        if now < self.due or self.done >= self.total:  # at the end the result itself follows
            return
        self.due, self.pause = now + self.pause, min(_LONGEST_PAUSE, _GROWTH * self.pause)
        passed = now - self.start
        said = f" ({note})" if note else ""
        left = f", about {duration(passed * (self.total - self.done) / self.done)} left" if self.done else ""
        print(f"{self.title}: {self.done}/{self.total}{said}, {duration(passed)}{left}", file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Return seconds in words.

    >>> duration(55.2), duration(700), duration(12345)
    ('55 s', '12 min', '3.4 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
