"""The links between processes: a gloo group of our own, which can be broken off, or a script's own group with NCCL."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from isthmus.errors import InvalidInput
from isthmus.trainer.wire.exchange import Exchange, LostPeer, Same
from isthmus.trainer.wire.native import Native
from isthmus.trainer.wire.sockets import Sockets
from isthmus.trainer.wire.threads import patient

_CONNECTING = timedelta(seconds=20)
_NOW, _AHEAD = 0, 1  # tags of messages: one that others may overtake must not be taken for one of them
_WAITING = timedelta(days=1)  # whoever watches the workers decides when to wait no longer, and breaks the group off


class Gloo:
    """A group of processes that send over gloo. It is no process group that torch knows by a name, so that it can be
    left behind, and another made, as workers come and go.

    Args:
        store: where its members find each other, fresh for each group.
        index: of this worker.
        workers: number of workers.

    Raises:
        LostPeer: the others did not come.
    """

    def __init__(self, store: dist.Store, index: int, workers: int) -> None:
        self.index, self.workers = index, workers
        try:
            with Sockets() as self._sockets, patient():
                self._group: Any = dist.ProcessGroupGloo(store, index, workers, _CONNECTING)  # its stub says too little
        except RuntimeError as error:
            raise LostPeer(f"worker {index} found no connection to another worker: {error}") from error

    def exchange(self, request: Exchange) -> list[Tensor]:
        """Perform one ragged all-to-all, as bytes; what a worker sends itself does not go through the network."""
        try:
            return self._begin(request, _NOW)() if request.counted else self._ask(request)()
        except RuntimeError as error:
            raise LostPeer(f"worker {self.index} lost the connection to another worker: {error}") from error

    def begin(self, request: Exchange) -> Callable[[], list[Tensor]]:
        """Begin one ragged all-to-all that others may overtake; return what waits for its end."""
        try:
            arrive = self._begin(request, _AHEAD) if request.counted else self._ask(request)
        except RuntimeError as error:
            failed = error

            def arrive() -> list[Tensor]:
                raise failed

        def finish() -> list[Tensor]:
            try:
                return arrive()
            except RuntimeError as error:
                raise LostPeer(f"worker {self.index} lost the connection to another worker: {error}") from error

        return finish

    def shut(self) -> None:
        """Break off, from any thread: whoever waits in an exchange raises, here and on the other side.

        Gloo has no call for it; what ends a wait is that its connection is closed.
        """
        self._sockets.shut()

    def _begin(self, request: Exchange, tag: int) -> Callable[[], list[Tensor]]:
        """Send payload from where it is and to where it belongs, in as many messages as there are workers with some.

        Torch's all-to-all wants everything to be sent in one piece of memory, and has a message for everybody. Gloo
        matches messages of one tag between two workers in their order.
        """
        here, kind = self.index, request.send[0]
        reply = self._room(request)
        around = [(here + step) % self.workers for step in range(1, self.workers)]
        works = [self._group.recv([as_bytes(reply[w])], w, tag) for w in reversed(around) if request.expect[w]]
        told = [(w, as_bytes(request.send[w].cpu())) for w in around if request.send[w].numel()]
        works += [self._group.send([piece], w, tag) for w, piece in told]

        def arrive() -> list[Tensor]:
            for work in works:
                work.wait(_WAITING)
            reply[here] = request.send[here]
            return [piece.to(kind.device) for piece in reply]

        return arrive

    def _room(self, request: Exchange) -> list[Tensor]:
        """Return memory of the host for what comes."""
        if request.into is not None and request.into[0].device.type == "cpu":
            return list(request.into)
        sizes = (0 if w == self.index else number for w, number in enumerate(request.expect))  # nothing comes from here
        return [torch.empty(size, dtype=request.send[0].dtype) for size in sizes]

    def _ask(self, request: Exchange) -> Callable[[], list[Tensor]]:
        """Exchange a few numbers with everybody in one collective, which is the faster for these."""
        sent, expected, outgoing, incoming = flat(request, self.index)
        options = dist.AllToAllOptions()
        options.timeout = _WAITING
        told = outgoing.cpu()
        work = self._group.alltoall_base(incoming, told, expected, sent, options) if self.workers > 1 else None

        def arrive() -> list[Tensor]:
            if work is not None:
                work.wait()
            return unflat(request, self.index, expected, incoming)

        return arrive


class Default(Same):
    """The default process group that somebody else has made, with NCCL. It cannot be broken off."""

    shared = False

    def __init__(self) -> None:
        self.index, self.workers = dist.get_rank(), dist.get_world_size()

    def exchange(self, request: Exchange) -> list[Tensor]:
        """Perform one ragged all-to-all, as bytes, on the device."""
        try:
            return self._messages(request) if request.counted else self._at_once(request)
        except RuntimeError as error:
            raise LostPeer(f"worker {self.index} lost the connection to another worker: {error}") from error

    def native(self) -> Native:
        """Return it for torch's own parts; the bytes that go through it are not known but by arithmetic."""
        return Native(dist.group.WORLD)

    def _messages(self, request: Exchange) -> list[Tensor]:
        here, kind = self.index, request.send[0]
        reply = [torch.empty(number, dtype=kind.dtype, device=kind.device) for number in request.expect]
        around = [(here + step) % self.workers for step in range(1, self.workers)]
        asked = [dist.P2POp(dist.irecv, as_bytes(reply[w]), w) for w in reversed(around) if request.expect[w]]
        asked += [dist.P2POp(dist.isend, as_bytes(request.send[w]), w) for w in around if request.send[w].numel()]
        for work in dist.batch_isend_irecv(asked) if asked else ():
            work.wait()
        reply[here] = request.send[here]
        return reply

    def _at_once(self, request: Exchange) -> list[Tensor]:
        sent, expected, outgoing, incoming = flat(request, self.index)
        incoming = incoming.to(outgoing.device)
        if self.workers > 1:
            dist.all_to_all_single(incoming, outgoing, expected, sent)
        return unflat(request, self.index, expected, incoming)


