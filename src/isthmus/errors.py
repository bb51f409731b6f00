"""One root exception, few children, and the two checks every dataclass makes of its numbers.

Misuse is raised where the object is built, as one line that says the rule and the value:
"`workers` must be at least 1, got 0". Numerical outcomes (divergence, a theorem that does not
apply) are never exceptions: they are results.
"""

from __future__ import annotations

import difflib
import math
import re
import shlex
from collections.abc import Iterable
from importlib import metadata
from numbers import Integral, Real
from typing import TypeVar


class IsthmusError(Exception):
    """Root of everything isthmus raises on purpose; the command line prints its one line and exits with 2.

    Attributes:
        everywhere: whether all workers of a run raise it, with the same line, so that one of them is enough to say it.
    """

    everywhere = False


class InvalidInput(IsthmusError, ValueError):
    """A value breaks a stated rule."""


class DataError(InvalidInput):
    """A data file is missing, truncated or malformed; the message names the file and, where there is one, the line."""


class RecordError(IsthmusError):
    """A run's folder cannot be written or read."""


class WorkerError(IsthmusError, RuntimeError):
    """A worker process failed; the message names the worker."""


class MissingDependency(IsthmusError, ImportError):
    """An optional dependency is not installed; the message says how to install it."""


Raised = TypeVar("Raised", bound=IsthmusError)


def everywhere(error: Raised) -> Raised:
    """Return an error that all workers of a run raise, marked so."""
    error.everywhere = True
    return error


def missing_dependency(what: str, error: ImportError) -> ImportError:
    """Return what to raise where ``what`` met ``error``: the error that says how to install the package it misses.

    The requirements come from isthmus' own metadata, so the advice is true whether or not isthmus is on an index.
    """
    missing = (error.name or "isthmus").partition(".")[0]
    if missing == "isthmus":  # nothing to install: a mistake in isthmus itself
        return error
    packages = next((extra for extra in _extras() if missing in map(_package_name, extra)), [missing])
    return MissingDependency(f"{what} needs {missing}: pip install {shlex.join(packages)}")


def _extras() -> list[list[str]]:
    """The requirements of each extra, such as [["torch>=2.6", "safetensors>=0.4.5"], ...]."""
    try:
        requirements = metadata.requires("isthmus") or []
    except metadata.PackageNotFoundError:  # run from its source, not installed
        return []
    extras: dict[str, list[str]] = {}
    for package, _, condition in (requirement.partition(";") for requirement in requirements):
        if "extra ==" in condition:
            extras.setdefault(condition, []).append(package.strip())
    return list(extras.values())


def _package_name(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement)[0]


def check_integer(name: str, value: object, *, at_least: int | None = None, at_most: int | None = None) -> int:
    """Return ``value`` as an int within [at_least, at_most].

    Raises:
        InvalidInput: "`name` must be ..., got value".
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise InvalidInput(f"`{name}` must be an integer, got {value!r}")
    number = int(value)
    if at_least is not None and number < at_least:
        raise InvalidInput(f"`{name}` must be at least {at_least}, got {number}")
    if at_most is not None and number > at_most:
        raise InvalidInput(f"`{name}` must be at most {at_most}, got {number}")
    return number


def check_number(
    name: str,
    value: object,
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
) -> float:
    """Return ``value`` as a finite float within the given open (above, below) or closed (at_least, at_most) ends.

    Raises:
        InvalidInput: "`name` must be ..., got value".
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(float(value)):
        raise InvalidInput(f"`{name}` must be a finite number, got {value!r}")
    number = float(value)
    rules = (
        (above is not None and not number > above, f"greater than {above}"),
        (at_least is not None and not number >= at_least, f"at least {at_least}"),
        (below is not None and not number < below, f"less than {below}"),
        (at_most is not None and not number <= at_most, f"at most {at_most}"),
    )
    for broken, rule in rules:
        if broken:
            raise InvalidInput(f"`{name}` must be {rule}, got {value!r}")
    return number


def check_choice(name: str, value: str, choices: Iterable[str]) -> str:
    """Return ``value`` if it is one of ``choices``; otherwise name them and suggest the nearest.

    Raises:
        InvalidInput: "`name` must be one of ..., got 'value'; did you mean 'nearest'?".
    """
    known = list(choices)
    if value in known:
        return value
    near = difflib.get_close_matches(str(value), known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise InvalidInput(f"`{name}` must be one of {', '.join(known)}, got {value!r}{hint}")
