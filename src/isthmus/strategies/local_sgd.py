"""Local SGD."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from isthmus.strategies.base import Strategy


@dataclass(frozen=True)
class LocalSGD(Strategy):
    """Every worker trains the dense network; after each round the weights are averaged.

    Reference:
        Stich, "Local SGD converges fast and communicates little" (ICLR 2019).
    """

    name: ClassVar[str] = "local-sgd"
    label: ClassVar[str] = "local SGD"
    color: ClassVar[str] = "#E69F00"
    meaning: ClassVar[str] = "every worker trains the whole network for some steps, then they average"
