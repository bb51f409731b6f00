"""Taking what one needs of the initial values: all at once, or in turn where a network must be built whole for it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import torch

from isthmus.trainer.task.initial import Initial
from isthmus.trainer.wire.exchange import Link, Program, all_gather

Taken = TypeVar("Taken")
_log = logging.getLogger("isthmus")


def take(initial: Initial, some: Callable[[], Taken], link: Link, device: torch.device) -> Program[Taken]:
    """Return what a function takes of the initial values, and let go of the rest.

    Args:
        initial: the values.
        some: reads them.
        link, device: to the others, and where the numbers of a meeting are.
    """
    if link.index == 0 and initial.note:
        _log.warning("isthmus: %s", initial.note)
    if not initial.in_turn:
        found = some()
        initial.drop()
        return found
    result: list[Taken] = []
    for turn in range(link.workers):
        if turn == link.index:
            result.append(some())
            initial.drop()
        yield from all_gather(torch.zeros(1, device=device), link, counted=False)
    return result[0]
