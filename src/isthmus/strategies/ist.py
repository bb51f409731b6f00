"""Independent Subnetwork Training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from isthmus.errors import check_choice
from isthmus.partitions import Law, law_of
from isthmus.strategies.base import Strategy

SCALES = ("expected", "none")


@dataclass(frozen=True)
class IST(Strategy):
    """Cut the network into a piece a worker, train the pieces alone, merge.

    Attributes:
        law: how units are dealt to workers, an object of ``isthmus.partitions`` or its name.
        scale: of the merged network's weights with cut inputs, when it is used: ``expected`` (the probability that a
            unit is held) or ``none``.

    Raises:
        InvalidInput: an unknown law or scale.

    Reference:
        Yuan, Wolfe, Dun, Tang, Kyrillidis, Jermaine, "Distributed learning of fully connected neural networks using
        independent subnet training" (PVLDB 2022).
    """

    name: ClassVar[str] = "ist"
    label: ClassVar[str] = "IST"
    color: ClassVar[str] = "#0072B2"
    meaning: ClassVar[str] = "each worker trains only its own piece of the network; the pieces are then joined"
    rival: ClassVar[bool] = False
    cuts: ClassVar[bool] = True
    sends_pieces: ClassVar[bool] = True

    law: Law | str | Mapping[str, Law | str] = "auto"
    scale: str = "expected"

    def __post_init__(self) -> None:
        object.__setattr__(self, "law", law_of(self.law))
        check_choice("scale", self.scale, SCALES)

    @property
    def dealt(self) -> Law:
        """How units are dealt to workers."""
        assert isinstance(self.law, Law)
        return self.law

    @property
    def scales(self) -> bool:
        """Whether a scale was asked for."""
        return self.scale != "none"

    @property
    def title(self) -> str:
        """The name and the law."""
        return f"{self.name} ({self.dealt.label})"

    @property
    def slug(self) -> str:
        """The name, the law's, and its core."""
        record = self.dealt.record()
        core = f"-core{record['core']:g}" if record.get("core") else ""
        return f"{self.name}-{self.dealt.name.rpartition(':')[2]}{core}"
