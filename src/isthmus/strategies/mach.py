"""MACH: every worker hashes the classes into buckets in its own way, and learns which bucket a sample is of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from isthmus.errors import check_integer
from isthmus.strategies.base import Strategy
from isthmus.strategies.width import MEMORY, OwnWidth, check_count, check_width


@dataclass(frozen=True)
class Mach(OwnWidth, Strategy):
    """Every worker trains a network of its own that tells buckets of classes, hashed anew for each table.

    Used, the score of a class is the sum over all tables of log p(its bucket | x). Nothing travels.

    Attributes:
        buckets: B, of a table; or ``auto``: with a ``width`` that is given as many as there is room for in the
            memory of ``narrow``, else a quarter of the classes (a start, nothing better: try some).
        tables: that each worker learns, on one body.
        width: share of the hidden units that a worker's body has, or ``memory``: as many as there is room for.

    Raises:
        InvalidInput: a value out of range.

    Reference:
        Medini, Huang, Wang, Mohan, Shrivastava, "Extreme classification in log memory using count-min sketch" (NeurIPS
        2019).
    """

    name: ClassVar[str] = "mach"
    label: ClassVar[str] = "MACH"
    color: ClassVar[str] = "#332288"
    meaning: ClassVar[str] = (
        "every worker trains a small network of its own that tells in which of a few buckets, drawn for it, a sample's "
        "class is; nothing travels"
    )
    cuts: ClassVar[bool] = True
    restarts: ClassVar[bool] = False
    by_class: ClassVar[bool] = True
    travels: ClassVar[bool] = False
    lr: ClassVar[float] = 0.1

    buckets: int | str = "auto"
    tables: int = 1
    width: float | str = MEMORY

    def __post_init__(self) -> None:
        check_count("buckets", self.buckets, 2)
        check_integer("tables", self.tables, at_least=1)
        check_width(self.width)

    @property
    def title(self) -> str:
        """The name, buckets and tables."""
        return f"{self.name} ({self.buckets} buckets{f', {self.tables} tables' if self.tables > 1 else ''})"

    @property
    def marks(self) -> list[str]:
        """Buckets and tables, where they are not the usual."""
        parts = [] if isinstance(self.buckets, str) else [f"b{self.buckets}"]
        return parts + [f"t{self.tables}"] * (self.tables > 1)
