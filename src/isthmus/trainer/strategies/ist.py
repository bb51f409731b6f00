"""Independent Subnetwork Training: cut the units over the workers, train the pieces alone, merge."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from isthmus.nets.merge import zero_cross_blocks
from isthmus.nets.scaling import scaling
from isthmus.nets.subnetwork import Subnetwork, build
from isthmus.trainer.exchange import Program
from isthmus.trainer.pieces import Pieces, Units
from isthmus.trainer.round import Worker, local_steps, new_optimizer
from isthmus.trainer.strategies.interface import Whole


class IST:
    """One worker of IST. Worker 0 holds the whole network between rounds; the others never hold more than their piece.

    Reference:
        Yuan, Wolfe, Dun, Tang, Kyrillidis, Jermaine, "Distributed learning of deep neural networks using independent
        subnet training" (VLDB 2022).
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._network = worker.network
        self._partition = self._network.partition(0)
        self._pieces = Pieces(worker)
        self._piece: Subnetwork | None = None
        self._optimizer: torch.optim.Optimizer | None = None
        self._whole: nn.Module | None = None
        if worker.is_root:
            self._whole = self._network.make().to(worker.device)
            if self._partition.law.zero_cross_blocks:
                zero_cross_blocks(self._whole, self._network.coupling, self._partition)

    @property
    def trained(self) -> nn.Module:
        """The piece this worker trains; an empty network before the first round."""
        return nn.Module() if self._piece is None else self._piece.module

    def start(self) -> Program[None]:
        """Hand out what does not change."""
        yield from self._pieces.share_fixed(self._whole)

    def round(self, number: int, steps: range) -> Program[float]:
        """Cut, train the piece on this worker's shard, merge."""
        worker = self._worker
        self._partition = self._network.partition(number)
        units = [self._partition.of(other) for other in range(worker.config.workers)]
        received = yield from self._pieces.hand_out(self._whole, units)
        with worker.meter.computing():
            piece = build(self._pieces.reader(received), self._pieces.coupling, units[worker.index], worker.index)
            self._take(piece)
        loss = local_steps(self.trained, worker, steps, self._optimizer)
        yield from self._pieces.take_back(self._whole, piece, units)
        return loss

    def whole(self) -> Whole:
        """Return the merged network and the scales that match its sums to those of the pieces."""
        assert self._whole is not None
        if self._worker.config.scale == "none":
            return Whole(self._whole)
        found = scaling(self._network.coupling, self._partition)
        return Whole(self._whole, found.evaluation, found.open)

    def _take(self, piece: Subnetwork) -> None:
        """Go on with a new piece; one of the same units keeps the optimizer's state where that is asked for."""
        before, self._piece = self._piece, piece
        if not self._worker.config.keeps_state:
            return
        after = new_optimizer(piece.module, self._worker.config)
        if before is not None and self._optimizer is not None and _same_units(before.held, piece.held):
            after.load_state_dict(self._optimizer.state_dict())
        self._optimizer = after


def _same_units(one: Units, other: Units) -> bool:
    return all(np.array_equal(units, other[name]) for name, units in one.items())
