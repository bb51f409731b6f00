"""The link between processes: the default process group of torch.distributed, joined or made."""

from __future__ import annotations

import atexit
import os
import socket

import torch
import torch.distributed as dist
from torch import Tensor

from isthmus.errors import InvalidInput, WorkerError
from isthmus.trainer.wire.exchange import Alone, Exchange, Link
from isthmus.trainer.wire.seats import seat

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class LostPeer(WorkerError):
    """An exchange failed because another worker is gone; that one is the cause, not this."""


class Group:
    """The default process group, gloo or nccl."""

    shared = False

    def __init__(self) -> None:
        self.index = dist.get_rank()
        self.workers = dist.get_world_size()
        self._staged = dist.get_backend() == "gloo"  # gloo sends from the CPU's memory alone

    def exchange(self, request: Exchange) -> list[Tensor]:
        """Perform one ragged all-to-all, as bytes; what a worker sends itself does not go through the network."""
        try:
            return self._messages(request) if request.counted else self._at_once(request)
        except RuntimeError as error:
            raise LostPeer(f"worker {self.index} lost the connection to another worker: {error}") from error

    def _messages(self, request: Exchange) -> list[Tensor]:
        """Send payload from where it is and to where it belongs, in as many messages as there are workers with some.

        Torch's all-to-all wants everything to be sent in one piece of memory, and has a message for everybody.
        """
        here, kind = self.index, request.send[0]
        wire = self._wire(kind)
        reply = [torch.empty(number, dtype=kind.dtype, device=wire) for number in request.expect]
        around = [(here + step) % self.workers for step in range(1, self.workers)]
        asked = [dist.P2POp(dist.irecv, _bytes(reply[w]), w) for w in reversed(around) if request.expect[w]]
        told = [(w, request.send[w].to(wire)) for w in around if request.send[w].numel()]
        asked += [dist.P2POp(dist.isend, _bytes(piece), w) for w, piece in told]
        for work in dist.batch_isend_irecv(asked) if asked else ():
            work.wait()
        reply[here] = request.send[here]
        return [piece.to(kind.device) for piece in reply]

    def _at_once(self, request: Exchange) -> list[Tensor]:
        """Exchange a few numbers with everybody in one collective, which is the faster for these."""
        here, kind = self.index, request.send[0]
        size, wire = kind.element_size(), self._wire(kind)
        sent = [0 if to == here else size * piece.numel() for to, piece in enumerate(request.send)]
        expected = [0 if source == here else size * number for source, number in enumerate(request.expect)]
        outgoing = torch.cat([piece for to, piece in enumerate(request.send) if to != here] or [kind[:0]])
        incoming = torch.empty(sum(expected), dtype=torch.uint8, device=wire)
        if self.workers > 1:
            dist.all_to_all_single(incoming, _bytes(outgoing).to(wire), expected, sent)
        reply = [part.view(kind.dtype).to(kind.device) for part in incoming.split(expected)]
        reply[here] = request.send[here]
        return reply

    def _wire(self, kind: Tensor) -> torch.device:
        return torch.device("cpu") if self._staged else kind.device


def _bytes(piece: Tensor) -> Tensor:
    return piece.reshape(-1).view(torch.uint8)


def join() -> Link:
    """Return the link to the other workers of this run.

    In this order: the seat at a table of workers that take turns; the default process group that is there; one made
    from RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, as torchrun, Kubernetes' PyTorchJob, Ray Train and others set
    them; a run with one worker.

    Raises:
        InvalidInput: variables that do not suffice, or several tasks of Slurm without them.
    """
    here = seat()
    if here is not None:
        return here
    if dist.is_available() and dist.is_initialized():
        return Group()
    if not under_launcher():
        tasks = os.environ.get("SLURM_NTASKS", "1")
        if "SLURM_PROCID" in os.environ and tasks != "1":
            raise InvalidInput(
                f"Slurm started {tasks} tasks but RANK and WORLD_SIZE are not set: start one torchrun a node, or "
                "export RANK=$SLURM_PROCID WORLD_SIZE=$SLURM_NTASKS MASTER_ADDR and MASTER_PORT"
            )
        return Alone()
    if os.environ["WORLD_SIZE"] == "1":
        return Alone()
    make_group()
    atexit.register(_leave)
    return Group()


def under_launcher() -> bool:
    """Whether torchrun, or what sets the same variables, started this process as one of its workers."""
    return {"RANK", "WORLD_SIZE"} <= set(os.environ)


def make_group() -> None:
    """Make the default process group from the usual variables; on a single host nothing listens off loopback.

    Raises:
        InvalidInput: MASTER_ADDR or MASTER_PORT is missing.
    """
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise InvalidInput(f"RANK and WORLD_SIZE are set but {missing[0]} is not: the workers cannot find each other")
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    world, rank = int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"])
    if address in _LOOPBACK or os.environ.get("LOCAL_WORLD_SIZE") == str(world):
        use_loopback_interface()
    if address not in _LOOPBACK or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        dist.init_process_group(backend())
        return
    listener = None
    if rank == 0:  # the store takes the socket over; a port it bound itself would be open to the network
        family = socket.AF_INET6 if address == "::1" else socket.AF_INET
        server = socket.socket(family, socket.SOCK_STREAM)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((address, port))
        server.listen()
        listener = server.detach()
    store = dist.TCPStore(address, port, world, is_master=rank == 0, master_listen_fd=listener)
    dist.init_process_group(backend(), store=store, rank=rank, world_size=world)


def use_loopback_interface() -> None:
    """Let gloo listen on the loopback interface only, unless the user named another."""
    names = {name for _, name in socket.if_nameindex()}
    loopback = next((name for name in ("lo", "lo0") if name in names), None)
    if loopback:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)


def worker_device() -> torch.device:
    """Return this worker's device: a GPU of its own where there is one for every worker of this host, else the CPU."""
    if torch.cuda.is_available() and torch.cuda.device_count() >= int(os.environ.get("LOCAL_WORLD_SIZE", "1")):
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


def backend() -> str:
    """Return the process group's backend for this worker's device."""
    return "nccl" if worker_device().type == "cuda" else "gloo"


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
