"""A rendezvous for torch's elastic launcher on one machine whose store listens on the loopback interface only.

The launcher's own rendezvous backends listen on every interface, which nothing on a single machine needs.
"""

from __future__ import annotations

import socket

from torch.distributed import PrefixStore, TCPStore
from torch.distributed.elastic.rendezvous import (
    RendezvousHandler,
    RendezvousInfo,
    RendezvousParameters,
    RendezvousStoreInfo,
)
from torch.distributed.elastic.rendezvous.registry import handler_registry

BACKEND = "isthmus-loopback"
_HOST = "127.0.0.1"


class LoopbackRendezvous(RendezvousHandler):
    """One agent, always ready; the workers find each other through its store."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.bind((_HOST, 0))
        listener.listen()
        self._port = listener.getsockname()[1]
        # The store takes the socket over, so it is detached here; a port it bound itself would be open to the network.
        self._store = TCPStore(
            _HOST, self._port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach()
        )

    @property
    def use_agent_store(self) -> bool:
        """Whether workers join as clients of this store."""
        return True

    def get_backend(self) -> str:
        """Return the name this is registered under."""
        return BACKEND

    def next_rendezvous(self) -> RendezvousInfo:
        """Return the store, with this agent as the only one."""
        return RendezvousInfo(PrefixStore(self._run_id, self._store), 0, 1, RendezvousStoreInfo(_HOST, self._port))

    def is_closed(self) -> bool:
        """Whether it was closed: never, it lives as long as the launcher."""
        return False

    def set_closed(self) -> None:
        """Do nothing: there is no other agent to tell."""

    def num_nodes_waiting(self) -> int:
        """Return 0: there are no other agents."""
        return 0

    def get_run_id(self) -> str:
        """Return the name of the run."""
        return self._run_id

    def shutdown(self) -> bool:
        """Do nothing: the store closes with the launcher."""
        return True


def register() -> None:
    """Make the backend known to the launcher; calling it again does nothing."""
    handler_registry.register(BACKEND, _create)


def _create(parameters: RendezvousParameters) -> RendezvousHandler:
    return LoopbackRendezvous(parameters.run_id)
