"""What is done by all workers or by none, and how those who are left go on when one is lost."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, TypeVar

import torch

from isthmus.errors import WorkerError
from isthmus.records import to_json
from isthmus.trainer.membership.link import Change, Elastic
from isthmus.trainer.store.rehome import Move, Saved
from isthmus.trainer.strategies import Part, State
from isthmus.trainer.strategies.interface import Commit
from isthmus.trainer.wire.exchange import Link, LostPeer, Program, all_gather
from isthmus.trainer.wire.tell import tell

Result = TypeVar("Result")
Body = Callable[[], Program[tuple[Commit, Result]]]  # what is to be done once all have come as far, and the result


class CameBack(Exception):
    """This worker was left out and takes part again: it goes on where the others are, with what it has been handed."""


@dataclass
class Members:
    """One worker's part in acts: what all do together, and what takes effect on all or on none.

    Attributes:
        link: to the others.
        device: where the few numbers of a meeting are.
        steady: whether all can go on when one is lost.
        saved: returns what reads rows of tensors that nobody has any more, from the last checkpoint.
        noticed: called when workers are lost or have come, with the number of the round.
        least: how many workers must be left to go on.
        patience: seconds to wait for more.
        stopping: whether this worker was told to stop.
        hand: returns what a newcomer is told beside it, as plain data, on worker 0.
        handed: what this worker was told when it came.
        fresh: returns part and state of a worker that was left out before its first act, for others to fill.
        part, state: what this worker does and keeps, from the first act on.
        acts: how many have been done.
        saved_in: the folder of the last checkpoint; one that comes is told it.
        layout: how often the workers have changed.
        seats: those at the last change, in their order: who is home to what.
        overtaken: whether the last act was found to be done when workers had changed.
    """

    link: Link
    device: torch.device
    steady: bool
    saved: Saved
    noticed: Callable[[Change, int], None]
    least: int = 1
    patience: float = 0.0
    stopping: Callable[[], bool] = lambda: False
    hand: Callable[[], Any] | None = None
    handed: Any = None
    fresh: Callable[[], tuple[Part, State]] | None = None
    part: Part = field(init=False)
    state: State = field(init=False)
    acts: int = 0
    saved_in: str | None = None
    layout: int = 0
    seats: list[int] = field(default_factory=list)
    overtaken: bool = False
    _ready: Commit | None = None
    _moving: Commit | None = None

    def __post_init__(self) -> None:
        self.seats = self._seats()

    @property
    def few(self) -> bool:
        """Whether there are too few workers to go on."""
        return self.link.workers < self.least

    @property
    def wished(self) -> bool:
        """Whether somebody wants to be let in."""
        return isinstance(self.link, Elastic) and self.steady and self.link.wished

    def act(self, body: Body[Result]) -> Program[Result]:
        """Do something on all workers or on none; done again, without those who are lost, if it fails.

        Args:
            body: does all but what lasts; may be called again.

        Raises:
            LostPeer: a worker is lost, and the strategy, or the link, cannot go on without it.
        """
        while True:
            self._ready, self.overtaken = None, False
            try:
                commit, result = yield from body()
                self._ready = commit
                yield from self._vote()
            except LostPeer as lost:
                if (yield from self.change(lost=lost)):
                    self.overtaken = True
                    return result
                continue
            self._do()
            return result

    def again(self, body: Callable[[], Program[Result]]) -> Program[Result]:
        """Do what leaves nothing behind, once more if a worker is lost; the others need not do the same thing."""
        while True:
            try:
                return (yield from body())
            except LostPeer as lost:
                yield from self.change(lost=lost)

    def until(self, body: Callable[[], Program[bool]]) -> Program[None]:
        """Do what leaves nothing behind again and again, until all workers find that it is over."""
        over = False
        while not over:
            self._ready = _nothing
            try:
                over = yield from body()
            except LostPeer as lost:
                if (yield from self.change(lost=lost)):
                    return
        self._do()

    def change(self, admitting: bool = False, lost: LostPeer | None = None) -> Program[bool]:
        """Go on with those who are there; return whether the act that was interrupted is done.

        Args:
            admitting: whether newcomers are let in; the same on all workers.
            lost: why, if it is because of a failure.

        Raises:
            LostPeer: the strategy, or the link, cannot go on.
            WorkerError: nobody is left who knows the network.
            CameBack: this worker was left out, and has been handed what it missed.
        """
        link = self.link
        if not isinstance(link, Elastic) or not self.steady:
            raise lost or LostPeer("workers cannot come and go")
        gone: dict[int, str] = {}
        came: set[int] = set()
        before, acts, away = self.seats, self.acts, False
        while True:
            found = link.regroup(admitting)
            gone, came, away = {**gone, **found.lost}, came.union(found.joined), away or link.fresh
            try:
                yield from self._move(link)
            except LostPeer:
                continue
            break
        lost_now = {seat: why for seat, why in gone.items() if seat in before}
        change = Change(lost_now, tuple(seat for seat in self.seats if seat in came))
        if change != Change():
            self.noticed(change, self.state.number if self.acts else 0)
        if away and (self.hand is not None or self.acts > acts == 0):
            raise CameBack
        return self.acts > acts and not away

    def come(self) -> Program[None]:
        """Take up, as a newcomer, where the others are."""
        assert isinstance(self.link, Elastic)
        try:
            yield from self._move(self.link)
        except LostPeer as lost:
            with suppress(CameBack):  # it has only now begun
                yield from self.change(lost=lost)

    def _vote(self) -> Program[None]:
        """Hear that every worker has come as far."""
        if self.link.elastic and self.steady and self.link.workers > 1:
            yield from all_gather(torch.zeros(1, dtype=torch.int64, device=self.device), self.link, counted=False)

    def _do(self) -> None:
        assert self._ready is not None
        self._ready()
        self._ready = None
        self.acts += 1

    def _seats(self) -> list[int]:
        return list(self.link.present)

    def _move(self, link: Elastic) -> Program[None]:
        """Find out how far all have come, and bring everything to where it belongs with the workers that are there."""
        told = yield from tell(None if link.fresh else self._standing(), link, self.device)
        known = [each for each in told if each is not None]
        if not known:
            raise WorkerError("no worker is left that knows the network: go on from a checkpoint with --resume")
        moving, self._moving = self._moving, None
        newest, latest = (max(known, key=itemgetter(what)) for what in ("layout", "acts"))
        if not link.fresh:
            if self.layout < newest["layout"]:
                assert moving is not None
                moving()
            if self.acts < latest["acts"]:
                self._do()
        else:
            if not hasattr(self, "state") and self.fresh is not None:
                self.part, self.state = self.fresh()
            state = self.state  # of a worker that was left out, and has come back: what it knew is no longer so
            state.round, state.kept, state.behind, state.made, state.reference = None, None, False, 0, {}
        self._ready = None
        if not latest["acts"]:  # nothing is there yet
            self.seats = self._seats()
            return
        self.saved_in = latest["saved_in"]
        before = list(newest["seats"])
        seats = self._seats()  # now: others may be there when this one hears that the move is done
        was = (None if each is None else before.index(seat) for seat, each in zip(seats, told, strict=True))
        move = Move(len(before), tuple(was))
        handed = None
        if move.newcomers:
            own = to_json(self.hand()) if link.index == 0 and self.hand is not None else None
            handed = (yield from tell(own, link, self.device))[0]
        commit = yield from self.part.move(self.state, move, self.saved)

        def settle() -> None:
            commit()
            self.layout, self.acts, self.seats = newest["layout"] + 1, latest["acts"], seats
            if link.fresh:
                self.state.number, self.handed, link.fresh = number, handed, False

        number = max(each["number"] for each in known if each["acts"] == latest["acts"])
        self._moving = settle
        yield from self._vote()
        settle()
        self._moving = None

    def _standing(self) -> dict[str, Any]:
        number = self.state.number if self.acts else 0
        where = {"seats": self.seats, "number": number, "saved_in": self.saved_in}
        return {"layout": self.layout, "acts": self.acts, **where}


def _nothing() -> None: ...
