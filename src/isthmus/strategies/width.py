"""How wide the body of a worker's network is, in strategies that change its last layer."""

from __future__ import annotations

from isthmus.errors import InvalidInput, check_integer, check_number

MEMORY = "memory"  # as wide as fits


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
