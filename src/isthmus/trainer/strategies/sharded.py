"""The exact softmax over workers that each score their own classes: a round trip in every step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from isthmus.errors import WorkerError
from isthmus.nets.models.block_softmax import BlockSoftmax, ClassPiece
from isthmus.nets.models.sharded import Sharded
from isthmus.partitions import Indices
from isthmus.partitions.classes import ClassDeal, NoGate
from isthmus.partitions.groups import random_groups
from isthmus.strategies import ShardedSoftmax, Strategy
from isthmus.trainer.strategies.apart import ApartPart, Pieces
from isthmus.trainer.strategies.interface import State, Worker
from isthmus.trainer.task.fitting import Fitting, class_axis, class_numbers
from isthmus.trainer.wire.exchange import Driving, Program, all_gather
from isthmus.trainer.wire.meter import Traffic


class ShardedPart(ApartPart):
    """One worker of it. As all share one softmax, none has a block of its own that could be refused."""

    _pieces: ShardedPieces
    each_pass = True

    def __init__(self, strategy: Strategy, worker: Worker) -> None:
        super().__init__(strategy, worker)
        deal, own = self._pieces.deal, self._pieces.deal.owned(self._seat)
        targets = torch.from_numpy(deal.targets(self._seat))
        self._targets = torch.where(targets < 0, len(own), targets).to(worker.device)
        self._told = torch.zeros(0)
        self._heard: list[Tensor] = []

    def _lay_out(self, strategy: Strategy, worker: Worker) -> Pieces:
        assert isinstance(strategy, ShardedSoftmax)
        coupling, seats = worker.network.coupling, worker.link.seats
        return ShardedPieces(worker.network, Fitting(coupling, seats, worker.seed, strategy.name), strategy.width)

    @property
    def taken(self) -> int:  # type: ignore[override]
        """A number that stands for the batch of the last call."""
        assert isinstance(self.module, Sharded)
        return self.module.taken

    def beside(self) -> Sequence[Tensor]:
        """Return which unit stands for each class."""
        return (self._targets,)

    def targets(self, targets: Any) -> Any:
        """Return the units that stand for classes: of those of others the last; negative numbers stay.

        Raises:
            InvalidInput: targets that are no class numbers, or a number that is no class.
        """
        found = class_numbers(targets, self._pieces.deal.classes, self._pieces.fitting.strategy)
        return torch.where(found < 0, found, self._targets[found.clamp(min=0)])

    def block(self) -> dict[str, Tensor]:
        """Return nothing."""
        return {}

    def attach(self, meet: Callable[[], Driving[None]]) -> None:
        """Have the module meet the others in every pass in training."""

        def together(own: Tensor) -> Tensor:
            self._told = own.reshape(-1)
            meet().finish()
            here = self._worker.link.index
            others = [each for worker, each in enumerate(self._heard) if worker != here]
            if not others:
                return torch.full_like(own, -torch.inf)
            return torch.stack(others).logsumexp(0).reshape(own.shape)

        assert isinstance(self.module, Sharded)
        self.module.meet = together

    def average(self, state: State, module: nn.Module, active: Callable[[], Program[Sequence[int]]]) -> Program[None]:
        """Tell all others the log-sum-exps of this worker's scores, and hear theirs.

        Raises:
            WorkerError: the loop of a worker has ended before the others'.
        """
        link = self._worker.link
        stepping = yield from active()
        if len(stepping) < link.workers:
            gone = min(set(range(link.workers)) - set(stepping))
            raise WorkerError(
                f"worker {gone} has made fewer steps than the others: under strategy 'sharded-softmax' all must make "
                "the same steps, on the same batches"
            )
        self._heard = yield from all_gather(self._told, link)

    def step_traffic(self, module: nn.Module) -> Traffic:
        """Return that of telling all others a number a target, after a meeting."""
        assert isinstance(module, Sharded)
        others = self._worker.link.workers - 1
        weight = next(module.parameters())
        size = others * module.scored * weight.element_size()
        return Traffic(size, size, 2) if others else Traffic()

    def _body(self, module: nn.Module) -> nn.Module:
        assert isinstance(module, Sharded)
        return module.body


@dataclass(frozen=True, eq=False)
class ShardedPieces(Pieces):
    """The pieces that score own classes.

    Attributes:
        fitting: of bodies.
        width: of them.
    """

    fitting: Fitting
    width: float | str

    @cached_property
    def deal(self) -> ClassDeal:
        """Who owns which classes."""
        fitting = self.fitting
        group = random_groups(fitting.classes, fitting.workers, fitting.seed)
        return ClassDeal(group, fitting.workers, NoGate(), 1, fitting.seed)

    @cached_property
    def _share(self) -> float:
        most = -(-self.deal.classes // self.fitting.workers)
        return self.fitting.share(most) if isinstance(self.width, str) else self.width

    def held(self, seat: int) -> dict[str, Indices]:
        """Return the body's units, and the worker's own classes."""
        name = class_axis(self.network.coupling, self.fitting.strategy).name
        return {**self.fitting.body(self._share, seat), name: self.deal.owned(seat)}

    def headed(self, body: nn.Module) -> nn.Module:
        """Return the body, and what it is told."""
        return Sharded(body)

    def merged(self, present: Sequence[int], device: torch.device) -> BlockSoftmax:
        """Return the network that all pieces make up, its values still to be filled in: it returns scores."""
        one = torch.ones((), dtype=torch.float64, device=device)
        pieces = {}
        for seat in present:
            owned = torch.from_numpy(self.deal.owned(seat)).to(device)
            pieces[seat] = ClassPiece(self.empty(seat, device), owned, one.clone(), one.clone())
        return BlockSoftmax(pieces, self.deal.classes, normalized=False)
