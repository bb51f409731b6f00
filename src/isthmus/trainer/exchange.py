"""The one way workers talk: a ragged all-to-all that a worker's program asks for and an executor performs.

A worker is a *program*: a generator that computes, yields an :class:`Exchange`, and is resumed with what the others
sent it. The serial executor steps all programs in one process; under processes each worker drives its own over
torch.distributed. The arithmetic is in the programs alone, so both give the same bits. Sums run in the workers' order.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from isthmus.nets.ownership import mean_of

Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Exchange:
    """A request of one worker; all workers must make the matching one at the same time.

    Attributes:
        send: a flat tensor for each worker (itself too, which costs nothing); may be empty.
        expect: how many numbers come from each worker.
        counted: whether the bytes belong to the method; only the few numbers of a progress row do not.
    """

    send: tuple[Tensor, ...]
    expect: tuple[int, ...]
    counted: bool = True


Program = Generator[Exchange, list[Tensor], Result]


@dataclass
class Meter:
    """What one worker has sent, received (bytes, without what stays with itself) and spent (seconds) in a round."""

    sent: int = 0
    received: int = 0
    compute: float = 0.0
    communicate: float = 0.0

    def count(self, request: Exchange, worker: int) -> None:
        """Add the bytes of one exchange as the tensors have them."""
        if request.counted:
            size = request.send[0].element_size()
            self.sent += size * sum(piece.numel() for to, piece in enumerate(request.send) if to != worker)
            self.received += size * sum(number for source, number in enumerate(request.expect) if source != worker)

    def reset(self) -> None:
        """Start a new round at zero."""
        self.sent = self.received = 0
        self.compute = self.communicate = 0.0

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Add the block's wall-clock time to the seconds spent computing."""
        start = time.perf_counter()
        yield
        self.compute += time.perf_counter() - start


def scatter(pieces: Sequence[Tensor] | None, expected: Tensor, worker: int, workers: int) -> Program[Tensor]:
    """Return the piece that worker 0 sends here, sized and typed like ``expected``; worker 0 passes all pieces."""
    send = tuple(pieces) if pieces is not None else (expected[:0],) * workers
    reply = yield Exchange(send, (expected.numel(), *[0] * (workers - 1)))
    return reply[0]


def gather(piece: Tensor, sizes: Sequence[int], worker: int, workers: int) -> Program[list[Tensor]]:
    """Return, on worker 0, every worker's piece (``sizes`` numbers each); elsewhere a list of empty tensors."""
    send = (piece, *[piece.new_empty(0)] * (workers - 1))
    reply = yield Exchange(send, tuple(sizes) if worker == 0 else (0,) * workers)
    return reply


def all_gather(piece: Tensor, workers: int, counted: bool = True) -> Program[list[Tensor]]:
    """Return every worker's piece; all have the same size."""
    reply = yield Exchange((piece,) * workers, (piece.numel(),) * workers, counted)
    return reply


def all_mean(values: Tensor, worker: int, workers: int) -> Program[Tensor]:
    """Return the mean over workers of a flat tensor: each worker sums its own 1/n of it in the workers' order.

    A reduce-scatter and an all-gather: a worker sends and receives 2 (n - 1) / n of the tensor, as in a ring, but the
    order of the sum is fixed.
    """
    chunks = values.tensor_split(workers)
    received = yield Exchange(tuple(chunks), (chunks[worker].numel(),) * workers)
    own = mean_of(received)
    reply = yield Exchange((own,) * workers, tuple(chunk.numel() for chunk in chunks))
    return torch.cat(reply)
