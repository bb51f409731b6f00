"""Data-parallel training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from isthmus.strategies.base import Strategy


@dataclass(frozen=True)
class DataParallel(Strategy):
    """Every worker holds the dense network; gradients are averaged in every backward pass, while it goes on."""

    name: ClassVar[str] = "data-parallel"
    label: ClassVar[str] = "data parallel"
    color: ClassVar[str] = "#009E73"
    meaning: ClassVar[str] = (
        "every worker holds the whole network and gradients are averaged at every step: the usual way, dear in bytes"
    )
    overlaps: ClassVar[bool] = True
    restarts: ClassVar[bool] = False
    elastic: ClassVar[bool] = False
    lr: ClassVar[float] = 0.1
