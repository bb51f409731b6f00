"""When rounds open and close: the meetings in which workers agree on what all do next.

All workers meet in step: no worker enters an exchange that another does not. A worker comes to a meeting because it
wants something: to train (a round must be open for it), to have its gradients averaged, to merge after its local
steps, or something all do together (see the merged network, end). What happens is decided by all wishes:

- a round is open: gradients are averaged if anybody asks; otherwise it is closed, unless nobody has made a step in it;
- no round is open: if anybody wants to train, one is opened for all who do;
- if all want the same thing, and nothing is left to merge, they do it; a worker at its end takes part in everything.

So a worker whose loop is shorter merges what it has, and then takes part in the others' rounds without holding units.

A meeting and what follows is an *act*: it is done by all workers or by none. What it changes is put off until all have
told each other that they have come to its end. If a worker is lost before, those who are left agree on who goes on,
find out whether any of them knows the act to be done, in which case all have what they need, bring what the lost one
was home to to others, and do the act again if it was not done.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor

from isthmus.errors import WorkerError
from isthmus.trainer.local.heap import passing
from isthmus.trainer.rounds.members import Members
from isthmus.trainer.rounds.sound import fault, norm
from isthmus.trainer.strategies import Part, Round, State
from isthmus.trainer.strategies.interface import Commit
from isthmus.trainer.wire.exchange import Link, Pending, Program, all_gather
from isthmus.trainer.wire.tell import tell

Result = TypeVar("Result")
Done = tuple[Commit, Result]  # what is to be done once all have come as far, and what comes of it
_LET_IN, _WAIT, _STOP = object(), object(), object()  # what may come of a meeting instead of a round
_ASKS_IN, _ASKS_OUT = 1, 2  # somebody wants to be let in; somebody was told to stop
_PAUSE = 0.1  # seconds


class TooFew(WorkerError):
    """Fewer workers are left than are needed to go on."""


class Stop(Exception):
    """All workers have agreed to stop, as one of them was told to."""


class Wish(IntEnum):
    """Why a worker comes to a meeting."""

    TRAIN = 0
    AVERAGE = 1
    MERGE = 2
    GATHER = 3
    COLLECT = 4
    ACCOUNT = 5
    SETTLE = 6
    SEE = 7
    SEE_EVERYWHERE = 8
    EXPORT = 9
    SAVE = 10
    RESUME = 11
    END = 12

    @property
    def trains(self) -> bool:
        """Whether the worker is in the middle of its loop."""
        return self <= Wish.MERGE

    @property
    def call(self) -> str:
        """What a user called."""
        return _CALLS[self]


_CALLS = {
    Wish.TRAIN: "a step",
    Wish.AVERAGE: "a step",
    Wish.MERGE: "a step",
    Wish.GATHER: "gather()",
    Wish.COLLECT: "collect()",
    Wish.ACCOUNT: "account()",
    Wish.SETTLE: "merge()",
    Wish.SEE: "whole(on='root')",
    Wish.SEE_EVERYWHERE: "whole()",
    Wish.EXPORT: "export()",
    Wish.SAVE: "save()",
    Wish.RESUME: "resume()",
    Wish.END: "close()",
}


Does = Callable[[Wish], Program[Done[Any]]]


@dataclass
class Rounds:
    """One worker's rounds.

    Attributes:
        members: who takes part, and what happens when that changes.
        closed: called when a round is closed, with its number and, by seat, why blocks were refused.
        pace: returns how many seconds a step of this worker takes, 0 as long as that is not known.
    """

    members: Members
    closed: Callable[[int, Mapping[int, str]], None] = lambda number, refused: None
    pace: Callable[[], float] = lambda: 0.0
    _opened: bool = False  # whether a round was, in the last act

    @property
    def part(self) -> Part:
        """Its part in the strategy."""
        return self.members.part

    @property
    def link(self) -> Link:
        """To the others."""
        return self.members.link

    @property
    def device(self) -> torch.device:
        """Where the few numbers of a meeting are."""
        return self.members.device

    @property
    def state(self) -> State:
        """What it keeps between rounds."""
        return self.members.state

    @property
    def made(self) -> int:
        """Steps made in the open round."""
        return self.state.made

    @property
    def training(self) -> bool:
        """Whether a round is open in which this worker trains."""
        return self.state.round is not None and self.link.index in self.state.round.active

    def train(self) -> Program[None]:
        """Come to be in an open round."""
        while not self.training:
            yield from self._meet(Wish.TRAIN)

    def average(self) -> Program[None]:
        """Have this worker's gradients averaged with those of the others."""
        yield from self._meet(Wish.AVERAGE)

    def merge(self) -> Program[None]:
        """Close the open round."""
        number = self.state.number
        while self.state.number == number:
            yield from self._meet(Wish.MERGE)

    def together(self, wish: Wish, does: Does) -> Program[tuple[Wish, Any]]:
        """Take part in the others' rounds until all workers want the same thing, and do it; return it and its result.

        It is what this worker wants; at its end, it may be anything the others want, in which it takes part.

        Args:
            wish: what this worker wants.
            does: does this worker's part of what all want; may be called again if a worker is lost.
        """
        agreed: tuple[Wish, Any] | None = None
        while agreed is None:
            agreed = yield from self._meet(wish, does)
        return agreed

    def _meet(self, wish: Wish, does: Does | None = None) -> Program[tuple[Wish, Any] | None]:
        """Meet the others once, and do what follows; return what all have done together, if there is such a thing."""
        self._opened = False
        with ExitStack() as stack:
            found = yield from self.members.act(lambda: self._meeting(wish, does, stack))
        if self._opened and not self.members.overtaken:  # else others may not have begun it: they were not lost yet
            yield from self.part.ahead(self.state)
        if found is _LET_IN:
            if not self.members.overtaken:
                yield from self.members.change(admitting=True)
            return None
        if found is _WAIT:
            yield from self._wait_for_more()
            return None
        if found is _STOP:
            raise Stop
        return found

    def _wait_for_more(self) -> Program[None]:
        """Wait until another worker comes, but not for ever.

        Raises:
            TooFew: none has come.
        """
        until = time.monotonic() + self.members.patience

        def ask() -> Program[list[Tensor]]:
            flags = [self.members.wished, time.monotonic() > until]
            return (yield from all_gather(torch.tensor(flags).long().to(self.device), self.link, counted=False))

        while True:
            time.sleep(_PAUSE)
            told = yield from self.members.again(ask)
            if any(bool(each[0]) for each in told):
                yield from self.members.change(admitting=True)
            if not self.members.few:
                return
            if bool(told[0][1]):
                link, least = self.link, self.members.least
                raise TooFew(f"{link.workers} of {link.seats} workers are left, and --min-workers is {least}")

    def _meeting(self, wish: Wish, does: Does | None, stack: ExitStack) -> Program[Done[Any]]:
        asks = _ASKS_IN * self.members.wished + _ASKS_OUT * self.members.stopping()
        wrong = fault(self.part.block(), self.state.began) if self.training and self.made else None
        numbers = [wish, self.made, asks, wrong is not None, self.part.taken]
        told = torch.tensor(numbers, dtype=torch.int64, device=self.device)
        if wish is Wish.AVERAGE:
            return (yield from self._average(told))
        replies = yield from all_gather(told, self.link, counted=False)
        wishes = [Wish(int(reply[0])) for reply in replies]
        if self.state.round is not None:
            refused = [w for w, reply in enumerate(replies) if reply[3]]
            close = partial(self._close, refused, wrong or "", stack)
            return (yield from self._in_round(wishes, [int(reply[1]) for reply in replies], does, close))
        training = tuple(w for w, other in enumerate(wishes) if other.trains)
        asked = max(int(reply[2]) for reply in replies) if training else 0
        if asked >= _ASKS_OUT:
            return _nothing, _STOP
        if asked:
            return (yield from self.part.settle(self.state, viewing=False)), _LET_IN
        if training and self.members.few:
            return _nothing, _WAIT
        if training and self.part.measures:
            measured = yield from self.part.measure(self.state, self.pace())
            if measured is not None:
                return measured, None
        if training:
            stack.enter_context(passing(self._size))
            return (yield from self._open(training)), None
        return (yield from _done(_agreed(wishes), does))

    def _average(self, told: Tensor) -> Program[Done[None]]:
        """Have gradients averaged; while the meeting that says whose goes on, the first may travel."""
        pending = Pending(hop=not self.part.averages)
        yield from all_gather(told, self.link, counted=False, beside=pending)

        def averaging() -> Program[list[int]]:
            replies = yield pending
            found = [worker for worker, reply in enumerate(replies) if Wish(int(reply[0])) is Wish.AVERAGE]
            _check_taken({worker: int(replies[worker][4]) for worker in found}, self.link.present)
            return found

        yield from self.part.average(self.state, self.part.module, averaging)
        return _nothing, None

    def _open(self, active: tuple[int, ...]) -> Program[Commit]:
        """Open a round for some workers."""
        trains = self.link.index in active  # by its number now: it may be another when all have come as far
        opened = yield from self.part.open(self.state, Round(self.state.number, active))

        def commit() -> None:
            opened()
            self._opened = True
            if trains:
                self.state.began = norm(self.part.block())

        return commit

    def _close(self, refused: list[int], wrong: str, stack: ExitStack) -> Program[Commit]:
        """Close the round without the blocks of some workers; with all of them if no other is left.

        Args:
            refused: those workers.
            wrong: why this one is, if it is.
            stack: left when all is done.
        """
        round, link = self.state.round, self.link
        assert round is not None
        stack.enter_context(passing(self._size))
        if set(refused) == set(round.active):
            refused = []
        reasons = (yield from tell(wrong, link, self.device)) if refused else []
        seats = {link.present[worker]: str(reasons[worker]) for worker in refused}
        closed = yield from self.part.close(self.state, self.part.module, refused)

        def commit() -> None:
            closed()
            self.closed(round.number, seats)

        return commit

    @property
    def _size(self) -> int:
        return sum(tensor.nbytes for tensor in self.state.tensors.values())

    def _in_round(
        self, wishes: list[Wish], made: list[int], does: Does | None, close: Callable[[], Program[Commit]]
    ) -> Program[Done[tuple[Wish, Any] | None]]:
        averaging = [w for w, other in enumerate(wishes) if other == Wish.AVERAGE]
        if averaging:
            yield from self.part.average(self.state, self.part.module, partial(_known, averaging))
            return _nothing, None
        if wishes[0] in (Wish.GATHER, Wish.COLLECT, Wish.ACCOUNT) and len(set(wishes)) == 1:
            return (yield from _done(wishes[0], does))
        assert self.state.round is not None
        if any(made):
            return (yield from close()), None
        if any(other.trains for other in wishes) or len(self.state.round.active) < self.link.workers:
            return self._give_up, None  # it was opened for some, and nobody has made a step: open it for all who want
        return (yield from _done(_agreed(wishes), does))

    def _give_up(self) -> None:
        self.state.round = None


