"""The one way workers talk: a ragged all-to-all that a worker's program asks for and a link performs.

What a worker has to say is a *program*: a generator that computes, yields an :class:`Exchange`, and is resumed with
what the others sent it. :func:`drive` runs it over a :class:`Link`: torch.distributed between processes, or the seats
of a table where all workers live in one process and take turns. The arithmetic is in the programs alone, so all links
give the same bits. Sums run in the workers' order. A program may pause where it waits for what its worker computes; a
:class:`Driving` runs it from pause to pause.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from isthmus.errors import InvalidInput, WorkerError
from isthmus.nets.pieces.ownership import mean_into
from isthmus.trainer.wire.meter import Meter
from isthmus.trainer.wire.native import Native

Result = TypeVar("Result")
TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}  # shorter ones in which numbers may travel


@dataclass(frozen=True, eq=False)
class Exchange:
    """A request of one worker; all workers must make the matching one at the same time.

    Attributes:
        send: a flat tensor for each worker (itself too, which costs nothing); may be empty.
        expect: how many numbers come from each worker.
        counted: whether the bytes belong to the method; only the few numbers of a meeting do not.
        viewing: whether they are spent on looking at the merged network, and are counted apart.
        copying: whether they are spent on copies for the case that a worker is lost, and are counted apart.
        beside: where to leave it if it is only to be begun: it goes on while the worker computes and meets others.
        into: memory for what comes from each worker, where there is some already.
    """

    send: tuple[Tensor, ...]
    expect: tuple[int, ...]
    counted: bool = True
    viewing: bool = False
    copying: bool = False
    beside: Pending | None = None
    into: tuple[Tensor, ...] | None = None


@dataclass(eq=False)
class Pending:
    """An exchange that was begun; a program that asks for it goes on with its reply.

    Attributes:
        ahead: whether it travels beside the steps of a round for the next one, and is counted as such.
        hop: whether it is waited for, rather than on its way beside another that is, or a backward pass.
        request: what was begun.
        finish: waits for its end.
    """

    ahead: bool = False
    hop: bool = True
    request: Exchange = field(init=False)
    finish: Callable[[], list[Tensor]] = field(init=False)


class Pause:
    """What a program yields where it goes on when its worker has computed more."""


PAUSE = Pause()
Program = Generator[Exchange | Pending | Pause, list[Tensor], Result]


class LostPeer(WorkerError):
    """An exchange failed because another worker is gone; that one is the cause, not this."""


class Link(Protocol):
    """What joins one worker to the others.

    Where workers come and go (``elastic``), index and number of workers change when they have agreed on who goes on.
    """

    @property
    def index(self) -> int:
        """This worker's number, 0 .. workers - 1."""
        ...

    @property
    def workers(self) -> int:
        """Number of workers."""
        ...

    @property
    def seat(self) -> int:
        """The number this worker was started with, 0 .. seats - 1."""
        ...

    @property
    def seats(self) -> int:
        """Number of workers at the start."""
        ...

    @property
    def present(self) -> tuple[int, ...]:
        """The seat of every worker."""
        ...

    @property
    def elastic(self) -> bool:
        """Whether the others can go on when a worker is lost."""
        ...

    @property
    def shared(self) -> bool:
        """Whether other workers live in this process too."""
        ...

    def exchange(self, request: Exchange) -> list[Tensor]:
        """Perform one exchange: return what every worker sent here, in the workers' order.

        Raises:
            LostPeer: another worker is gone.
        """
        ...

    def begin(self, request: Exchange) -> Callable[[], list[Tensor]]:
        """Begin one exchange; return what waits for its end and returns what :meth:`exchange` does, or raises so.

        Other exchanges may come before that. Those that are only begun arrive in the order in which they were, which is
        the same on all workers.
        """
        ...

    def native(self) -> Native:
        """Return a process group for torch's own parts; all workers ask for it at the same time.

        Raises:
            InvalidInput: there is none between workers of one process.
        """
        ...


