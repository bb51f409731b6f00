"""The dense rival with a last layer of low rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from isthmus.strategies.base import Strategy
from isthmus.strategies.width import MEMORY, OwnWidth, check_count, check_width


@dataclass(frozen=True)
class Factored(OwnWidth, Strategy):
    """Local SGD on a network whose last layer is a product, [classes, r] times [r, hidden units].

    In the memory of ``narrow`` there is room for a wider body then.

    Attributes:
        rank: r; or ``auto``: with a ``width`` that is given as large as there is room for in the memory of ``narrow``,
            else half of the columns of narrow's last layer (a start, nothing better: try some).
        width: share of the hidden units that the body has, or ``memory``: as many as there is room for.

    Raises:
        InvalidInput: a value out of range.
    """

    name: ClassVar[str] = "factored"
    label: ClassVar[str] = "factored head"
    color: ClassVar[str] = "#882255"
    meaning: ClassVar[str] = (
        "every worker trains the same network, whose last layer is a product of two thin matrices, and they average: "
        "in the memory of the narrow net its body is wider, but its scores have a low rank"
    )
    cuts: ClassVar[bool] = True
    by_class: ClassVar[bool] = True

    rank: int | str = "auto"
    width: float | str = MEMORY

    def __post_init__(self) -> None:
        check_count("rank", self.rank, 1)
        check_width(self.width)

    @property
    def title(self) -> str:
        """The name and the rank."""
        return f"{self.name} (rank {self.rank})"

    @property
    def marks(self) -> list[str]:
        """The rank, where it is given."""
        return [] if isinstance(self.rank, str) else [f"r{self.rank}"]
