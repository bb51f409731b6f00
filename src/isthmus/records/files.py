"""Files of folders that nobody vouches for: read without hanging or eating memory, hashed, written whole or not at all.

A run's folder may come from anybody. What stands in a file's place may be a FIFO, on which reading waits for ever, a
device, a link to somewhere else, or a file of any size.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

JSON_MOST = 64 << 20  # bytes of a file that holds one JSON object
LINES_MOST = 1 << 30  # bytes of a file that holds one a line
PARTIAL = ".partial"  # ends the name of what is not yet whole
_AT_ONCE = 1 << 20
BLANK = "0" * 64
_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFDIR: "a folder",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFLNK: "a symbolic link",
}


@contextmanager
def open_file(path: Path) -> Iterator[int]:
    """Yield a descriptor of a regular file to read; whatever else stands there is not even opened.

    Raises:
        OSError: it cannot be read, or is something else; ``strerror`` says what.
    """
    _check_regular(path, os.lstat(path).st_mode)
    place = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _check_regular(path, os.fstat(place).st_mode)
        yield place
    finally:
        os.close(place)


def read_file(path: Path, most: int) -> bytes:
    """Return what a file holds.

    Args:
        path: of a regular file; a link is none.
        most: bytes; a larger file is refused before it is read.

    Raises:
        OSError: it cannot be read, or is refused; ``strerror`` says why.
    """
    with open_file(path) as place:
        size = os.fstat(place).st_size
        if size > most:
            raise OSError(errno.EFBIG, f"{size:,} bytes are more than the {most:,} that it may have", str(path))
        with os.fdopen(os.dup(place), "rb") as file:
            return file.read(most)


def hash_file(path: Path) -> tuple[int, str]:
    """Return size in bytes and SHA-256 of a regular file.

    Raises:
        OSError: it cannot be read.
    """
    found, size = hashlib.sha256(), 0
    with open_file(path) as place:
        while block := os.read(place, _AT_ONCE):
            found.update(block)
            size += len(block)
    return size, found.hexdigest()


def write_aside(path: Path, text: str) -> Path:
    """Write what a file is to hold beside it; return where. Renamed, it is the file.

    Raises:
        OSError: it cannot be written.
    """
    partial = path.with_name(path.name + PARTIAL)
    partial.unlink(missing_ok=True)
    partial.write_text(text, encoding="utf-8")
    return partial


def stamped(text: str, mark: str = BLANK) -> str:
    """Return a text that vouches for itself: where the mark stands first, the SHA-256 of the text with zeros there."""
    blank = text.replace(mark, BLANK, 1)
    return blank.replace(BLANK, hashlib.sha256(blank.encode()).hexdigest(), 1)


def _check_regular(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "something")
        raise OSError(errno.EINVAL, f"it is {kind}, not a file", str(path))
