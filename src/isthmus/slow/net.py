"""A slow network: so many hosts on this machine, the line between them, and processes on them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import isthmus
from isthmus.errors import IsthmusError, check_integer, check_number
from isthmus.line import VARIABLE, Line
from isthmus.slow import bridge
from isthmus.slow.bucket import limit
from isthmus.slow.keeper import Duty
from isthmus.slow.packet import ADDRESSES, open_tun
from isthmus.slow.space import Space

MOST = 64
INTERFACE = "e0"  # of every host, towards the others
PORT = 29500  # at which worker 0 is found; nobody else is in the network

_CPU_CLOCK = 2  # of a process's clocks the one that says the time it has run


class Net:
    """Hosts that only see each other; made by :func:`hosts`.

    Attributes:
        spaces: their namespaces.
        line: what joins each to the others.
        loss: the fraction of packets that are lost on the way.
    """

    def __init__(self, spaces: Sequence[Space], line: Line, loss: float, keeper: subprocess.Popen[bytes]) -> None:
        self.spaces = spaces
        self.line = line
        self.loss = loss
        self._keeper = keeper
        self._spent = self._cpu_seconds()  # before it carried anything

    def __len__(self) -> int:
        return len(self.spaces)

    def address(self, host: int) -> str:
        """Return a host's address."""
        return f"{ADDRESSES}.{host + 1}"

    def environment(self, host: int) -> dict[str, str]:
        """Return what a worker on a host is told: its place, where the others are, and the line."""
        here = str(Path(sys.executable).parent)
        return {
            "OMP_NUM_THREADS": "1",
            **os.environ,
            "PATH": os.pathsep.join([here, os.environ.get("PATH", os.defpath)]),  # this Python, and its isthmus
            "RANK": str(host),
            "WORLD_SIZE": str(len(self)),
            "LOCAL_RANK": "0",
            "LOCAL_WORLD_SIZE": "1",
            "MASTER_ADDR": self.address(0),
            "MASTER_PORT": str(PORT),
            "GLOO_SOCKET_IFNAME": INTERFACE,
            "NCCL_SOCKET_IFNAME": INTERFACE,
            VARIABLE: json.dumps(self.line.record()),
        }

    def popen(
        self, host: int, argv: Sequence[str], env: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.Popen[Any]:
        """Start a process on a host.

        Args:
            host: 0 .. hosts - 1.
            argv: the command.
            env: beside :meth:`environment`.
            options: of ``subprocess.Popen``.

        Raises:
            IsthmusError: it cannot be started.
        """
        whole = {**self.environment(host), **(env or {})}
        try:
            return self.spaces[host].inside(lambda: subprocess.Popen(list(argv), env=whole, **options))
        except OSError as error:
            raise IsthmusError(f"`{argv[0]}` cannot be started: {error.strerror}") from None

    def run(self, argv: Sequence[str], env: Mapping[str, str] | None = None, **options: Any) -> list[int]:
        """Start a process on every host, wait for all, and return their exit codes, -n by signal n."""
        started = [self.popen(host, argv, env, **options) for host in range(len(self))]
        return [each.wait() for each in started]

    def sent(self, host: int) -> int:
        """Return the bytes that a host has sent, as its interface counts them, with headers."""
        return self.spaces[host].counted(INTERFACE)[1]

    def received(self, host: int) -> int:
        """Return the bytes that a host has received, as its interface counts them, with headers."""
        return self.spaces[host].counted(INTERFACE)[0]

    def relay_seconds(self) -> float:
        """Return the seconds of CPU that carrying packets has taken so far, beside the kernel's own work."""
        return self._cpu_seconds() - self._spent

    def broken(self) -> bool:
        """Whether the process that carries packets is gone."""
        return self._keeper.poll() is not None

    def _cpu_seconds(self) -> float:
        return time.clock_gettime((~self._keeper.pid << 3) | _CPU_CLOCK)


@contextmanager
def hosts(n: int, line: Line, loss: float = 0.0) -> Iterator[Net]:
    """Make a network; at the end, or when this process ends in whatever way, all inside is killed and nothing left.

    Where the line has only rates the kernel does it all; a delay or loss takes a process that carries packets.

    Args:
        n: number of hosts, 2 .. 64.
        line: what joins each to the others.
        loss: the fraction of packets that are lost on the way, 0 <= loss < 1.

    Raises:
        InvalidInput: a number out of range.
        IsthmusError: this machine or this user cannot.
    """
    check_integer("hosts", n, at_least=2, at_most=MOST)
    check_number("loss", loss, at_least=0.0, below=1.0)
    if sys.platform != "linux":
        raise IsthmusError("a slow network needs Linux: its hosts are network namespaces")
    with ExitStack() as stack:
        spaces = [stack.enter_context(closing(Space.new())) for _ in range(n)]
        devices: list[int] = []
        with ExitStack() as ours:
            if line.latency or loss:
                for space in spaces:
                    devices.append(space.inside(lambda: open_tun(INTERFACE, whole=not loss)))
                    ours.callback(os.close, devices[-1])
            else:
                bridge.join(stack.enter_context(closing(Space.new())), spaces, INTERFACE, line.down)
            for number, space in enumerate(spaces):
                space.without_ipv6(INTERFACE)
                space.ip(
                    f"addr add {ADDRESSES}.{number + 1}/24 dev {INTERFACE}",
                    f"link set {INTERFACE} up",
                )
                limit(space, INTERFACE, line.up)
                space.inside(_fill_lines)
            keeper = stack.enter_context(_keeping(spaces, devices, line, loss))
        yield Net(spaces, line, loss, keeper)


def _fill_lines() -> None:
    """Have TCP send until a queue is full; what goes by measured times (bbr) takes a busy machine for a slow line."""
    settings = Path("/proc/sys/net/ipv4")
    allowed = (settings / "tcp_allowed_congestion_control").read_text().split()
    (settings / "tcp_congestion_control").write_text("cubic" if "cubic" in allowed else "reno")


@contextmanager
def _keeping(
    spaces: Sequence[Space], devices: Sequence[int], line: Line, loss: float
) -> Iterator[subprocess.Popen[bytes]]:
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            held = [space.descriptor for space in spaces]
            duty = Duty(os.getpid(), theirs.fileno(), held, devices, line.record(), loss)
            path = os.pathsep.join([str(Path(isthmus.__path__[0]).parent), os.environ.get("PYTHONPATH", "")])
            keeper = subprocess.Popen(
                [sys.executable, "-P", "-c", "from isthmus.slow.keeper import main; main()", duty.written()],
                pass_fds=[theirs.fileno(), *held, *devices],
                env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )
        try:
            if not ours.recv(1):
                raise IsthmusError("the process that keeps a slow network could not start")
            yield keeper
        finally:
            ours.close()
            keeper.wait()
