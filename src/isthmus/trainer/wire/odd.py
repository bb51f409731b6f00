"""Of workers that ought to be alike, the one that is not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping


def odd_one(values: Mapping[int, Hashable]) -> tuple[int, int]:
    """Return the first worker whose value is not that of the most, and the first whose value is.

    Of two values that as many workers have, that of the lowest worker is the usual one.

    >>> odd_one({0: "b", 1: "a", 2: "a", 3: "a"}), odd_one({0: 0.1, 1: 0.1, 2: 0.2, 3: 0.2})
    ((0, 1), (2, 0))
    """
    counts = Counter(values[worker] for worker in sorted(values))
    usual, _ = counts.most_common(1)[0]  # of equal counts the first that was met
    other = min(worker for worker, value in values.items() if value != usual)
    return other, min(worker for worker, value in values.items() if value == usual)
