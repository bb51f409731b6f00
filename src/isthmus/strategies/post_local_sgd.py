"""torch's post-local SGD."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from isthmus.errors import check_integer
from isthmus.strategies.base import Strategy


@dataclass(frozen=True)
class PostLocalSGD(Strategy):
    """torch's data parallel for some steps, then local SGD; torch does the averaging of both.

    Attributes:
        start: steps after which workers go on alone, and average weights after each round instead of gradients.

    Raises:
        InvalidInput: a negative start.

    Reference:
        Lin, Stich, Patel, Jaggi, "Don't use large mini-batches, use local SGD" (ICLR 2020).
    """

    name: ClassVar[str] = "post-local-sgd"
    label: ClassVar[str] = "torch post-local SGD"
    color: ClassVar[str] = "#F0E442"
    meaning: ClassVar[str] = (
        "torch's own local SGD: gradients are averaged at every step at first, later weights after some steps alone"
    )
    restarts: ClassVar[bool] = False
    elastic: ClassVar[bool] = False
    processes: ClassVar[bool] = True
    lr: ClassVar[float] = 0.1

    start: int = 0

    def __post_init__(self) -> None:
        check_integer("start", self.start, at_least=0)