class Same:
    """What is so of every link whose workers are those of the start for as long as it lasts."""

    index: int
    workers: int
    elastic = False

    @property
    def seat(self) -> int:
        """The number this worker was started with."""
        return self.index

    @property
    def seats(self) -> int:
        """Number of workers at the start."""
        return self.workers

    @property
    def present(self) -> tuple[int, ...]:
        """The seat of every worker."""
        return tuple(range(self.workers))

    def exchange(self, request: Exchange) -> list[Tensor]:
        """Perform one exchange."""
        raise NotImplementedError

    def begin(self, request: Exchange) -> Callable[[], list[Tensor]]:
        """Perform one exchange at once: a worker does nothing else meanwhile."""
        reply = self.exchange(request)
        return lambda: reply

    def native(self) -> Native:
        """Refuse."""
        raise InvalidInput("torch's own strategies need every worker in a process of its own")


class Alone(Same):
    """The link of a run with one worker."""

    index, workers, shared = 0, 1, False

    def exchange(self, request: Exchange) -> list[Tensor]:
        """Return what the worker sent itself."""
        return list(request.send)


class Driving(Generic[Result]):
    """A program on its way over a link, while its worker computes in between; bytes and seconds are counted.

    An exchange that carries no payload is a meeting: the time in it is spent waiting for the others.
    """

    result: Result

    def __init__(self, program: Program[Result], link: Link, meter: Meter) -> None:
        self._program, self._link, self._meter = program, link, meter
        self._reply: list[Tensor] | None = None
        self._ended = False

    def go(self) -> bool:
        """Run the program until it pauses or ends; return whether it has ended."""
        meter, lost = self._meter, None
        start = time.perf_counter()
        while not self._ended:
            try:
                request = self._program.throw(lost) if lost else self._program.send(self._reply)  # type: ignore[arg-type]
            except StopIteration as stop:
                self._ended, self.result = True, stop.value
                request = PAUSE
            asked = time.perf_counter()
            meter.compute += asked - start
            if isinstance(request, Pause):
                self._reply = None
                break
            try:
                self._reply, lost = _answer(request, self._link), None
            except LostPeer as error:  # the program may know how to go on
                lost = error
            start = time.perf_counter()
            if lost is not None:
                meter.wait += start - asked
            else:
                _count(request, self._link, meter, start - asked)
        return self._ended

    def finish(self) -> Result:
        """Run the program to its end, without pauses, and return its result."""
        while not self.go():
            pass
        return self.result


def drive(program: Program[Result], link: Link, meter: Meter) -> Result:
    """Run a program to its end over a link and return its result."""
    return Driving(program, link, meter).finish()


def _answer(request: Exchange | Pending, link: Link) -> list[Tensor]:
    if isinstance(request, Exchange) and request.beside is not None:
        request.beside.request, request.beside.finish = request, link.begin(request)
        return []
    if isinstance(request, Pending):
        reply, into = request.finish(), request.request.into
    else:
        reply, into = link.exchange(request), request.into
    for piece, place in zip(reply, into or (), strict=False):
        if piece.data_ptr() != place.data_ptr():
            place.copy_(piece)
    return reply


def _count(request: Exchange | Pending, link: Link, meter: Meter, seconds: float) -> None:
    if isinstance(request, Pending):
        meter.landed(seconds, request.hop, request.request.counted)
    elif request.beside is not None:
        moved = sizes(request, link.index) if request.counted else (0, 0)
        meter.begun(moved, request.beside.ahead, seconds)
    elif request.counted:
        meter.count(sizes(request, link.index), request.viewing, request.copying, seconds)
    else:
        meter.meeting(seconds)


def sizes(request: Exchange, here: int) -> tuple[int, int]:
    """Return the bytes a worker sends and receives in an exchange, but for what it sends itself."""
    size = request.send[0].element_size()
    sent = size * sum(piece.numel() for to, piece in enumerate(request.send) if to != here)
    return sent, size * sum(number for source, number in enumerate(request.expect) if source != here)


