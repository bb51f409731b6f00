"""The link between processes that come and go: a group of its own for as long as the same workers take part."""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import torch.distributed as dist
from torch import Tensor

from isthmus.errors import WorkerError
from isthmus.trainer.membership.beat import Beat
from isthmus.trainer.membership.beside import beside
from isthmus.trainer.membership.monitor import Heard, Monitor
from isthmus.trainer.membership.register import Member, Register
from isthmus.trainer.wire.exchange import Alone, Exchange, Link, LostPeer
from isthmus.trainer.wire.group import Default, Gloo, with_nccl
from isthmus.trainer.wire.meter import Meter
from isthmus.trainer.wire.native import Native, native
from isthmus.trainer.wire.rendezvous import Place, check_in, find_place, heed
from isthmus.trainer.wire.seats import seat

_POLL = 0.05  # seconds
_AGAIN = 1000  # added to the incarnation of a process that was declared lost and lives: no launcher counts as far
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
        begun: steps and exchanges that it has begun, of all trainings; read by another thread, so changed together.
    """

    round: int = 0
    phase: str = "starting"
    meter: Meter = field(default_factory=Meter)
    loss: float | None = None
    longest: float = 0.0
    begun: tuple[int, int] = (0, 0)

    def step_begins(self) -> None:
        """Count a step."""
        self.begun = self.begun[0] + 1, self.begun[1]

    def exchange_begins(self) -> None:
        """Count an exchange."""
        self.begun = self.begun[0], self.begun[1] + 1


@dataclass(frozen=True)
class Change:
    """How the workers of an epoch differ from those before.

    Attributes:
        lost: seats that are gone, and why.
        joined: seats that have come.
    """

    lost: Mapping[int, str] = field(default_factory=dict)
    joined: tuple[int, ...] = ()


class Epoch:
    """A stretch of time with the same members, as one of them sees it.

    Attributes:
        number: of it; -1 before the first.
        members: by index.
        gone: set as soon as one of them is known to be gone.
        native: the group of torch's own parts, where there is one.
    """

    def __init__(self, number: int = -1, members: Sequence[Member] = ()) -> None:
        self.number, self.members = number, list(members)
        self.gone = threading.Event()
        self.native: Native | None = None
        self._group: Gloo | None = None

    def connect(self, store: dist.Store, index: int) -> None:
        """Be joined to the others.

        Gloo would wait for a member that is gone; so this is left to a thread, which nobody waits for then.

        Args:
            store: where they find each other, for this call alone.
            index: of this worker.

        Raises:
            LostPeer: one of them does not come.
        """
        if len(self.members) == 1:
            return
        made: queue.SimpleQueue[Gloo | LostPeer] = queue.SimpleQueue()

        def make() -> None:
            try:
                made.put(Gloo(store, index, len(self.members)))
            except LostPeer as lost:
                made.put(lost)

        beside(make, f"joining of worker {index}")
        while not self.gone.is_set():
            with suppress(queue.Empty):
                found = made.get(timeout=_POLL)
                if isinstance(found, LostPeer):
                    raise found
                self._group = found
                return
        raise LostPeer("another worker is gone")

    def exchange(self, request: Exchange) -> list[Tensor]:
        """Perform one exchange between the members.

        Raises:
            LostPeer: one of them is gone, or was left out.
        """
        if self._group is None or self.gone.is_set():
            raise LostPeer("another worker is gone")
        return self._group.exchange(request)

    def begin(self, request: Exchange) -> Callable[[], list[Tensor]]:
        """Begin one exchange between the members; what is returned raises if that fails."""
        if self._group is None or self.gone.is_set():

            def gone() -> list[Tensor]:
                raise LostPeer("another worker is gone")

            return gone
        return self._group.begin(request)

    def leave(self) -> None:
        """Break off, from any thread: whoever waits for another raises."""
        self.gone.set()
        for group in (self._group, self.native):
            if group is not None:
                group.shut()


class Elastic:
    """One worker's link. Its index and the number of workers change from epoch to epoch: the members stand in the
    order in which they came, so that worker 0 is one of those that know most.

    Attributes:
        register: where it is written who takes part.
        epoch: the present one.
        own: what this worker tells of itself beside its exchanges.
        deadline: seconds that others are waited for; by default they follow from the rounds so far.
        stop: called, on another thread, when the run is to stop.
        publish: called about once a second, on another thread of worker 0, with what is known of all workers.
        fresh: whether this worker has nothing of what the others have in common.
        training: how many trainings this process has begun.
    """

    shared, elastic = False, True

    def __init__(self, place: Place, join_timeout: float) -> None:
        self.own = Own()
        self.deadline: float | None = None
        self._join_timeout = join_timeout
        self.stop: Callable[[str], None] = lambda why: None
        self.publish: Callable[[Sequence[Heard]], None] = lambda known: None
        self.seat, self.seats = place.seat, place.seats
        self.me = Member(place.seat, place.incarnation)
        self.register = Register(place.store, self.me)
        self._store, self._uneven = place.store, ""
        self.epoch, self.training = Epoch(), 0
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
            uneven=self._left_behind,
            log=lambda line: _log.warning("isthmus: %s", line),
            publish=lambda known: self.publish(known),
            stop=lambda why: self.stop(why),
        )
        self._monitor.start()
        if self.fresh:
            self._ask()
        else:
            check_in(place, join_timeout)
            self._since = time.monotonic()
            self._settle(0, self.register.first(self.seats))
            self._since = None

    @property
    def members(self) -> list[Member]:
        """Those of the present epoch, by index."""
        return self.epoch.members

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
        since = self._since or (None if self.epoch.native is None else self.epoch.native.since)
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
        return self._wait(lambda: self.epoch.exchange(request), _phase(request))

    def begin(self, request: Exchange) -> Callable[[], list[Tensor]]:
        """Begin one exchange between the members of the epoch; return what waits for its end.

        It raises LostPeer if one of them is gone, or was left out.
        """
        if len(self.members) == 1:
            return lambda: list(request.send)
        finish = self.epoch.begin(request)
        return lambda: self._wait(finish, _phase(request))

    def _wait(self, does: Callable[[], list[Tensor]], phase: str) -> list[Tensor]:
        """Do what needs the others, and be seen to wait for them."""
        self._since, before = time.monotonic(), self.own.phase
        self.own.phase = phase
        self.own.exchange_begins()
        try:
            return does()
        except LostPeer:
            if self._uneven:
                raise WorkerError(self._uneven) from None
            raise
        finally:
            self._since, self.own.phase = None, before

    def native(self) -> Native:
        """Return a process group for torch's own parts, which is broken off as this worker's own is.

        Raises:
            LostPeer: another worker is gone.
            WorkerError: not all workers of the start are there: torch's group has a fixed number.
        """
        if self.epoch.number:
            raise WorkerError("torch's own strategies need the workers of the start, and some were lost before")
        if self.epoch.native is None:
            store = dist.PrefixStore("native", self._store.clone())  # type: ignore[attr-defined]
            try:
                self.epoch.native = native(store, self.index, self.workers)
            except RuntimeError as error:
                raise LostPeer(f"worker {self.seat} found no connection to another worker: {error}") from error
            if self.epoch.gone.is_set():
                self.epoch.leave()
        return self.epoch.native

    def _left_behind(self, seat: int) -> None:
        """End, as another worker makes a step that would need this one too, whose loop is over."""
        self._uneven = (
            f"worker {seat} makes another step while worker {self.seat} has ended its loop: with torch's own "
            "strategies all workers must make the same number of steps"
        )
        self.epoch.leave()

    def lose(self, gone: int, why: str, late: bool = False) -> None:
        """Go on without a member, from any thread: whoever waits for it raises.

        Args:
            gone: its seat.
            why: in a few words.
            late: whether it lives, and may come back by itself.
        """
        epoch = self.epoch  # the other thread may be at the next one
        member = next((each for each in epoch.members if each.seat == gone), None)
        if member is None or member == self.me:
            return
        if late:
            self.register.leave_out(epoch.number + 1, member, why)
        elif self.register.lost(member) is None:
            self.register.lose(member, why)
        epoch.leave()

    def regroup(self, admitting: bool) -> Change:
        """Agree with the others on who goes on, and be joined to them.

        Args:
            admitting: whether newcomers are let in; the same on all members.

        Raises:
            RunOver: this worker was left out, and the others have finished.
        """
        before, number = self.members, self.epoch.number + 1
        self.epoch.leave()
        self._since = time.monotonic()
        try:
            seats = self.seats if admitting else None
            self._settle(number, self.register.next(number, before, seats, self._look))
            if self.fresh:
                return Change()
            gone = {m.seat: self.register.lost(m) or "was late" for m in before if m not in self.members}
            return Change(gone, tuple(member.seat for member in self.members if member not in before))
        finally:
            self._since = None

    def stop_all(self, why: str) -> None:
        """Tell all workers to stop; from any thread."""
        self.register.store.clone().set("stop", why)  # type: ignore[attr-defined]  # torch's stubs do not know it

    def begin_training(self) -> None:
        """Begin a training; a process may do so more than once."""
        self.training += 1

    def end(self) -> None:
        """Say that this training is over: nobody need come any more."""
        self.register.end(self.training)

    def _beat(self) -> Beat:
        own, meter, inner = self.own, self.own.meter, self.epoch.native
        phase = own.phase if inner is None or inner.since is None else "stepping"
        steps, exchanges = own.begun
        moved = meter.sent, meter.received
        return Beat(*self.me, os.getpid(), own.round, phase, *moved, own.loss, steps=steps, exchanges=exchanges)

    def _patience(self) -> float:
        """Return how long others may be waited for."""
        if self.deadline is not None:
            return self.deadline
        return max(_LEAST, _ROUNDS * self.own.longest, 0.0 if self.own.longest else self._join_timeout)

    def _ask(self) -> None:
        """Ask to be let in, and wait until it is so.

        Raises:
            WorkerError: nobody is left who could let it in.
        """
        if self.register.lost(self.me) is not None:  # declared lost, but it lives: it comes back as another
            self.me = self.register.me = Member(self.seat, self.me.incarnation + _AGAIN)
        known, since = self.register.latest(), self._since
        self._since = None  # nobody has to come for it
        self.register.enter()
        while True:
            latest = self.register.latest()
            decided = self.register.members(latest)
            if latest > known and self.me in decided:
                self.register.entered()
                self._since = since
                self._settle(latest, decided)
                return
            self._look()
            if all(self.register.lost(member) is not None for member in decided):
                raise WorkerError("no worker is left that knows the network: go on from a checkpoint with --resume")
            time.sleep(_POLL)

    def _settle(self, number: int, members: list[Member]) -> None:
        """Be joined to the members of an epoch, or of one after it where some of them do not come."""
        while self.me in members:
            self.epoch = Epoch(number, members)
            try:
                self.epoch.connect(self.register.group(number), self.index)
                return
            except LostPeer:
                number += 1
                members = self.register.next(number, members, None, self._look)
        self.fresh = True
        self._ask()

    def quit(self) -> None:
        """Take part no more."""
        self.epoch.leave()
        self._monitor.stop()

    def _look(self) -> None:
        """Notice that the others have finished meanwhile, or that one of them says why nobody can go on."""
        heed(self.register.store)
        if self.register.over(max(1, self.training)):
            raise RunOver(f"worker {self.seat} was away when the others finished")


_links: list[Link] = []  # of this process


def _phase(request: Exchange) -> str:
    """Return what a worker is seen to do that waits for the end of an exchange."""
    return "moving" if request.counted else "waiting"


def join(join_timeout: float = 60.0) -> Link:
    """Return the link to the other workers of this run.

    In this order: the seat at a table of workers that take turns; a default process group with NCCL that a script has
    made, which cannot be broken off; a group of our own, over gloo on GPUs too, between the processes that
    :func:`find_place` finds; a run with one worker.

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
        if with_nccl():
            check_in(place, join_timeout)
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
