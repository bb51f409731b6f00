"""Output codes: every worker learns some bits of a code of the classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from isthmus.errors import check_integer
from isthmus.strategies.base import Strategy
from isthmus.strategies.width import MEMORY, OwnWidth, check_width


@dataclass(frozen=True)
class HashedCodes(OwnWidth, Strategy):
    """Every worker trains a network of its own that foretells some bits of a sample's class.

    Each bit splits the classes in halves, drawn for it. Used, the score of a class is the sum over all bits of log
    p(its bit | x). Nothing travels.

    Attributes:
        bits: that each worker foretells, on one body, with one unit each.
        width: share of the hidden units that a worker's body has, or ``memory``: as many as there is room for in the
            memory of ``narrow``.

    Raises:
        InvalidInput: a value out of range.

    Reference:
        Dietterich, Bakiri, "Solving multiclass learning problems via error-correcting output codes" (JAIR 1995).
    """

    name: ClassVar[str] = "hashed-codes"
    label: ClassVar[str] = "output codes"
    color: ClassVar[str] = "#88CCEE"
    meaning: ClassVar[str] = (
        "every worker trains a small network of its own that foretells some bits of a code drawn for the classes; "
        "nothing travels"
    )
    cuts: ClassVar[bool] = True
    restarts: ClassVar[bool] = False
    by_class: ClassVar[bool] = True
    travels: ClassVar[bool] = False
    lr: ClassVar[float] = 0.1

    bits: int = 32
    width: float | str = MEMORY

    def __post_init__(self) -> None:
        check_integer("bits", self.bits, at_least=1)
        check_width(self.width)

    @property
    def title(self) -> str:
        """The name and the bits."""
        return f"{self.name} ({self.bits} bits a worker)"

    @property
    def marks(self) -> list[str]:
        """The bits."""
        return [f"b{self.bits}"]