def flat(request: Exchange, here: int) -> tuple[list[int], list[int], Tensor, Tensor]:
    """Return bytes to send to and expected of every worker, what is sent as bytes, and room for what comes."""
    kind = request.send[0]
    size = kind.element_size()
    sent = [0 if to == here else size * piece.numel() for to, piece in enumerate(request.send)]
    expected = [0 if source == here else size * number for source, number in enumerate(request.expect)]
    outgoing = torch.cat([piece for to, piece in enumerate(request.send) if to != here] or [kind[:0]])
    return sent, expected, as_bytes(outgoing), torch.empty(sum(expected), dtype=torch.uint8)


def unflat(request: Exchange, here: int, expected: list[int], incoming: Tensor) -> list[Tensor]:
    """Return what every worker sent, of what has come as bytes."""
    kind = request.send[0]
    reply = [part.view(kind.dtype).to(kind.device) for part in incoming.split(expected)]
    reply[here] = request.send[here]
    return reply


def as_bytes(piece: Tensor) -> Tensor:
    """Return a tensor's numbers as bytes."""
    return piece.reshape(-1).view(torch.uint8)


def worker_device() -> torch.device:
    """Return this worker's device: a GPU of its own where there is one for every worker of this host, else the CPU.

    Raises:
        InvalidInput: there is one, but CUDA was in use in the process that this one was forked from.
    """
    gpus = torch.cuda.device_count()  # unlike torch.cuda.is_available() it leaves CUDA to processes forked from here
    if gpus and gpus >= int(os.environ.get("LOCAL_WORLD_SIZE", "1")):
        if torch.cuda._is_in_bad_fork():
            raise InvalidInput(
                "CUDA does not survive a fork, and the notebook or module that workers are forked from has used it, or "
                "called torch.cuda.is_available(): restart and launch before that, or ask torch.cuda.device_count()"
            )
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


def place_for(device: torch.device | str) -> torch.device:
    """Return a device that somebody asked for.

    Raises:
        InvalidInput: it is not here.
    """
    place = torch.device(device)
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        there = f"{torch.cuda.device_count()} GPUs" if torch.cuda.device_count() else "no CUDA that can be used"
        raise InvalidInput(f"`device` is {place}, but this machine has {there}")
    return place


def with_nccl() -> bool:
    """Return whether a script has made torch's default process group, and with NCCL."""
    return dist.is_available() and dist.is_initialized() and "nccl" in dist.get_backend_config()
