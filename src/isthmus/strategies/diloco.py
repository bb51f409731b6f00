"""DiLoCo: local training, and the mean change as a gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from isthmus.errors import check_integer, check_number
from isthmus.strategies.base import Strategy


@dataclass(frozen=True)
class DiLoCo(Strategy):
    """Every worker trains the dense network for some steps; the mean change is a gradient for an outer Nesterov step.

    Attributes:
        outer_lr, outer_momentum: of the outer step; 1 and 0 make it local SGD.
        fragments: parts that the parameters are dealt into, of about the same size: one of them is averaged after each
            round, in turn, so that a round moves so many times less (streaming). Each part is averaged every
            ``fragments`` rounds, and what workers have trained of the others stays with them until then.

    Raises:
        InvalidInput: a value out of range.

    Reference:
        Douillard et al., "DiLoCo: distributed low-communication training of language models" (2023); in parts:
        Douillard et al., "Streaming DiLoCo with overlapping communication" (2025), without its overlap.
    """

    name: ClassVar[str] = "diloco"
    label: ClassVar[str] = "DiLoCo"
    color: ClassVar[str] = "#AA4499"
    meaning: ClassVar[str] = (
        "every worker trains the whole network for some steps; the mean of what they changed is taken as one long step "
        "with momentum"
    )
    restarts: ClassVar[bool] = False
    lr: ClassVar[float] = 0.1

    outer_lr: float = 0.7
    outer_momentum: float = 0.9
    fragments: int = 1

    def __post_init__(self) -> None:
        check_number("outer_lr", self.outer_lr, above=0.0)
        check_number("outer_momentum", self.outer_momentum, at_least=0.0, below=1.0)
        check_integer("fragments", self.fragments, at_least=1)
