"""The link between processes that come and go: a group of its own for as long as the same workers take part."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch.distributed as dist
from torch import Tensor

from isthmus.errors import WorkerError
from isthmus.trainer.membership.beat import Beat
from isthmus.trainer.membership.monitor import Monitor
from isthmus.trainer.membership.register import Member, Register
from isthmus.trainer.wire.exchange import Alone, Exchange, Link, LostPeer
from isthmus.trainer.wire.group import Default, Gloo, backend
from isthmus.trainer.wire.meter import Meter
from isthmus.trainer.wire.rendezvous import Place, check_in, find_place, heed
from isthmus.trainer.wire.seats import seat

_POLL = 0.05  # seconds
_LEAST, _ROUNDS = 30.0, 10  # how long others are waited for: seconds at least, and how many of the longest round
_log = logging.getLogger("isthmus")


class RunOver(WorkerError):
    """This process was started again, but the others have finished meanwhile."""


@dataclass
class Own:
    """What this worker tells of itself beside its exchanges.

    Attributes:
        round: rounds it has merged.
        phase: one of ``PHASES``.
        meter: of what it sends and receives.
        loss: of its last round.
        longest: seconds of the longest round so far.
    """

    round: int = 0
    phase: str = "starting"
    meter: Meter = field(default_factory=Meter)
    loss: float | None = None
    longest: float = 0.0


@dataclass(frozen=True)
class Change:
    """How the workers of an epoch differ from those before.

    Attributes:
        lost: seats that are gone, and why.
        joined: seats that have come.
    """

    lost: Mapping[int, str] = field(default_factory=dict)
    joined: tuple[int, ...] = ()


class Elastic:
    """One worker's link. Its index and the number of workers change from epoch to epoch: the members stand in the
    order in which they came, so that worker 0 is one of those that know most.

    Attributes:
        register: where it is written who takes part.
        members: of the present epoch, by index.
        epoch: its number; -1 before the first.
        fresh: whether this worker has nothing of what the others have in common.
        training: how many trainings this process has begun.
    """

    shared, elastic = False, True

    def __init__(self, place: Place, join_timeout: float) -> None:
        self.own = Own()
        self.deadline: float | None = None
        self._join_timeout = join_timeout
        self.stop: Callable[[str], None] = lambda why: None
        self.seat, self.seats = place.seat, place.seats
        self.me = Member(place.seat, place.incarnation)
        self.register = Register(place.store, self.me)
        self.members: list[Member] = []
        self.epoch, self.training = -1, 0
        self._group: Gloo | None = None
        self._broken = threading.Event()
        self._since: float | None = None
        self.fresh = self.register.latest() >= 0
        self._monitor = Monitor(
            place.store,
            self.seat,
            status=self._beat,
            members=lambda: [member.seat for member in self.members],
            incarnations=lambda: {member.seat: member.incarnation for member in self.members},
            waiting=lambda: self.waited,
            deadline=self._patience,
            lose=lambda seat, why: self.lose(seat, why, late=why.startswith("late")),
            log=lambda line: _log.warning("isthmus: %s", line),
            stop=lambda why: self.stop(why),
        )
        self._monitor.start()
        if self.fresh:
            self._ask()
        else:
            check_in(place, join_timeout)
            self._settle(0, self.register.first(self.seats))

    @property
    def index(self) -> int:
        """This worker's number among the members."""
        return self.members.index(self.me)

    @property
    def workers(self) -> int:
        """Number of members."""
        return len(self.members)

    @property
    def present(self) -> tuple[int, ...]:
        """The seats of the members, by index."""
        return tuple(member.seat for member in self.members)

    @property
    def waited(self) -> float | None:
        """Seconds for which this worker has been waiting for others; None if it is not."""
        since = self._since
        return None if since is None else time.monotonic() - since

    @property
    def wished(self) -> bool:
        """Whether somebody wants to be let in."""
        return bool(self.workers < self.seats and self.register.newcomers(self.seats, self.members))

    def exchange(self, request: Exchange) -> list[Tensor]:
        """Perform one exchange between the members of the epoch.

        Raises:
            LostPeer: one of them is gone, or was left out.
        """
        if len(self.members) == 1:
            return list(request.send)
        if self._group is None or self._broken.is_set():
            raise LostPeer("another worker is gone")
        self._since, before = time.monotonic(), self.own.phase
        self.own.phase = "moving" if request.counted else "waiting"
        try:
            return self._group.exchange(request)
        finally:
            self._since, self.own.phase = None, before

    def lose(self, gone: int, why: str, late: bool = False) -> None:
        """Go on without a member, from any thread: whoever waits for it raises.

        Args:
            gone: its seat.
            why: in a few words.
            late: whether it lives, and may come back by itself.
        """
        group = self._group
        member = next((each for each in self.members if each.seat == gone), None)
        if member is None or member == self.me:
            return
        if late:
            self.register.leave_out(self.epoch + 1, member, why)
        elif self.register.lost(member) is None:
            self.register.lose(member, why)
        self._broken.set()
        if group is not None:
            group.shut()

    def regroup(self, admitting: bool) -> Change:
        """Agree with the others on who goes on, and be joined to them.

        Args:
            admitting: whether newcomers are let in; the same on all members.

        Raises:
            RunOver: this worker was left out, and the others have finished.
        """
        before, self._since = self.members, time.monotonic()
        self._leave()
        try:
            if self.fresh:
                self._ask()
                return Change()
            seats = self.seats if admitting else None
            self._settle(self.epoch + 1, self.register.next(self.epoch + 1, before, seats, self._look))
            if self.fresh:
                return Change()
            gone = {m.seat: self.register.lost(m) or "was late" for m in before if m not in self.members}
            return Change(gone, tuple(member.seat for member in self.members if member not in before))
        finally:
            self._since = None

    def begin(self) -> None:
        """Begin a training; a process may do so more than once."""
        self.training += 1

    def end(self) -> None:
        """Say that this training is over: nobody need come any more."""
        self.register.end(self.training)

    def _beat(self) -> Beat:
        own, meter = self.own, self.own.meter
        return Beat(*self.me, os.getpid(), own.round, own.phase, meter.sent, meter.received, own.loss)

    def _patience(self) -> float:
        """Return how long others may be waited for."""
        if self.deadline is not None:
            return self.deadline
        return max(_LEAST, _ROUNDS * self.own.longest, 0.0 if self.own.longest else self._join_timeout)

    def _ask(self) -> None:
        """Ask to be let in, and wait until it is so."""
        known = self.register.latest()
        self.register.enter()
        while True:
            latest = self.register.latest()
            if latest > known:
                known, decided = latest, self.register.members(latest)
                if self.me in decided:
                    self.register.entered()
                    self._settle(latest, decided)
                    return
            self._look()
            time.sleep(_POLL)

    def _settle(self, number: int, members: list[Member]) -> None:
        """Be joined to the members of an epoch, or of one after it where some of them do not come."""
        while self.me in members:
            try:
                self._form(number, members)
                return
            except LostPeer:
                number += 1
                members = self.register.next(number, members, None, self._look)
        self.fresh = True
        self._ask()

    def _form(self, number: int, members: list[Member]) -> None:
        self._broken.clear()
        self.members, self.epoch = members, number
        self._group = None
        if len(members) > 1:
            self._group = Gloo(self.register.group(number), self.index, len(members))

    def quit(self) -> None:
        """Take part no more."""
        self._broken.set()
        self._leave()
        self._monitor.stop()

    def _leave(self) -> None:
        if self._group is not None:
            self._group.shut()
        self._group = None

    def _look(self) -> None:
        """Notice that the others have finished meanwhile, or that one of them says why nobody can go on."""
        heed(self.register.store)
        if self.register.over(max(1, self.training)):
            raise RunOver(f"worker {self.seat} was away when the others finished")


_links: list[Link] = []  # of this process


def join(join_timeout: float = 60.0) -> Link:
    """Return the link to the other workers of this run.

    In this order: the seat at a table of workers that take turns; a default process group with NCCL, found or made; a
    group of our own between the processes that :func:`find_place` finds; a run with one worker.

    Raises:
        InvalidInput, WorkerError: as find_place and check_in.
    """
    here = seat()
    if here is not None:
        return here
    if not _links:
        place = find_place(join_timeout)
        if place is None:
            return Alone()
        if backend() == "nccl":
            check_in(place, join_timeout)
            if not dist.is_initialized():
                dist.init_process_group("nccl", store=place.store, rank=place.seat, world_size=place.seats)
            _links.append(Default())
        else:
            _links.append(Elastic(place, join_timeout))
    return _links[0]


def leave() -> None:
    """Leave the others, who notice: this process goes no further with them."""
    for link in _links:
        if isinstance(link, Elastic):
            link.quit()
        elif dist.is_initialized():
            dist.destroy_process_group()
