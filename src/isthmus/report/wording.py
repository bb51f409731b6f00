"""Numbers in words a reader knows: percent, kB to TB, powers of ten; and labels that say only what differs."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from isthmus.report.plots import number

MISSING = "–"
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def plain(value: Any) -> str:
    """Return any JSON value as short text; numbers with four significant digits.

    >>> plain(0.00001234), plain(1234567), plain(None), plain(True), plain(0.25)
    ('1.234 × 10⁻⁵', '1,234,567', '–', 'yes', '0.25')
    """
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) < 10**15 else f"{value:.3e}" if abs(value) < 10**300 else "over 10³⁰⁰"
    if isinstance(value, float):
        return _decimal(value)
    return value if isinstance(value, str) else json.dumps(value)


def percent(share: float | None, digits: int = 1) -> str:
    """Return a share as percent.

    >>> percent(0.8612), percent(None), percent(0.0000123), percent(1e13)
    ('86.1 %', '–', '0.00123 %', '1 × 10¹³ times')
    """
    if share is None:
        return MISSING
    if abs(share) >= 100:
        return f"{_decimal(share, 3)} times"
    if 0 < abs(100 * share) < 10**-digits:
        return f"{_decimal(100 * share, 3)} %"
    return f"{100 * share:.{digits}f} %"


def scaled(value: float | None, unit: str) -> str:
    """Return a quantity with a decimal prefix.

    >>> scaled(4.709e9, "B"), scaled(812, "B"), scaled(3.01e11, "FLOP")
    ('4.71 GB', '812 B', '301 GFLOP')
    """
    if value is None:
        return MISSING
    size, prefix = prefix_for(value)
    shown = f"{value / size:.3g}" if abs(value / size) < 1000 else f"{value / size:,.0f}"
    return f"{shown} {prefix}{unit}"


def prefix_for(largest: float) -> tuple[float, str]:
    """Return the decimal prefix for numbers up to ``largest`` as (factor, letter)."""
    return next(((size, letter) for size, letter in _PREFIXES if abs(largest) >= size), (1.0, ""))


def seconds(value: float | None) -> str:
    """Return a duration.

    >>> seconds(0.0123), seconds(75.2), seconds(None)
    ('0.0123 s', '75 s', '–')
    """
    if value is None:
        return MISSING
    return f"{value:.3g} s" if value < 10 else f"{value:,.0f} s"


def times(larger: float, smaller: float) -> str:
    """Return how many times one number is the other.

    >>> times(4709, 83)
    '57 ×'
    """
    ratio = larger / smaller
    return f"{ratio:.2g} ×" if ratio < 10 else f"{ratio:,.0f} ×"


def spread(values: Sequence[float | None], show: Any) -> str:
    """Return the mean of the numbers, with the sample standard deviation where there are several.

    Args:
        values: one a seed, None where unknown.
        show: number -> text.
    """
    known = [value for value in values if value is not None]
    middle = mean(known)
    if len(known) < 2 or middle is None:
        return str(show(middle))
    deviation = math.sqrt(sum((value - middle) ** 2 for value in known) / (len(known) - 1))
    return f"{show(middle)} ± {str(show(deviation)).removesuffix(' %')}" if deviation else str(show(middle))


def mean(values: Sequence[float | None]) -> float | None:
    """Return the mean of the numbers among ``values``, None if there is none."""
    known = [value for value in values if value is not None]
    try:
        return math.fsum(known) / len(known) if known else None
    except OverflowError:  # of the sum, not of the mean
        return math.fsum(value / len(known) for value in known)


def worst(value: Any) -> float | None:
    """Return the largest of a list with one number a worker, or the number itself.

    >>> worst([1, 3, None]), worst(2), worst(None)
    (3.0, 2.0, None)
    """
    known = [item for item in map(number, value if isinstance(value, list) else [value]) if item is not None]
    return max(known, default=None)


def label_lines(label: str, width: int = 24) -> list[str]:
    """Return a label in short lines, broken before brackets first.

    >>> label_lines("IST, fixed pieces (core 0.25) [unfinished]")
    ['IST, fixed pieces', '(core 0.25) [unfinished]']
    """
    if len(label) <= width:
        return [label or MISSING]
    head, bracket, tail = label.partition(" (") if " (" in label else label.partition(" [")
    return textwrap.wrap(head, width) + textwrap.wrap(bracket.strip() + tail, width)


def distinct_labels(bases: Sequence[str], configs: Sequence[Mapping[str, Any]], ignored: frozenset[str]) -> list[str]:
    """Return a label for each configuration: its base name, and what differs from others of the same base.

    >>> distinct_labels(["IST", "IST", "narrow"], [{"lr": 1}, {"lr": 2}, {"lr": 3}], frozenset())
    ['IST (lr 1)', 'IST (lr 2)', 'narrow']
    """
    labels = []
    for base, config in zip(bases, configs, strict=True):
        alike = [other for name, other in zip(bases, configs, strict=True) if name == base]
        keys = [key for key in config if key not in ignored and any(other.get(key) != config[key] for other in alike)]
        parts = [f"{key.replace('_', ' ')} {plain(config[key])}" for key in keys]
        labels.append(f"{base} ({', '.join(parts)})" if parts else base)
    return labels


def _decimal(value: float, digits: int = 4) -> str:
    if not math.isfinite(value):
        return MISSING
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        rounded = float(f"{value:.{digits}g}")
        return f"{rounded:,.0f}" if abs(rounded) >= 1e4 else f"{rounded:g}"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return f"{mantissa} × 10{str(int(exponent)).translate(_SUPERSCRIPT)}"
