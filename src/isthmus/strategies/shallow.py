"""The rival of equal cost in depth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from isthmus.strategies.narrow import Narrow


@dataclass(frozen=True)
class Shallow(Narrow):
    """Local SGD on a network with as many residual blocks as the piece that a worker of IST, cut in depth, would hold.

    Attributes:
        law: of the IST it is the rival of: it says how deep (the deepest piece of round 0).
        balanced: as of ``narrow``.

    Raises:
        InvalidInput: an unknown law, or capacities that are to be measured.
    """

    name: ClassVar[str] = "shallow"
    label: ClassVar[str] = "shallow net"
    color: ClassVar[str] = "#999933"
    meaning: ClassVar[str] = (
        "every worker trains the same network of full width with fewer residual blocks, as many as one piece of IST "
        "that is cut in depth, and they average: the other rival of equal cost"
    )
    axes: ClassVar[tuple[str, ...] | None] = ("block",)
