"""The kernel's token bucket: a rate for what leaves by an interface."""

from __future__ import annotations

import math

from isthmus.slow.space import Space

QUEUE_SECONDS, QUEUE_BYTES = 0.1, 256_000  # that may wait before a line; what comes then is lost

_BURST, _LEAST_BURST = 0.001, 2 * 1514  # seconds of the rate that may leave at once, at least two Ethernet frames
_MOST_AT_ONCE = 65536  # bytes that TCP hands on as one


def queue_seconds(rate: float) -> float:
    """Return how long something may wait before a line of this rate, in bits a second."""
    return max(QUEUE_SECONDS, 8 * QUEUE_BYTES / rate)


def limit(space: Space, interface: str, rate: float) -> None:
    """Have an interface send no faster than a rate, in bits a second; a sender on this host waits meanwhile."""
    if rate == math.inf:
        return
    burst = max(round(_BURST * rate / 8), _LEAST_BURST)
    # what is larger would be taken apart by the bucket, and cost more to carry
    space.ip(f"link set {interface} gso_max_size {min(burst, _MOST_AT_ONCE)}")
    most = round(queue_seconds(rate) * rate / 8) + burst
    space.tc(f"qdisc add dev {interface} root tbf rate {round(rate)}bit burst {burst} limit {most}")
