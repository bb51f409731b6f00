"""What a strategy must offer, and what it hands to the evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from torch import nn

from isthmus.nets.pattern import Pattern
from isthmus.trainer.exchange import Program


@dataclass(frozen=True, eq=False)
class Whole:
    """The whole network as the root holds it between rounds.

    Attributes:
        model: the network with its merged weights.
        scales: what the parameters named here are multiplied by for evaluation (empty where nothing was cut).
        open: those of them that no norm follows, where a common factor matters.
    """

    model: nn.Module
    scales: Mapping[str, Pattern] = field(default_factory=dict)
    open: tuple[str, ...] = ()


class Strategy(Protocol):
    """One worker's part in a strategy."""

    @property
    def trained(self) -> nn.Module:
        """The network this worker trains."""
        ...

    def start(self) -> Program[None]:
        """Do what has to be done before the first round."""
        ...

    def round(self, number: int, steps: range) -> Program[float]:
        """Do one round (0, 1, ...) of the given global steps; return the sum of this worker's losses."""
        ...

    def whole(self) -> Whole:
        """Return the whole network; only worker 0 is asked."""
        ...
