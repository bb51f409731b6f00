"""A network namespace without a name: whoever holds it open keeps it, and nothing is left once nobody does."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from isthmus.errors import IsthmusError

Result = TypeVar("Result")

_NEW_NET = 0x40000000  # of linux/sched.h
_PAUSE = 0.005  # seconds between two looks at who is left
_PATIENCE = 10.0  # seconds in which a killed process has ended


class Space:
    """A network namespace, by its descriptor.

    Args:
        descriptor: of an open ``/proc/.../ns/net``; it is closed by :meth:`close`.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    @classmethod
    def new(cls) -> Space:
        """Make one, with a loopback interface that is up.

        Raises:
            IsthmusError: this process may not.
        """

        def make() -> int:
            if _libc().unshare(_NEW_NET):
                _refuse("make a network namespace")
            return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

        space = cls(_in_a_thread(make))
        space.ip("link set lo up")
        return space

    def inside(self, call: Callable[[], Result]) -> Result:
        """Return ``call()``, made by a thread that is inside: processes that it starts are born there."""

        def enter() -> Result:
            if _libc().setns(self.descriptor, _NEW_NET):
                _refuse("enter a network namespace")
            return call()

        return _in_a_thread(enter)

    def ip(self, *commands: str) -> None:
        """Run commands of `ip` inside."""
        self._batch("ip", commands)

    def tc(self, *commands: str) -> None:
        """Run commands of `tc` inside."""
        self._batch("tc", commands)

    def without_ipv6(self, interface: str) -> None:
        """Have the kernel say nothing of its own by an interface; it would be counted."""
        setting = Path(f"/proc/sys/net/ipv6/conf/{interface}/disable_ipv6")
        with suppress(FileNotFoundError):  # there is none
            self.inside(lambda: setting.write_text("1"))

    def counted(self, interface: str) -> tuple[int, int]:
        """Return the bytes that an interface has received and sent."""
        said = self.inside(Path("/proc/thread-self/net/dev").read_text)
        line = next(line for line in said.splitlines() if line.strip().startswith(f"{interface}:"))
        numbers = line.partition(":")[2].split()
        return int(numbers[0]), int(numbers[8])

    def close(self) -> None:
        """Let go of it."""
        os.close(self.descriptor)

    def _batch(self, program: str, commands: Sequence[str]) -> None:
        lines = "".join(f"{command}\n" for command in commands)

        def run() -> subprocess.CompletedProcess[str]:
            return subprocess.run([program, "-batch", "-"], input=lines, text=True, capture_output=True)

        try:
            done = self.inside(run)
        except FileNotFoundError:
            raise IsthmusError(f"a slow network needs `{program}`: install the package iproute2") from None
        if done.returncode:
            said = " ".join(done.stderr.split())
            raise IsthmusError(f"`{program}` cannot make a slow network here: {said}")


def end_all(spaces: Sequence[int]) -> None:
    """Kill every process inside, however it came there, until there is none.

    Args:
        spaces: descriptors.
    """
    places = {_identity(os.fstat(each)) for each in spaces}
    deadline = time.monotonic() + _PATIENCE
    while [name for name in os.listdir("/proc") if name.isdecimal() and _kill_if_inside(int(name), places)]:
        if time.monotonic() > deadline:
            return
        time.sleep(_PAUSE)


def _kill_if_inside(process: int, places: set[tuple[int, int]]) -> bool:
    """Kill a process that is inside; whether it was. Its number may be another's by then, its descriptor not."""
    with suppress(OSError):  # it has ended
        if _identity(os.stat(f"/proc/{process}/ns/net")) not in places:
            return False
        handle = os.pidfd_open(process)
        try:
            if _identity(os.stat(f"/proc/{process}/ns/net")) in places:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
                return True
        finally:
            os.close(handle)
    return False


def _identity(stat: os.stat_result) -> tuple[int, int]:
    return stat.st_dev, stat.st_ino


def _in_a_thread(call: Callable[[], Result]) -> Result:
    """Return ``call()``, made by a thread of its own: what that enters, the others do not."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(call).result()


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _refuse(what: str) -> None:
    reason = os.strerror(ctypes.get_errno())
    raise IsthmusError(
        f"a slow network needs root: this process may not {what} ({reason}); run it as root, or under "
        "`unshare --user --map-root-user`"
    )
