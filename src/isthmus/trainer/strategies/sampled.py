"""Local SGD on the narrow network, which is trained on a few classes at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from isthmus.errors import InvalidInput
from isthmus.nets.coupling import Coupling
from isthmus.nets.sampled import Sampled, chances_of
from isthmus.nets.subnetwork import Source
from isthmus.strategies import SampledSoftmax, Strategy
from isthmus.trainer.strategies.interface import Merged, State, Worker
from isthmus.trainer.strategies.narrow import NarrowPart
from isthmus.trainer.task.fitting import class_axis, class_numbers

_TENTH = 10


class SampledPart(NarrowPart):
    """One worker of it. What is merged is the narrow network itself."""

    def __init__(self, strategy: Strategy, worker: Worker) -> None:
        super().__init__(strategy, worker)
        assert isinstance(strategy, SampledSoftmax)
        axis = class_axis(self._coupling, strategy.name)
        members = [member for member in axis.members if member.dim == 0]
        if len(members) < len(axis.members):
            raise InvalidInput(f"strategy {strategy.name!r} needs a last layer whose rows are its classes alone")
        self._classes, self._rows = axis.size, [member.name for member in members]
        chosen = strategy.negatives
        count = max(1, self._classes // _TENTH) if isinstance(chosen, str) else chosen
        if count > self._classes:
            raise InvalidInput(f"`negatives` must be at most the number of classes, {self._classes}, got {count}")
        self._drawn, places = count, np.arange(1, self._classes + 1)
        self._chances = chances_of(1 / places if strategy.frequencies == "zipf" else np.ones(self._classes), count)

    def targets(self, targets: Any) -> Any:
        """Tell the module what is right, and return what is right of its next scores: the first.

        Raises:
            InvalidInput: targets that are no class numbers, or a number that is no class.
        """
        found = class_numbers(targets, self._classes, self._strategy.name)
        return self.module.tell(found) if isinstance(self.module, Sampled) else found

    def _built(self, source: Source, coupling: Coupling) -> nn.Module:
        body = super()._built(source, coupling)
        return Sampled(body, self._rows, torch.tensor(self._chances, device=self._worker.device), self._drawn)

    def merged(self, state: State) -> Merged:
        """Return the averaged narrow network, which every worker holds."""
        return Merged(self.module.body)  # type: ignore[arg-type]
