"""What a network is trained and tested by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from isthmus.errors import check_choice, check_integer

SCALES = ("expected", "none", "readout")


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Loss and metric, and when to test.

    Attributes:
        every: rounds between evaluations; by default about 20 in a run.
        readout: whether to multiply the evaluation scale by the best factor on training data held out.
        loss: MODULE:FACTORY, a function that returns loss(output, targets) -> mean over the batch; or, from Python,
            such a loss. By default cross-entropy, or the loss that the network returns itself.
        metric: MODULE:FACTORY, a function that returns metric(outputs, targets) -> number, larger is better, of the
            whole test part; or, from Python, such a metric. By default the accuracy.

    Raises:
        InvalidInput: a value that breaks its rule.
    """

    every: int | None = None
    readout: bool = False
    loss: Any = None
    metric: Any = None

    def __post_init__(self) -> None:
        if self.every is not None:
            check_integer("eval_every", self.every, at_least=1)


def check_scale(scale: str) -> str:
    """Return the name of an evaluation scale.

    Raises:
        InvalidInput: an unknown one.
    """
    return check_choice("scale", scale, SCALES)
