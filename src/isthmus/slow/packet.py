"""What a TUN device gives and takes: an IP packet behind the header that virtio puts before it.

One read may hold many packets of one connection at once, as the kernel hands them to a network card that cuts them
itself (segmentation offload). They are counted as the packets that would be on the wire.
"""

from __future__ import annotations

import fcntl
import os
import struct

from isthmus.errors import IsthmusError

HEADER = 10  # bytes of linux/virtio_net.h's header
LARGEST = HEADER + 65536
ADDRESSES = "10.77.0"  # of the hosts, whose last number is theirs + 1

_IFF_TUN, _IFF_NO_PI, _IFF_VNET_HDR = 0x0001, 0x1000, 0x4000  # of linux/if_tun.h
_TUNSETIFF, _TUNSETOFFLOAD = 0x400454CA, 0x400454D0
_CHECKSUMS, _SEGMENTS = 1, 2  # what is left to whoever reads
_IPV4, _TCP = 4, 6


def open_tun(name: str, whole: bool) -> int:
    """Return the descriptor of a new TUN device, in the namespace of this thread; the device lives as long as that.

    Args:
        name: of the interface.
        whole: whether many packets of a connection may come in one read.

    Raises:
        IsthmusError: there is no TUN here.
    """
    try:
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH", name.encode(), _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR))
        fcntl.ioctl(device, _TUNSETOFFLOAD, _CHECKSUMS | _SEGMENTS if whole else _CHECKSUMS)
    except OSError as error:
        raise IsthmusError(
            f"a delay or loss needs TUN devices: /dev/net/tun cannot be used here ({error.strerror}); "
            "run as root on a machine that has them, or give only a rate"
        ) from None
    return device


def target(packet: bytes) -> int | None:
    """Return the host that a packet is for, None where it is none of ours."""
    if packet[HEADER] >> 4 != _IPV4:
        return None
    return packet[HEADER + 19] - 1


def wire_bytes(packet: bytes) -> int:
    """Return the bytes on the wire, every packet's headers counted."""
    size = len(packet) - HEADER
    each = int.from_bytes(packet[4:6], "little")
    if not packet[1] or packet[HEADER + 9] != _TCP:  # one packet
        return size
    first = (packet[HEADER] & 15) * 4
    headers = first + (packet[HEADER + first + 12] >> 4) * 4
    packets = -(-(len(packet) - HEADER - headers) // each)
    return size + (packets - 1) * headers
