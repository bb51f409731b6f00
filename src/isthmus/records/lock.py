"""Who writes a folder: one process at a time, told by a lock that ends with it, however it ends."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
import time
import weakref
from contextlib import suppress
from pathlib import Path

from isthmus.errors import RecordError
from isthmus.records.files import read_file

NAME = "lock"
_TRIES, _PAUSE = 4, 0.01  # another process may look for a moment whether the lock is free
_TAKEN = (errno.EWOULDBLOCK, errno.EACCES)
_log = logging.getLogger("isthmus")


class Lock:
    """An exclusive lock on a folder, held until :meth:`release` or the end of this process.

    It is the kernel's (``flock`` on the file ``lock``), not the file itself: the file that a killed process leaves
    locks nothing. Processes that are forked from this one do not hold it.
    """

    def __init__(self, folder: Path) -> None:
        """Take it.

        Raises:
            RecordError: another process has it, or another writer of this one.
            OSError: the folder cannot be written.
        """
        self._path = folder / NAME
        place = self._take(folder)
        with suppress(OSError):  # on a full disk it holds all the same
            os.ftruncate(place, 0)
            os.pwrite(place, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        self._place: int | None = place
        self._close = weakref.finalize(self, os.close, place)
        _held.add(self)

    def release(self) -> None:
        """Let the next one have it; a second call does nothing."""
        if self._place is not None:
            self._path.unlink(missing_ok=True)
            self.drop()

    def drop(self) -> None:
        """Close it here; a process that was forked does so, and the one it was forked from keeps the lock."""
        self._place = None
        self._close()
        _held.discard(self)

    def _take(self, folder: Path) -> int:
        for attempt in range(_TRIES):
            time.sleep(_PAUSE if attempt else 0.0)
            place = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
            if _flock(place, fcntl.LOCK_EX, folder) and _still_there(self._path, place):
                return place
            os.close(place)
        raise RecordError(_taken(folder))


def check_unlocked(folder: Path) -> None:
    """Refuse a folder that a process writes now.

    Raises:
        RecordError: who does.
    """
    if is_locked(folder):
        raise RecordError(_taken(folder))


def is_locked(folder: Path) -> bool:
    """Return whether a process writes this folder now."""
    try:
        place = os.open(folder / NAME, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return not _flock(place, fcntl.LOCK_SH, None)
    finally:
        os.close(place)


def _flock(place: int, kind: int, folder: Path | None) -> bool:
    try:
        fcntl.flock(place, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _TAKEN:
            return False
        if folder is not None:  # some network file systems know no locks
            _log.warning("isthmus: %s cannot be locked (%s): nothing keeps another run out", folder, error.strerror)
    return True


def _still_there(path: Path, place: int) -> bool:
    """Return whether the file that was locked is still the one of this name: its owner removes it at its end."""
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(place))
    except FileNotFoundError:
        return False


def _taken(folder: Path) -> str:
    try:
        said = read_file(folder / NAME, most=200).decode(errors="replace").strip()
    except OSError:
        said = ""
    holder = said if said.isprintable() and said else "another process"
    return f"{folder} is being written by {holder}: choose another folder, or end that first"


_held: weakref.WeakSet[Lock] = weakref.WeakSet()


def _drop_all() -> None:
    for lock in list(_held):
        lock.drop()


os.register_at_fork(after_in_child=_drop_all)
