"""The link between processes: the default process group of torch.distributed, joined or made."""

from __future__ import annotations

import atexit
import os

import torch
import torch.distributed as dist
from torch import Tensor

from isthmus.errors import WorkerError
from isthmus.trainer.wire.exchange import Alone, Exchange, Link
from isthmus.trainer.wire.rendezvous import check_in, find_place
from isthmus.trainer.wire.rendezvous import use_loopback_interface as use_loopback_interface
from isthmus.trainer.wire.seats import seat


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
    if find_place() is None:
        return Alone()
    make_group()
    atexit.register(_leave)
    return Group()


def make_group(join_timeout: float = 60.0) -> None:
    """Make the default process group of this run's workers.

    Raises:
        InvalidInput, WorkerError: the workers do not find each other, see ``wire.rendezvous``.
    """
    place = find_place(join_timeout)
    if place is None:
        use_loopback_interface()
        dist.init_process_group(backend(), store=dist.HashStore(), rank=0, world_size=1)
        return
    check_in(place, join_timeout)
    dist.init_process_group(backend(), store=place.store, rank=place.seat, world_size=place.seats)


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
