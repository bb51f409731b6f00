"""A store that listens on the loopback interface only, for workers of one machine to find each other through."""

from __future__ import annotations

import socket

from torch.distributed import TCPStore

HOST = "127.0.0.1"


def loopback_store() -> TCPStore:
    """Return a store hosted by this process, on a port that was free; it closes with its last reference."""
    listener = socket.create_server((HOST, 0))
    port = listener.getsockname()[1]
    # The store takes the socket over, so it is detached here; a port it bound itself would be open to the network.
    return TCPStore(HOST, port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach())
