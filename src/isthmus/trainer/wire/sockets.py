"""The connections that a library opens for itself: what has gone through them, whether they stand, and closing them."""

from __future__ import annotations

import os
import socket
import stat
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType

# Of struct tcp_info in linux/tcp.h: the state, tcpi_bytes_received, tcpi_bytes_sent and tcpi_bytes_retrans.
_LENGTH, _STATE, _RECEIVED, _SENT = 216, 0, 128, 200
_ESTABLISHED = 1


class Sockets:
    """Those that are opened in a ``with`` block, by this process.

    >>> with Sockets() as own:
    ...     one, other = socket.socketpair()
    >>> len(own)
    2
    """

    def __init__(self) -> None:
        self._own: dict[int, int] = {}

    def __enter__(self) -> Sockets:
        self._own = _open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._own = {descriptor: mark for descriptor, mark in _open().items() if descriptor not in self._own}

    def __len__(self) -> int:
        return len(self._own)

    def shut(self) -> None:
        """Close the connections, from any thread: whoever waits for one finds it at its end, here and on the other
        side. The one that listens is not connected, and whoever waits on it must not lose it."""
        for descriptor, mark in self._own.items():
            with suppress(OSError), _again(descriptor, mark) as end:
                end.getpeername()
                end.shutdown(socket.SHUT_RDWR)

    def moved(self) -> tuple[int, int] | None:
        """Return the bytes sent and received through them so far, once each; None where the system does not tell.

        They are what the library gave to TCP: its own headers are in them, those of TCP and what it sent again are not.
        """
        told = [self._told(descriptor, mark) for descriptor, mark in self._own.items()]
        known = [each for each in told if each is not None]
        if not known:
            return None
        received = sum(struct.unpack_from("Q", each, _RECEIVED)[0] for each in known)
        sent = (struct.unpack_from("QQ", each, _SENT) for each in known)
        return sum(all_ - again for all_, again in sent), received

    @property
    def stand(self) -> bool:
        """Whether none has been closed, here or on the other side."""
        return all(_connected(descriptor, mark) for descriptor, mark in self._own.items())

    def _told(self, descriptor: int, mark: int) -> bytes | None:
        if sys.platform != "linux":
            return None
        with suppress(OSError), _again(descriptor, mark) as end:
            end.getpeername()
            told = end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
            return told if len(told) >= _LENGTH else None
        return None


@contextmanager
def _again(descriptor: int, mark: int) -> Iterator[socket.socket]:
    """Yield a socket by another descriptor; one that was closed, and its number given to another, is an OSError."""
    if _mark(descriptor) != mark:
        raise OSError
    with socket.socket(fileno=os.dup(descriptor)) as end:
        yield end


def _connected(descriptor: int, mark: int) -> bool:
    """Whether a connection stands; so does a socket that listens."""
    try:
        with _again(descriptor, mark) as end:
            if end.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                return True
            if sys.platform == "linux":
                state: int = end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[_STATE]
                return state == _ESTABLISHED
            end.getpeername()
            return True
    except OSError:
        return False


def _open() -> dict[int, int]:
    """Return the sockets that this process has open, by descriptor; a number that tells each from those after it."""
    try:
        descriptors = [int(name) for name in os.listdir("/dev/fd")]
    except OSError:
        return {}
    found = {descriptor: _mark(descriptor) for descriptor in descriptors}
    return {descriptor: mark for descriptor, mark in found.items() if mark is not None}


def _mark(descriptor: int) -> int | None:
    try:
        there = os.fstat(descriptor)
    except OSError:
        return None
    return there.st_ino if stat.S_ISSOCK(there.st_mode) else None
