"""Local SGD on a network whose last layer is a product of two thin matrices."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from isthmus.errors import InvalidInput
from isthmus.nets import factored
from isthmus.nets.coupling import Coupling
from isthmus.nets.subnetwork import Source, build
from isthmus.partitions import Indices
from isthmus.randomness import generator
from isthmus.strategies import Factored, Strategy
from isthmus.trainer.strategies.interface import Merged, State, Worker
from isthmus.trainer.strategies.narrow import NarrowPart
from isthmus.trainer.task.fitting import Fitting, class_axis


class FactoredPart(NarrowPart):
    """One worker of it.

    The rows of the inner matrix begin as the first rows of the whole network's last layer; the outer one is drawn so
    that scores begin as large as the whole network's.
    """

    def __init__(self, strategy: Strategy, worker: Worker) -> None:
        super().__init__(strategy, worker)
        assert isinstance(strategy, Factored)
        self._chosen = strategy
        self._fitting = Fitting(self._coupling, worker.link.seats, worker.seed, strategy.name)
        axis = class_axis(self._coupling, strategy.name)
        self._classes = axis.size
        rows = [self._coupling.entries[member.name] for member in axis.members if member.dim == 0]
        self._dtype = next(entry.dtype for entry in rows if len(entry.shape) > 1)
        self._bias = any(len(entry.shape) == 1 and entry.is_parameter for entry in rows)
        if self.rank >= self._classes:
            raise InvalidInput(f"`rank` must be less than the number of classes, {self._classes}, got {self.rank}")

    @cached_property
    def rank(self) -> int:
        """The rank of the last layer."""
        chosen, fitting = self._chosen, self._fitting
        if not isinstance(chosen.rank, str):
            return chosen.rank
        if isinstance(chosen.width, str):
            return max(1, fitting.features // 2)
        return fitting.rows(fitting.body(chosen.width), self._outer)

    @cached_property
    def _held(self) -> dict[str, Indices]:
        width, fitting = self._chosen.width, self._fitting
        share = fitting.share(self.rank, self._outer(self.rank)) if isinstance(width, str) else width
        name = class_axis(self._coupling, self._chosen.name).name
        return {**fitting.body(share), name: np.arange(self.rank)}

    def _outer(self, rank: int) -> int:
        """Return how many parameters the outer matrix has."""
        return self._classes * (rank + self._bias)

    def _built(self, source: Source, coupling: Coupling) -> nn.Module:
        device = self._worker.device
        head = factored.thin(self.rank, self._classes, self._bias, self._dtype, device)
        return factored.Factored(build(source, coupling, self._held).module, head)

    def _narrow(self) -> nn.Module:
        made = super()._narrow()
        assert isinstance(made, factored.Factored)
        self._fill(made.head)
        return made

    def _fill(self, head: nn.Linear) -> None:
        drawn = generator(self._worker.seed, "init/factored").uniform(-1, 1, (self._classes, self.rank))
        values: Tensor = torch.from_numpy(drawn * math.sqrt(3 / self.rank))  # of variance 1 / rank
        with torch.no_grad():
            head.weight.copy_(values)
            if head.bias is not None:
                head.bias.zero_()

    def merged(self, state: State) -> Merged:
        """Return the averaged network, which every worker holds."""
        assert isinstance(self.module, factored.Factored)
        return Merged(self.module, metadata=self.module.metadata())
