"""Hosts joined by the kernel alone, where only rates are asked: a bridge, and a token bucket on the way to each."""

from __future__ import annotations

import os
from collections.abc import Sequence

from isthmus.slow.bucket import limit
from isthmus.slow.space import Space


def join(switch: Space, hosts: Sequence[Space], interface: str, rate: float) -> None:
    """Give every host an interface that leads to a bridge.

    Args:
        switch: where the bridge is, and nobody else.
        hosts: what it joins.
        interface: its name in every host.
        rate: at which each receives, in bits a second.
    """
    switch.ip("link add bridge type bridge mcast_snooping 0")
    switch.without_ipv6("bridge")
    switch.ip("link set bridge up")
    for number, host in enumerate(hosts):
        inside = f"/proc/{os.getpid()}/fd/{host.descriptor}"  # `ip` takes a namespace's path for its name
        switch.ip(f"link add to{number} type veth peer name {interface} netns {inside}")
        switch.without_ipv6(f"to{number}")
        switch.ip(f"link set to{number} master bridge up")
        limit(switch, f"to{number}", rate)
