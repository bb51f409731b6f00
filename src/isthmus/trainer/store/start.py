"""Taking what one needs of the initial values: all at once, or in turn where a network must be built whole for it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from isthmus.errors import InvalidInput
from isthmus.trainer.store.homes import Homes
from isthmus.trainer.task.initial import Initial
from isthmus.trainer.task.network import Network
from isthmus.trainer.wire.exchange import Link, Program, all_gather, scatter

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


def overwrite(
    network: Network,
    link: Link,
    homes: Homes,
    shards: Mapping[str, Tensor],
    fixed: Mapping[str, Tensor],
    others: Sequence[int],
) -> Program[None]:
    """Take the values of worker 0's network, where a user has made others on some workers.

    Args:
        network: of this worker.
        link: to the others.
        homes: who is home to what.
        shards: of this worker.
        fixed: what every worker has whole.
        others: whose values differ.

    Raises:
        InvalidInput: it was made by a function, which makes another on every worker.
    """
    if network.initial.in_turn:
        raise InvalidInput(
            f"`network` must make the same weights on every worker: those of worker {others[0]} differ from worker "
            "0's; draw them from torch's own generator alone"
        )
    types = {name: getattr(torch, kind.removeprefix("torch.")) for name, _, kind, _ in network.outline}
    for name in (*fixed, *homes.shapes):
        mine = fixed[name] if name in fixed else shards.get(name)
        count = (mine.shape[0] if mine is not None and mine.dim() else 1) if name in fixed else homes.count(name)
        ends = [(0, count) if name in fixed else homes.rows(name, worker) for worker in range(link.workers)]
        pieces = None
        if link.index == 0:
            pieces = [network.initial.rows(name, *each).to(network.device).reshape(-1) for each in ends]
        expected = torch.empty(0, dtype=types[name], device=network.device) if mine is None else mine
        got = yield from scatter(pieces, expected.reshape(-1), link)
        if mine is not None:
            mine.copy_(got.view(mine.shape))
