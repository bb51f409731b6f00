"""Who takes part: written down in a store that outlives every worker.

A *seat* is the number a worker was started with; its *incarnation* says how often its process was started again.
Workers that take part together are an *epoch*: a list of seats, decided for each epoch by whoever first writes it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch.distributed as dist

from isthmus.errors import WorkerError

_POLL = 0.05  # seconds
_NO_WISH = "-"


class Member(NamedTuple):
    """A process that takes part.

    Attributes:
        seat: its number, 0 .. seats - 1.
        incarnation: how often the seat's process was started again.
    """

    seat: int
    incarnation: int


@dataclass
class Register:
    """One worker's view of it.

    Attributes:
        store: shared by all.
        me: this process.
    """

    store: dist.Store
    me: Member

    def end(self, training: int) -> None:
        """Say that a training is done: nobody is let in any more."""
        self._set(f"over/{training}", "1")

    def over(self, training: int) -> bool:
        """Whether a training is done."""
        return self.store.check([f"over/{training}"])

    def enter(self) -> None:
        """Ask to be let in at the next round."""
        self._set(f"wish/{self.me.seat}", str(self.me.incarnation))

    def entered(self) -> None:
        """Ask no more. No key is deleted: whoever looks it up just then would read nothing, or wait for it."""
        self._set(f"wish/{self.me.seat}", _NO_WISH)

    def newcomers(self, seats: int, here: Sequence[Member]) -> list[Member]:
        """Return who has asked to be let in, of some seats, besides those who are here."""
        taken, found = {member.seat for member in here}, []
        for seat in set(range(seats)) - taken:
            wish = self._look(f"wish/{seat}")
            if wish not in (None, _NO_WISH) and self.lost(Member(seat, int(wish))) is None:
                found.append(Member(seat, int(wish)))
        return sorted(found)

    def lost(self, member: Member) -> str | None:
        """Return why a process is out, None if it is not."""
        return self._look(_out(member))

    def lose(self, member: Member, why: str) -> None:
        """Declare a process lost; its supervisor ends it."""
        self._set(_out(member), why)
        self._set(f"lost/{member.seat}/{member.incarnation}", why)

    def leave_out(self, epoch: int, member: Member, why: str) -> None:
        """Have an epoch decided without a process that lives."""
        self._set(f"late/{epoch}/{member.seat}", why)

    def latest(self) -> int:
        """Return the number of the latest epoch that has been decided, -1 before the first."""
        said = self._look("epoch")
        return -1 if said is None else int(said)

    def members(self, epoch: int) -> list[Member]:
        """Return who is in an epoch that has been decided."""
        return [Member(*each) for each in json.loads(self.store.get(f"members/{epoch}").decode())]

    def group(self, epoch: int) -> dist.Store:
        """Return where the members of an epoch find each other; another thread may wait there."""
        return dist.PrefixStore(f"group/{epoch}", self.store.clone())  # type: ignore[attr-defined]

    def first(self, seats: int) -> list[Member]:
        """Decide the first epoch, of all seats; waits for each."""
        self._set(f"start/{self.me.seat}", str(self.me.incarnation))
        return self._decide(0, [Member(seat, int(self.store.get(f"start/{seat}"))) for seat in range(seats)])

    def next(
        self, epoch: int, before: Sequence[Member], seats: int | None, waiting: Callable[[], None]
    ) -> list[Member]:
        """Decide an epoch: those members of one before who come here too, and newcomers.

        Waits for every member of ``before`` that is not known to be out.

        Args:
            epoch: its number.
            before: whom to wait for, in their order, which stays.
            seats: number of seats, to let newcomers in; None to let nobody in.
            waiting: called while it waits; may raise.
        """
        self._set(f"here/{epoch}/{self.me.seat}", str(self.me.incarnation))
        while not self.store.check([f"members/{epoch}"]):
            here = [member for member in before if self._is_here(epoch, member)]
            if all(member in here or self._is_out(epoch, member) for member in before):
                return self._decide(epoch, here + ([] if seats is None else self.newcomers(seats, here)))
            waiting()
            time.sleep(_POLL)
        return self.members(epoch)

    def _decide(self, epoch: int, members: Sequence[Member]) -> list[Member]:
        key = f"members/{epoch}"
        self.store.compare_set(key, "", json.dumps(members))
        decided = self.members(epoch)
        self._set("epoch", str(epoch))
        return decided

    def _is_here(self, epoch: int, member: Member) -> bool:
        return self._look(f"here/{epoch}/{member.seat}") == str(member.incarnation)

    def _is_out(self, epoch: int, member: Member) -> bool:
        return self.store.check([_out(member)]) or self.store.check([f"late/{epoch}/{member.seat}"])

    def _look(self, key: str) -> str | None:
        return self.store.get(key).decode() if self.store.check([key]) else None

    def _set(self, key: str, value: str) -> None:
        try:
            self.store.set(key, value)
        except RuntimeError as error:
            raise WorkerError(f"the place where workers meet is gone: {error}") from error


def _out(member: Member) -> str:
    return f"out/{member.seat}/{member.incarnation}"