def _known(active: Sequence[int]) -> Program[Sequence[int]]:
    """Return what is known already."""
    yield from ()
    return active


def _check_taken(taken: Mapping[int, int], seats: Sequence[int]) -> None:
    """Refuse other batches of workers that are in the same step, where all must take the same."""
    for first, other in pairwise(taken):
        if taken[other] != taken[first]:
            raise WorkerError(
                f"worker {seats[other]} has taken another batch than worker {seats[first]}: with this strategy all "
                "must take the same ones, in the same order (training.batches gives them)"
            )


def _done(agreed: Wish, does: Does | None) -> Program[Done[tuple[Wish, Any]]]:
    """Do what all want."""
    assert does is not None
    commit, result = yield from does(agreed)
    return commit, (agreed, result)


def _nothing() -> None: ...


def _agreed(wishes: list[Wish]) -> Wish:
    """Return what all want; those at their end take part in whatever the others want.

    Raises:
        WorkerError: they want different things.
    """
    wanted: list[Wish] = sorted({other for other in wishes if other != Wish.END}) or [Wish.END]
    if len(wanted) > 1:
        first, second = (wishes.index(each) for each in wanted[:2])
        raise WorkerError(
            f"worker {first} has called {wanted[0].call} while worker {second} has called {wanted[1].call}: "
            "every worker must enter the same"
        )
    return wanted[0]
