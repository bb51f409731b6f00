"""What a worker will send and receive in its rounds: the very programs of its strategy are run, on tensors without
memory, over a link that answers for everybody else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from isthmus.strategies import Strategy
from isthmus.trainer.plan.live import Live
from isthmus.trainer.rounds.members import Members
from isthmus.trainer.store.rehome import Move, Rows
from isthmus.trainer.strategies import Part, Round, State, Worker, part_of
from isthmus.trainer.strategies.interface import Commit
from isthmus.trainer.wire.exchange import Exchange, Program, Same, all_gather, drive
from isthmus.trainer.wire.meter import Meter, Traffic
from isthmus.trainer.wire.tell import tell

ROUNDS = 4  # that are looked at: the first, and some in which what stays with workers need not travel
_CPU = torch.device("cpu")  # where the numbers of a meeting are, which are read


@dataclass(frozen=True)
class Nobody(Same):
    """The link of a worker that is only thought of: all others say at a meeting what it says, and send tensors that
    are as large as it expects, and have no values."""

    index: int
    workers: int
    elastic: bool = False
    shared: bool = True

    def exchange(self, request: Exchange) -> list[Tensor]:
        """Answer for the others."""
        own = request.send[self.index]
        if not request.counted:
            return [own] * self.workers
        if request.into is not None:
            return list(request.into)
        return [
            own if source == self.index else torch.empty(number, dtype=own.dtype, device=own.device)
            for source, number in enumerate(request.expect)
        ]


@dataclass(frozen=True)
class Moved:
    """What one worker moves in a round.

    Attributes:
        traffic: of the method.
        copying: bytes sent and received, together, for copies that outlive a worker.
        ahead: bytes of the method, sent and received, together, that travel beside the round's steps.
        made: bytes of the tensors that it makes on the way: cuts and merges, what is packed and unpacked, copies.
    """

    traffic: Traffic
    copying: float = 0.0
    ahead: float = 0.0
    made: float = 0.0


def rounds_of(strategy: Strategy, worker: Worker, count: int = ROUNDS) -> tuple[Moved, ...]:
    """Return what a worker moves when it opens and closes each of its first rounds.

    Of strategies whose workers need processes these are the meetings alone: torch's own parts exchange among
    themselves, and say what they move in a step and at a round's end.

    Args:
        strategy: how it trains.
        worker: over ``Nobody``, with a network without values.
        count: of rounds.
    """
    if strategy.processes:
        return (Moved(_meetings(strategy, worker)),) * count
    part = part_of(strategy, worker)
    state, found = _begun(part, worker), []
    for number in range(count):
        meter = Meter()
        with Live() as live:
            _round(part, state, _members(strategy, worker), number, meter)
        found.append(Moved(Traffic(meter.sent, meter.received, meter.hops), meter.copying, meter.ahead, live.made))
    return tuple(found)


def _begun(part: Part, worker: Worker) -> State:
    """Return the state of a worker before the first round, as if all came at once: one that nobody knows any more had
    all rows."""
    state = part.come()
    nobody = Move(1, (None,) * worker.link.workers)
    drive(part.move(state, nobody, partial(_first, worker)), worker.link, Meter())()
    return state


def _members(strategy: Strategy, worker: Worker) -> Members:
    return Members(worker.link, _CPU, strategy.elastic, partial(_first, worker), lambda change, number: None)


def _first(worker: Worker) -> Program[Rows]:
    """Return what reads rows of the first weights."""
    yield from ()
    return worker.network.initial.rows


def _round(part: Part, state: State, members: Members, number: int, meter: Meter) -> None:
    """Open and close one round in which all workers train."""
    round = Round(number, tuple(range(members.link.workers)))
    _act(members, lambda: part.open(state, round), meter)
    drive(part.ahead(state), members.link, meter)
    _act(members, lambda: part.close(state, part.module, ()), meter)
    _beside(members, meter)


def _meetings(strategy: Strategy, worker: Worker) -> Traffic:
    """Return the hops of the meetings of a round in which nothing else happens."""
    meter, members = Meter(), _members(strategy, worker)

    for _ in ("open", "close"):
        _act(members, _nothing, meter)
    _beside(members, meter)
    return Traffic(hops=meter.hops)


def _beside(members: Members, meter: Meter) -> None:
    """Meet as the command's loop does after a round: is all merged, how was the round, what has it cost."""
    for body in (_nothing, partial(_told, members), partial(_told, members)):
        _act(members, body, meter)


def _act(members: Members, body: Callable[[], Program[Commit]], meter: Meter) -> None:
    """Meet, do something, and hear that all have come as far."""

    def met() -> Program[tuple[Commit, None]]:
        yield from all_gather(torch.zeros(4), members.link, counted=False)
        return (yield from body()), None

    drive(members.act(met), members.link, meter)


def _told(members: Members) -> Program[Commit]:
    yield from tell(0.0, members.link, members.device)
    return lambda: None


def _nothing() -> Program[Commit]:
    yield from ()
    return lambda: None
