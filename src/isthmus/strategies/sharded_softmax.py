"""The exact softmax over workers that each score their own classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from isthmus.strategies.base import Strategy
from isthmus.strategies.width import MEMORY, OwnWidth, check_width


@dataclass(frozen=True)
class ShardedSoftmax(OwnWidth, Strategy):
    """Every worker holds a body of its own and the last layer's rows of its own classes; all score the same batch.

    In every step workers tell each other the logarithm of the sum of exp of their scores, a number a sample, so that
    each knows the softmax over all classes: the gradients are those of one wide network with nothing between the
    workers' blocks, exactly. It needs a round trip every step, and every worker all of the data.

    Attributes:
        width: share of the hidden units that a worker's body has, or ``memory``: as many as there is room for in the
            memory of ``narrow``.

    Raises:
        InvalidInput: a value out of range.
    """

    name: ClassVar[str] = "sharded-softmax"
    label: ClassVar[str] = "sharded softmax"
    color: ClassVar[str] = "#DDCC77"
    meaning: ClassVar[str] = (
        "every worker scores its own classes with a small network of its own, all on the same batch, and in every step "
        "they tell each other the sum of their scores: the exact softmax, and a round trip a step"
    )
    cuts: ClassVar[bool] = True
    restarts: ClassVar[bool] = False
    elastic: ClassVar[bool] = False
    by_class: ClassVar[bool] = True
    same_batches: ClassVar[bool] = True
    shortens: ClassVar[bool] = False
    lr: ClassVar[float] = 0.1

    width: float | str = MEMORY

    def __post_init__(self) -> None:
        check_width(self.width)
