"""What of the next round's pieces no worker changes in this one: it travels while they train.

Two units that different workers hold are joined by weights that nobody holds: those stay as they are at their homes
until the next partition. What the next round needs of them is the same whenever it is sent.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isthmus.nets.pieces.ownership import Held, write_slice
from isthmus.trainer.store.keeping import Deal, Step, places
from isthmus.trainer.store.routes import Box, Routes
from isthmus.trainer.wire.exchange import Pending


@dataclass(eq=False)
class Ahead:
    """What is on its way for the next round.

    Attributes:
        step: from the open round to the next.
        routes: of what was sent.
        coming: what is to be waited for, a group of the routes each.
        stale: whether it is of no use any more, and only to be received.
    """

    step: Step
    routes: Routes
    coming: list[Pending]
    stale: bool = False

    def serves(self, kept: Deal | None, now: Deal) -> bool:
        """Whether a round that is opened so needs it.

        Args:
            kept: the round before, if what nobody else needs stayed with the workers.
            now: the round.
        """
        fits = kept is self.step.before or (kept is None and not self.step.keeps)
        return not self.stale and self.step.after is now and fits


def divide(box: Box, round: Deal, trained: Collection[str]) -> tuple[list[Box], list[Box]]:
    """Return boxes that together are a box: those of which no worker changes anything in a round, and the others.

    Args:
        box: of a tensor.
        round: who holds what in it.
        trained: tensors that change.
    """
    if box.name not in trained:
        return [box], []
    if not box.size:
        return [], [box]
    maps = [round.map(worker) for worker, units in enumerate(round.units) if units is not None]
    held = [each[box.name] for each in maps if box.name in each]
    dims = [dim for dim in range(len(box.whole)) if any(each[dim] is not None for each in held)]
    idle: list[Box] = []
    rest: list[Box] = []
    _divide(box.held, np.ones(len(held), np.bool_), dims, [_holders(box, held, dim) for dim in dims], (idle, rest), box)
    return idle, rest


def _holders(box: Box, held: Sequence[Held], dim: int) -> NDArray[np.bool_]:
    """Return, for every index of the box in a dimension, which workers hold it: [indices, workers]."""
    found = np.ones((box.whole[dim], len(held)), np.bool_)
    for worker, each in enumerate(held):
        indices = each[dim]
        if indices is not None:
            found[:, worker] = False
            found[indices, worker] = True
    own = box.held[dim]
    return found if own is None else found[own]


def _divide(
    held: Held,
    alive: NDArray[np.bool_],
    dims: Sequence[int],
    holders: Sequence[NDArray[np.bool_]],
    found: tuple[list[Box], list[Box]],
    box: Box,
) -> None:
    """Sort a part of a box into what nobody holds and what somebody does.

    Args:
        held: the part.
        alive: the workers that hold all of it in the dimensions before.
        dims, holders: those that are left, and who holds what in them.
        found: nobody's and somebody's parts.
        box: of which it is a part.
    """
    if not alive.any() or not dims:
        found[bool(alive.any())].append(Box(box.name, held, box.whole))
        return
    dim = dims[0]
    among: NDArray[np.bool_] = np.logical_and(holders[0], alive)
    if len(dims) == 1:  # who holds it does not matter any more
        among = np.any(among, axis=1, keepdims=True)
    kinds, which = np.unique(among, axis=0, return_inverse=True)
    own = held[dim]
    for number, kind in enumerate(kinds):
        at = np.flatnonzero(which.reshape(-1) == number)
        part = own if len(kinds) == 1 else at if own is None else own[at]
        survivors = alive & kind if len(dims) > 1 else np.full(1, kind.any())
        _divide((*held[:dim], part, *held[dim + 1 :]), survivors, dims[1:], holders[1:], found, box)


def assemble(boxes: Sequence[Box], parts: Sequence[tuple[Box, Tensor]]) -> list[Tensor]:
    """Return the values of boxes, one a tensor, from the values of boxes that together are the same."""
    by_name: dict[str, list[tuple[Box, Tensor]]] = {}
    for box, value in parts:
        by_name.setdefault(box.name, []).append((box, value))
    found = []
    for box in boxes:
        own = by_name[box.name]
        if len(own) == 1:
            found.append(own[0][1])
            continue
        whole = torch.empty(box.shape, dtype=own[0][1].dtype, device=own[0][1].device)
        for part, value in own:
            write_slice(whole, places(box.held, part.held), value)
        found.append(whole)
    return found
