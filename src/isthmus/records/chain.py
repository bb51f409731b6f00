"""A running checksum over JSON lines: each line vouches for itself and for all before it.

::

    {"round": 0, "loss": 2.3, "checksum": "5f0c..."}
    {"round": 1, "loss": 2.1, "checksum": "91aa..."}

The checksum of a line is the first 16 hexadecimal digits of SHA-256(checksum of the line before + the line without its
checksum, as written); before the first line stands one made of the run's own number and the file's name. So a line that
was changed, dropped, doubled or moved is found, and lines of another run too. It finds accidents and careless edits;
whoever wants to forge a record can compute the sums anew.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any

FIELD = "checksum"
_DIGITS = 16
_SEAL = re.compile(rb'(?:, )?"%b": "([0-9a-f]{%d})"\}$' % (FIELD.encode(), _DIGITS))


def begin(run: str, name: str) -> str:
    """Return what stands before the first line of a file of a run."""
    return _digest(f"{run} {name}".encode())


def sealed(before: str, text: str) -> tuple[str, str]:
    """Return a JSON object's text as a line with its checksum, and that.

    >>> sealed("", '{"round": 0}')
    ('{"round": 0, "checksum": "a032c79450d3bad8"}\\n', 'a032c79450d3bad8')
    """
    checksum = _digest(before.encode() + text.encode())
    comma = "" if text == "{}" else ", "
    return f'{text[:-1]}{comma}"{FIELD}": "{checksum}"}}\n', checksum


def checksum_of(line: bytes) -> str | None:
    """Return the checksum that a line, without its end, carries."""
    found = _SEAL.search(line)
    return None if found is None else found[1].decode()


@dataclass
class Lines:
    """What a file of JSON lines holds.

    Attributes:
        rows: one dictionary a line that could be read, without its checksum.
        ends: where in the file the line of each ends, in bytes, and the checksum it carries.
        faults: what is wrong with lines: (number of the line, in words).
        cut: whether a last line without an end was left out.
        checksum: that the last line carries.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    ends: list[tuple[int, str | None]] = field(default_factory=list)
    faults: list[tuple[int, str]] = field(default_factory=list)
    cut: bool = False
    checksum: str | None = None


def read_lines(data: bytes, before: str | None, checksums: bool = True) -> Lines:
    """Read JSON lines, and all that is wrong with them.

    After a line that does not fit, the next is held against the checksum which that one carries: so each fault is found
    where it is.

    Args:
        data: the file's.
        before: what stands before the first line; None if nobody knows, then the first line is believed.
        checksums: whether lines have them; files of earlier versions have none.
    """
    found, at = Lines(checksum=before), 0
    *lines, rest = data.split(b"\n")
    if rest and not checksums:  # no newline after it: cut short by a kill, or written by hand
        lines.append(rest)
    found.cut = bool(rest)
    for number, line in enumerate(lines, start=1):
        at = min(at + len(line) + 1, len(data))
        if not line and not checksums:
            continue
        wrong = _take(line, found, checksums)
        if wrong is None:
            found.ends.append((at, found.checksum))
        elif checksums or line is not rest:
            found.faults.append((number, wrong))
    if checksums and rest and not rest.startswith(b"{"):
        found.faults.append((len(lines) + 1, "is no beginning of a line either"))
    return found


def _take(line: bytes, found: Lines, checksums: bool) -> str | None:
    """Take up a line; return what is wrong with it."""
    seal = _SEAL.search(line) if checksums else None
    before = found.checksum
    found.checksum = before if seal is None else seal[1].decode()
    try:
        row = json.loads(line.decode())
    except UnicodeDecodeError as error:
        return f"is not text: {error}"
    except (ValueError, RecursionError) as error:
        return f"not JSON: {error}"
    if not isinstance(row, dict):
        return "must hold a JSON object"
    if checksums and seal is None:
        return "has no checksum: isthmus did not write it so"
    if seal is not None:
        del row[FIELD]
        if before is not None and _digest(before.encode() + line[: seal.start()] + b"}") != found.checksum:
            return "does not follow from the line before it: it was changed, or lines were lost, doubled or moved here"
    found.rows.append(row)
    return None


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:_DIGITS]
