"""A line: what joins one worker's host to the others, as a rate and a delay; and sizes, rates and times as people
write them."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from isthmus.errors import InvalidInput, check_number

BITS = 8 * 1514 / 1448  # on the line for a byte of payload: to every 1448 of them come 66 of headers
DELAYS = 2  # one-way delays that a hop costs: gloo asks the receiver before it sends (benchmarks/slow_links.py)
VARIABLE = "ISTHMUS_LINE"  # of the environment: the line that a command is run over, where that is known

_RATES = {"bit": 1.0, "kbit": 1e3, "mbit": 1e6, "gbit": 1e9, "tbit": 1e12}
_TIMES = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_SIZES = {
    "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip


@dataclass(frozen=True)
class Line:
    """What joins every worker's host to the others.

    Attributes:
        down, up: bits a second that a host can receive and send; infinite where only the delay counts.
        latency: seconds from one host to another, one way.

    Raises:
        InvalidInput: a rate that is not positive, or a negative delay.
    """

    down: float = math.inf
    up: float = math.inf
    latency: float = 0.0

    def __post_init__(self) -> None:
        for name in ("down", "up"):
            if getattr(self, name) != math.inf:
                check_number(name, getattr(self, name), above=0.0)
        check_number("latency", self.latency, at_least=0.0)

    @classmethod
    def of(cls, rate: str | None = None, latency: str | None = None, up: str | None = None) -> Line:
        """Return the line of a rate both ways, or down and up, and a delay, as people write them.

        Args:
            rate: as ``100mbit``.
            latency: one way, as ``10ms``.
            up: the rate from a host to the others, where it is another one.

        Raises:
            InvalidInput: one that cannot be read, or ``up`` without ``rate``.

        >>> Line.of("100mbit", "10ms")
        Line(down=100000000.0, up=100000000.0, latency=0.01)
        """
        if rate is None and up is not None:
            raise InvalidInput("`up` has no effect without `rate`: it is the other way's")
        down = math.inf if rate is None else parse_rate("rate", rate)
        other = down if up is None else parse_rate("up", up)
        return cls(down, other, 0.0 if latency is None else parse_time("latency", latency))

    def seconds(self, sent: float, received: float, hops: float) -> float:
        """Return how long a worker is on the way: both directions at once, and a delay for every hop.

        Formula: max(b sent / up, b received / down) + 2 hops latency, where b is 8 bits and TCP's headers' share.

        Args:
            sent, received: bytes of payload.
            hops: how often in a row something has to arrive before the next can be sent.
        """
        return max(BITS * sent / self.up, BITS * received / self.down) + DELAYS * hops * self.latency

    @property
    def shown(self) -> str:
        """In words, as ``100 Mbit/s, 10 ms``."""
        rates = [shown_rate(self.down)]
        if self.up != self.down:
            rates.append(f"up {shown_rate(self.up)}")
        return ", ".join([*rates, f"{1000 * self.latency:g} ms"] if self.latency else rates)

    def record(self) -> dict[str, float | None]:
        """Return it as plain data; a rate without a limit is None."""
        return {name: None if value == math.inf else value for name, value in asdict(self).items()}

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> Line:
        """Return the line that :meth:`record` was made of.

        Raises:
            InvalidInput: something else.
        """
        try:
            return cls(**{name: math.inf if value is None else value for name, value in record.items()})
        except TypeError:
            raise InvalidInput(f"no line: {dict(record)!r}") from None


def line_here() -> Line | None:
    """Return the line that this command is run over, as whoever started it says; None where nobody does."""
    said = os.environ.get(VARIABLE)
    try:
        return None if said is None else Line.read(json.loads(said))
    except (ValueError, AttributeError, InvalidInput) as error:
        raise InvalidInput(f"the variable {VARIABLE} holds no line: {said!r}") from error


def parse_rate(name: str, text: str) -> float:
    """Return bits a second.

    Raises:
        InvalidInput: it cannot be read, or is 0.

    >>> parse_rate("rate", "1.5gbit")
    1500000000.0
    """
    return _read(name, text, _RATES, "bits a second, as 100mbit")


def parse_time(name: str, text: str) -> float:
    """Return seconds.

    Raises:
        InvalidInput: it cannot be read.

    >>> parse_time("latency", "10ms")
    0.01
    """
    return _read(name, text, _TIMES, "a time, as 10ms", least=0.0)


def parse_size(name: str, text: str) -> int:
    """Return bytes.

    Raises:
        InvalidInput: it cannot be read, or is 0.

    >>> parse_size("memory", "2GB"), parse_size("memory", "1.5 GiB")
    (2000000000, 1610612736)
    """
    return round(_read(name, text, _SIZES, "a size, as 2GB or 512MiB"))


def shown_rate(rate: float) -> str:
    """Return a rate in words.

    >>> shown_rate(1e8), shown_rate(2.5e9)
    ('100 Mbit/s', '2.5 Gbit/s')
    """
    if rate == math.inf:
        return "no limit"
    unit, factor = next(((u, f) for u, f in (("G", 1e9), ("M", 1e6), ("k", 1e3)) if rate >= f), ("", 1.0))
    return f"{rate / factor:g} {unit}bit/s"


def _read(name: str, text: str, units: Mapping[str, float], what: str, least: float | None = None) -> float:
    found = re.fullmatch(r"\s*([0-9]+\.?[0-9]*|\.[0-9]+)(?:e([+-]?[0-9]+))?\s*([a-z]+)\s*", str(text).lower())
    if found is None or found[3] not in units:
        raise InvalidInput(f"`{name}` must be {what}, got {text!r}")
    value = float(f"{found[1]}e{found[2] or 0}") * units[found[3]]
    if not (value > 0 or value == least) or math.isinf(value):
        raise InvalidInput(f"`{name}` must be more than 0, got {text!r}")
    return value
