"""The rival of equal cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from isthmus.errors import InvalidInput
from isthmus.partitions import Block, Law, law_of
from isthmus.strategies.base import Strategy


@dataclass(frozen=True)
class Narrow(Strategy):
    """Local SGD on a dense network as wide as the piece that a worker of IST would hold.

    Attributes:
        law: of the IST it is the rival of: it says how wide (the widest piece of round 0).
        balanced: whether all classes that a worker has are as frequent in its batches, instead of as frequent as they
            are. What it learns is then right for classes that are equally frequent.

    Raises:
        InvalidInput: an unknown law, or capacities that are to be measured.
    """

    name: ClassVar[str] = "narrow"
    label: ClassVar[str] = "narrow net"
    color: ClassVar[str] = "#D55E00"
    meaning: ClassVar[str] = (
        "every worker trains the same small network, as wide as one piece of IST, and they average: "
        "the same cost per worker, so the rival IST has to beat; its network is also the cheaper one to use afterwards"
    )
    cuts: ClassVar[bool] = True

    law: Law | str = Block()
    balanced: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "law", law_of(self.law))
        if self.dealt.measures:
            raise InvalidInput("`capacities` auto has no effect with strategy 'narrow', whose network keeps its width")

    @property
    def dealt(self) -> Law:
        """The law of the IST it is the rival of."""
        assert isinstance(self.law, Law)
        return self.law

    @property
    def balances(self) -> bool:
        """As chosen."""
        return self.balanced

    @property
    def title(self) -> str:
        """The name, and whether classes are balanced."""
        return f"{self.name} (balanced classes)" if self.balanced else self.name

    @property
    def slug(self) -> str:
        """The same as part of a file's name."""
        return f"{self.name}-balanced" if self.balanced else self.name
