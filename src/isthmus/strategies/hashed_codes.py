"""Output codes: every worker learns some bits of a code of the classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from isthmus.errors import check_integer
from isthmus.partitions import Block, Law
from isthmus.strategies.base import Strategy
from isthmus.strategies.width import MEMORY, check_width


@dataclass(frozen=True)
class HashedCodes(Strategy):
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
    def dealt(self) -> Law:
        """How hidden units are dealt, once: ``block``, and where there is room some of those after."""
        return Block()

    @property
    def title(self) -> str:
        """The name and the bits."""
        return f"{self.name} ({self.bits} bits a worker)"

    @property
    def slug(self) -> str:
        """The same as part of a file's name."""
        return "-".join([self.name, f"b{self.bits}", *([] if isinstance(self.width, str) else [f"w{self.width:g}"])])

    def record(self) -> dict[str, Any]:
        """Return its fields; the law is not chosen."""
        return {name: value for name, value in super().record().items() if name not in self.dealt.record()}