def scatter(pieces: Sequence[Tensor] | None, expected: Tensor, link: Link) -> Program[Tensor]:
    """Return the piece that worker 0 sends here, sized and typed like ``expected``; worker 0 passes all pieces."""
    send = tuple(pieces) if pieces is not None else (expected[:0],) * link.workers
    reply = yield Exchange(send, (expected.numel(), *[0] * (link.workers - 1)))
    return reply[0]


def all_gather(
    piece: Tensor, link: Link, counted: bool = True, beside: Pending | None = None
) -> Program[list[Tensor]]:
    """Return every worker's piece; all have the same size. Nothing if it is only begun."""
    reply = yield Exchange((piece,) * link.workers, (piece.numel(),) * link.workers, counted, beside=beside)
    return reply


class Mean:
    """The mean of a flat tensor over the active workers: each worker sums its own 1/n of it in their order.

    The tensor's own memory is used for it.

    A reduce-scatter and an all-gather: a worker sends and receives 2 (n - 1) / n of the tensor, as in a ring, but the
    order of the sum is fixed. With a ``wire`` numbers travel in that type, and are rounded on both ways, on every
    worker alike.
    """

    def __init__(self, values: Tensor, link: Link, wire: torch.dtype | None = None) -> None:
        self._link, self._values = link, values
        self._found = values.to(wire or values.dtype)
        self._chunks = self._found.tensor_split(link.workers)

    def deal(self, dealers: Sequence[int], beside: Pending | None = None, room: Tensor | None = None) -> Exchange:
        """Return the first exchange: to every worker its share of the dealers' tensors.

        Args:
            dealers: whose tensors travel.
            beside: as of an :class:`Exchange`.
            room: bytes of memory for what comes, if there are some already.
        """
        link, chunks = self._link, self._chunks
        own = chunks[link.index]
        send = chunks if link.index in dealers else (chunks[0][:0],) * link.workers
        expect = tuple(own.numel() if w in dealers else 0 for w in range(link.workers))
        if room is None:
            return Exchange(tuple(send), expect, beside=beside)
        coming = [0 if w == link.index else numbers for w, numbers in enumerate(expect)]
        into = list(room[: sum(coming) * own.element_size()].view(own.dtype).split(coming))
        into[link.index] = send[link.index]
        return Exchange(tuple(send), expect, beside=beside, into=tuple(into))

    def tell(self, received: Sequence[Tensor], active: Sequence[int], beside: Pending | None = None) -> Exchange:
        """Return the second exchange, to all, of the means of all shares; what came in the first from those that are
        active is added up for it."""
        chunks, own = self._chunks, self._chunks[self._link.index]
        mean_into(own, [received[worker].to(self._values.dtype) for worker in active])
        expect = tuple(chunk.numel() for chunk in chunks)
        return Exchange((own,) * self._link.workers, expect, beside=beside, into=tuple(chunks))

    def settle(self) -> Tensor:
        """Return the tensor with the mean in it, when the second exchange is over."""
        return self._values if self._found is self._values else self._values.copy_(self._found)


def all_mean(values: Tensor, link: Link, active: Sequence[int], wire: torch.dtype | None = None) -> Program[Tensor]:
    """Return the :class:`Mean` of a flat tensor over the active workers; the others send nothing, and receive it."""
    mean = Mean(values, link, wire)
    received = yield mean.deal(active)
    yield mean.tell(received, active)
    return mean.settle()


def broadcast(values: Tensor, source: int, link: Link, receivers: Sequence[int]) -> Program[Tensor]:
    """Return worker ``source``'s tensor on the receivers; the others get back what they passed."""
    here = link.index == source
    send = tuple(values if here and w in receivers else values[:0] for w in range(link.workers))
    expected = values.numel() if link.index in receivers else 0
    reply = yield Exchange(send, tuple(expected if w == source else 0 for w in range(link.workers)))
    return reply[source] if expected else values
