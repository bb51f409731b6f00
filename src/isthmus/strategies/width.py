"""How wide the body of a worker's network is, in strategies that change its last layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from isthmus.errors import InvalidInput, check_integer, check_number
from isthmus.partitions import Block, Law

MEMORY = "memory"  # as wide as fits


class OwnWidth:
    """What strategies have in common whose bodies are as wide as their field ``width`` says."""

    name: ClassVar[str]
    width: float | str

    @property
    def dealt(self) -> Law:
        """The law that the bodies' units come from, once: ``block``, and where there is room some of those after."""
        return Block()

    @property
    def marks(self) -> Sequence[str]:
        """Parts of a file's name beside the strategy's name and the width."""
        return ()

    @property
    def slug(self) -> str:
        """The name and what was given, as part of a file's name."""
        return "-".join([self.name, *self.marks, *([] if isinstance(self.width, str) else [f"w{self.width:g}"])])


def check_width(width: float | str) -> None:
    """Refuse a width that is neither a share of the hidden units nor ``memory``.

    Raises:
        InvalidInput: it is.
    """
    if isinstance(width, str):
        if width != MEMORY:
            raise InvalidInput(f"`width` must be memory or a number above 0, at most 1, got {width!r}")
    else:
        check_number("width", width, above=0.0, at_most=1.0)


def check_count(name: str, count: int | str, at_least: int) -> None:
    """Refuse a count that is neither a number nor ``auto``.

    Raises:
        InvalidInput: it is.
    """
    if isinstance(count, str):
        if count != "auto":
            raise InvalidInput(f"`{name}` must be auto or a number, got {count!r}")
    else:
        check_integer(name, count, at_least=at_least)
