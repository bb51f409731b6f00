"""A file of JSON lines that grows while a run goes on, whatever the disk does.

What cannot be written waits in memory and is tried again with every line that comes after; a full disk or a folder that
is gone never stops the run. Several processes may append to one file: each looks first at what stands there last.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path
from typing import Any

from isthmus.errors import InvalidInput
from isthmus.records.chain import FIELD, checksum_of, sealed
from isthmus.records.plain import to_json

_log = logging.getLogger("isthmus")
_BLOCK = 1 << 16
_TRIES, _PAUSE = 50, 0.01  # while another process appends its line


class Journal:
    """Appends JSON objects to a file, a line each, with the running checksum.

    Attributes:
        path: of the file; it is made with the first line.
        begin: what stands before the first line (:func:`isthmus.records.chain.begin`).
        failure: why nothing can be written now; None while that goes well.
    """

    def __init__(self, path: Path, begin: str) -> None:
        self.path, self.begin = path, begin
        self.failure: str | None = None
        self._last: str | None = None  # checksum of the line that this process wrote last
        self._waiting: list[str] = []

    def append(self, row: Mapping[str, Any]) -> None:
        """Write one line, so that a killed run keeps it; while that cannot be, keep it in memory.

        Raises:
            InvalidInput: a row with an entry of the checksum's name.
            TypeError: a row that is not JSON data.
        """
        if FIELD in row:
            raise InvalidInput(f"a row must have no entry {FIELD!r}: each line has one, of the file itself")
        self._waiting.append(json.dumps(to_json(row), allow_nan=False))
        self.flush()

    def flush(self) -> None:
        """Try to write what waits; say once when that fails, and once when it works again."""
        waited = len(self._waiting)
        try:
            with self._opened() as place:
                while self._waiting:
                    self._write(place)
        except OSError as error:
            if self.failure is None:
                _log.warning(
                    "isthmus: %s cannot be written (%s): the run goes on, and what it says waits in memory",
                    self.path, error.strerror,
                )  # fmt: skip
            self.failure = error.strerror or str(error)
            return
        if self.failure is not None:
            _log.warning("isthmus: %s is written again, with the %d lines that waited", self.path, waited)
        self.failure = None

    def close(self, spare: Path | None) -> str | None:
        """Write what waits, in a spare folder if it must be; return what is missing in the file, in words.

        Args:
            spare: a folder for what cannot be written to the file; there it goes on where the file ends, so that the
                two one after the other are the whole.
        """
        if self._waiting:
            self.flush()
        if not self._waiting:
            return None
        lines, last = [], self._last or self.begin
        for text in self._waiting:
            line, last = sealed(last, text)
            lines.append(line)
        self._waiting.clear()
        missing = f"{self.path} lacks {len(lines)} lines, which could not be written ({self.failure})"
        return f"{missing}; {save_spare(spare, self.path.name, ''.join(lines))}"

    def rewind(self, end: int, last: str | None) -> None:
        """Cut the file after some of its lines.

        Args:
            end: where the last of them ends, in bytes.
            last: its checksum; None if none is left.

        Raises:
            OSError: the file cannot be written.
        """
        with self._opened() as place:
            os.ftruncate(place, end)
        self._last = last

    def _write(self, place: int) -> None:
        """Write the next line, whole or not at all."""
        size = os.fstat(place).st_size
        line, checksum = sealed(self._previous(place, size), self._waiting[0])
        data = line.encode()
        try:
            if os.write(place, data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        except OSError:
            os.ftruncate(place, size)
            raise
        self._last = checksum
        del self._waiting[0]

    def _previous(self, place: int, size: int) -> str:
        """Return the checksum of the file's last line."""
        if size == 0 and self._last is not None:  # its lines are missing, and must be seen to be
            _log.warning("isthmus: %s was removed while the run goes on: its lines so far are lost", self.path)
        if size == 0:
            return self._last or self.begin
        return checksum_of(_last_line(place, size)) or self._last or self.begin

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """Yield the file to append to, with no half line at its end, and nobody else at it."""
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        place = os.open(self.path, flags, 0o666)
        try:
            if not stat.S_ISREG(os.fstat(place).st_mode):
                raise OSError(errno.EINVAL, "it is not a file", str(self.path))
            _wait_for_lock(place)
            _drop_half_line(place)
            yield place
        finally:
            os.close(place)


def save_spare(folder: Path | None, name: str, text: str) -> str:
    """Write what could not be written elsewhere into a spare folder, under a free name; return where, in words."""
    if folder is None:
        return "they are lost (--spare FOLDER would have kept them)"
    try:
        path = spare_path(folder, name)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        return f"they are lost: {folder} cannot be written either ({error.strerror})"
    return f"they are in {path}"


def spare_path(folder: Path, name: str) -> Path:
    """Return a free name in a spare folder, which is made: that of the file, or with a number.

    Raises:
        OSError: the folder cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stem, dot, suffix = name.partition(".")
    names = chain([name], (f"{stem}-{number}{dot}{suffix}" for number in count(2)))
    return next(path for path in (folder / each for each in names) if not os.path.lexists(path))


def _wait_for_lock(place: int) -> None:
    for attempt in range(_TRIES):
        try:
            fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if attempt == _TRIES - 1:  # whoever has it may be frozen
                raise
            time.sleep(_PAUSE)
        except OSError:  # a file system without locks
            return


def _drop_half_line(place: int) -> None:
    """Cut what a process that was killed left of a line."""
    size = os.fstat(place).st_size
    if size and os.pread(place, 1, size - 1) != b"\n":
        os.ftruncate(place, size - len(_last_piece(place, size)))


def _last_line(place: int, size: int) -> bytes:
    """Return the last line, which is whole, without its end."""
    return _last_piece(place, size - 1)


def _last_piece(place: int, size: int) -> bytes:
    """Return what stands after the last newline of the first ``size`` bytes."""
    found = b""
    while size and b"\n" not in found:
        step = min(size, max(_BLOCK, len(found)))
        size -= step
        found = os.pread(place, step, size) + found
    return found.rpartition(b"\n")[2]
