"""All workers in one process, in turn: the reference that real processes must equal bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from isthmus.trainer.wire.seats import Table

Result = TypeVar("Result")


def run_in_turn(function: Callable[..., Result], arguments: Sequence[Sequence[object]]) -> list[Result]:
    """Call a function as every worker, each with its own arguments, on one thread each; return the results by worker.

    Raises:
        WorkerError: a worker failed; the message names it. What isthmus raises itself is raised as it is.
    """
    return Table(len(arguments)).run(function, arguments)
