"""The cut of a network's outputs: every worker trains a piece of its own to the end, and nothing travels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isthmus.errors import InvalidInput
from isthmus.nets.models.block_softmax import BlockSoftmax, ClassPiece
from isthmus.partitions import Indices
from isthmus.partitions.classes import ClassDeal
from isthmus.strategies import ClassCut, Strategy
from isthmus.trainer.strategies.apart import ApartPart, Pieces, Shape
from isthmus.trainer.strategies.interface import State, Worker
from isthmus.trainer.task.classes import deal_classes
from isthmus.trainer.task.fitting import class_axis

_PRIOR, _DRAWN = "prior", "drawn"  # of a piece, beside its parameters


class ClassCutPart(ApartPart):
    """One worker of a class cut."""

    _pieces: ClassPieces

    def __init__(self, strategy: Strategy, worker: Worker) -> None:
        super().__init__(strategy, worker)
        self._targets: Tensor | None = None

    def _lay_out(self, strategy: Strategy, worker: Worker) -> Pieces:
        assert isinstance(strategy, ClassCut)
        return ClassPieces(worker.network, strategy, worker.link.seats, worker.seed)

    @property
    def deal(self) -> ClassDeal:  # type: ignore[override]
        """Who owns which classes."""
        return self._pieces.deal

    @property
    def absent(self) -> tuple[int, ...]:  # type: ignore[override]
        """The classes that no worker has any more."""
        held = np.concatenate([self.deal.owned(seat) for seat in self._worker.link.present])
        return tuple(np.setdiff1d(np.arange(self.deal.classes), held).tolist())

    def targets(self, targets: Any) -> Any:
        """Return what is right for this worker's piece: the number of a unit; of several labels those it owns.

        Raises:
            InvalidInput: targets that do not go with the gate, or a number that is no class.
        """
        deal = self.deal
        if not isinstance(targets, Tensor):
            raise InvalidInput(f"strategy 'class-cut' needs class numbers as targets, got {type(targets).__name__}")
        if targets.is_floating_point() or targets.dtype == torch.bool:
            deal.gate.check_labels(True)
            return targets[..., torch.from_numpy(deal.owned(self._seat)).to(targets.device)]
        deal.gate.check_labels(False)
        if self._targets is None:
            self._targets = torch.from_numpy(deal.targets(self._seat)).to(self._worker.device)
        if targets.numel() and int(targets.max()) >= deal.classes:
            raise InvalidInput(f"a target is {int(targets.max())}, but the network has {deal.classes} classes")
        return torch.where(targets < 0, targets, self._targets[targets.clamp(min=0)])

    def route(self, state: State, prior: float, drawn: float) -> None:
        """Note what the piece is trained on.

        Args:
            state: of this worker.
            prior: P, the share of its own classes among all samples.
            drawn: q', that among the samples of its batches.
        """
        for name, value in ((_PRIOR, prior), (_DRAWN, drawn)):
            state.tensors[f"pieces.{self._seat}.{name}"].fill_(value)


@dataclass(frozen=True, eq=False)
class ClassPieces(Pieces):
    """The pieces of a class cut.

    Attributes:
        strategy: the cut.
        seats: number of workers at the start.
        seed: of the run.
    """

    strategy: ClassCut
    seats: int
    seed: int

    @cached_property
    def deal(self) -> ClassDeal:
        """Who owns which classes."""
        return deal_classes(self.strategy, self.network.coupling, self.seats, self.seed)

    def held(self, seat: int) -> dict[str, Indices]:
        """Return the worker's block of the hidden units, its own classes, and behind the last one its gate's units."""
        coupling, hidden = self.network.coupling, dict[str, Indices]()
        if coupling.cut_axes:
            hidden = coupling.partition(self.seats, self.seed, 0, self.strategy.dealt).of(seat)
        gate = self.deal.classes + np.arange(self.deal.units(seat))
        name = class_axis(coupling, self.strategy.name).name
        return {**hidden, name: np.concatenate([self.deal.owned(seat), gate])}

    def extras(self, seat: int) -> dict[str, Shape]:
        """Return P and q'."""
        return dict.fromkeys((_PRIOR, _DRAWN), ((), torch.float64))

    def merged(self, present: Sequence[int], device: torch.device) -> BlockSoftmax:
        """Return the network that some pieces make up, its values still to be filled in."""
        pieces = {}
        for seat in present:
            prior, drawn = (torch.ones((), dtype=torch.float64, device=device) for _ in range(2))
            owned = torch.from_numpy(self.deal.owned(seat)).to(device)
            pieces[seat] = ClassPiece(self.empty(seat, device), owned, prior, drawn)
        return BlockSoftmax(pieces, self.deal.classes, self.deal.gate.normalized)
