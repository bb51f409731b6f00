"""What must be alike on all workers, and the one line that says where it is not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

_SHOWN = 60  # characters of a value in a line
_BEFORE = 12  # of them before the first that differs


def difference(said: Mapping[int, Mapping[str, object]]) -> str | None:
    """Return the line that names what is not alike, the worker that is odd, and both values; None where all is.

    The odd one is the first that does not have what most have; of two values that as many have, the lowest worker's is
    the usual one.

    Args:
        said: by worker, what it has, by what messages call it; the first name that differs is told, and the names of
            up to three more.

    >>> difference({0: {"`lr`": "0.1"}, 1: {"`lr`": "0.1"}, 2: {"`lr`": "0.2"}})
    '`lr` must be the same on all workers: worker 2 has 0.2, worker 0 has 0.1'
    >>> difference({0: {"`lr`": "0.1"}, 1: {"`lr`": "0.2"}, 2: {"`lr`": "0.2"}})
    '`lr` must be the same on all workers: worker 0 has 0.1, worker 1 has 0.2'
    """
    names = list(dict.fromkeys(name for worker in sorted(said) for name in said[worker]))
    apart = [name for name in names if len({_text(said[worker].get(name)) for worker in said}) > 1]
    if not apart:
        return None
    values = {worker: _text(said[worker].get(apart[0])) for worker in sorted(said)}
    usual, _ = Counter(values.values()).most_common(1)[0]  # of equal counts the one that was met first
    odd = next(worker for worker, value in values.items() if value != usual)
    other = next(worker for worker, value in values.items() if value == usual)
    line = f"{apart[0]} must be the same on all workers: worker {odd} has {_excerpt(values[odd], usual)}, "
    line += f"worker {other} has {_excerpt(usual, values[odd])}"
    if len(apart) > 1:
        more = [*apart[1:4], *(["more"] if len(apart) > 4 else [])]
        line += f"; {' and '.join([', '.join(more[:-1]), more[-1]] if more[1:] else more)} "
        line += "differ too" if more[1:] else "differs too"
    return line


def _text(value: object) -> str:
    return "none" if value is None else str(value)


def _excerpt(value: str, other: str) -> str:
    """Return a value, or of a long one the part where it begins to differ from another."""
    if len(value) <= _SHOWN:
        return value
    alike = next((at for at, pair in enumerate(zip(value, other, strict=False)) if pair[0] != pair[1]), len(other))
    start = max(0, alike - _BEFORE)
    end = start + _SHOWN
    return ("..." if start else "") + value[start:end] + ("..." if end < len(value) else "")
