"""The process beside a slow network: it carries packets where that is asked, and sees to it that nothing is left.

It lives as long as the network's owner, or until that closes the socket to it. Then it kills whatever is still inside
the network, which is gone with the last who held it. It stands aside of the owner's terminal and process group, so that
what ends those does not end it.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from isthmus.line import Line
from isthmus.slow.packet import LARGEST
from isthmus.slow.relay import Relay
from isthmus.slow.space import end_all

_AT_ONCE = 64  # packets read from a host before the others have their turn
_SLACK, _URGENT = 29, -15  # PR_SET_TIMERSLACK of linux/prctl.h; a priority


@dataclass(frozen=True)
class Duty:
    """What a keeper is told.

    Attributes:
        owner: process whose network it is.
        control: descriptor of a socket to the owner.
        spaces: descriptors of the hosts' namespaces.
        devices: descriptors of their TUN devices; none where nothing is carried.
        line: record of the line of each host.
        loss: the fraction of packets that are lost.
    """

    owner: int
    control: int
    spaces: Sequence[int]
    devices: Sequence[int]
    line: dict[str, Any]
    loss: float

    def written(self) -> str:
        """As text; :func:`main` reads it."""
        return json.dumps(asdict(self))


def main() -> None:
    """Keep a network, as the first argument says."""
    duty = Duty(**json.loads(sys.argv[1]))
    control = socket.socket(fileno=duty.control)
    try:
        owner = os.pidfd_open(duty.owner)
        if os.getppid() == duty.owner:  # or it has ended before
            control.sendall(b"1")
            _keep([control.fileno(), owner], duty)
    finally:
        end_all(duty.spaces)


def _keep(ends: list[int], duty: Duty) -> None:
    """Carry packets until one of ``ends`` can be read."""
    relay = Relay(len(duty.devices), Line.read(duty.line), duty.loss)
    hosts = {device: host for host, device in enumerate(duty.devices)}
    ctypes.CDLL(None).prctl(_SLACK, ctypes.c_ulong(1), 0, 0, 0)
    if hosts:
        with suppress(OSError):  # workers that compute on all cores must not delay the network
            os.setpriority(os.PRIO_PROCESS, 0, _URGENT)
    while True:
        due = relay.next()
        pause = None if due is None else max(0.0, due - time.monotonic())
        ready = select.select([*hosts, *ends], [], [], pause)[0]
        if not set(ends).isdisjoint(ready):
            return
        now = time.monotonic()
        for device in ready:
            with suppress(BlockingIOError):
                for _ in range(_AT_ONCE):
                    relay.take(now, hosts[device], os.read(device, LARGEST))
        for to, packet in relay.due(now):
            with suppress(OSError):
                os.write(duty.devices[to], packet)
