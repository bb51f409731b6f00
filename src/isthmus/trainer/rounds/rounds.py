"""When rounds open and close: the meetings in which workers agree on what all do next.

All workers meet in step: no worker enters an exchange that another does not. A worker comes to a meeting because it
wants something: to train (a round must be open for it), to have its gradients averaged, to merge after its local
steps, or something all do together (see the merged network, end). What happens is decided by all wishes:

- a round is open: gradients are averaged if anybody asks; otherwise it is closed, unless nobody has made a step in it;
- no round is open: if anybody wants to train, one is opened for all who do;
- if all want the same thing, and nothing is left to merge, they do it; a worker at its end takes part in everything.

So a worker whose loop is shorter merges what it has, and then takes part in the others' rounds without holding units.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import torch

from isthmus.errors import WorkerError
from isthmus.trainer.local.heap import passing
from isthmus.trainer.strategies import Part, Round, State
from isthmus.trainer.wire.exchange import Link, Program, all_gather


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


@dataclass
class Rounds:
    """One worker's rounds.

    Attributes:
        part: its part in the strategy.
        link: to the others.
        device: where the few numbers of a meeting are.
        state: what it keeps between rounds.
        made: steps made in the open round.
    """

    part: Part
    link: Link
    device: torch.device
    state: State
    made: int = 0

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

    def together(self, wish: Wish) -> Program[Wish]:
        """Take part in the others' rounds until all workers want the same thing, and return it.

        It is what this worker wants; at its end, it may be anything the others want, in which it takes part.
        """
        agreed = None
        while agreed is None:
            agreed = yield from self._meet(wish)
        return agreed

    def _meet(self, wish: Wish) -> Program[Wish | None]:
        """Meet the others once, and do what follows; return what all want to do together, if there is such a thing."""
        told = torch.tensor([wish, self.made], dtype=torch.int64, device=self.device)
        replies = yield from all_gather(told, self.link, counted=False)
        wishes = [Wish(int(reply[0])) for reply in replies]
        made = [int(reply[1]) for reply in replies]
        if self.state.round is not None:
            return (yield from self._in_round(wishes, made))
        training = tuple(w for w, other in enumerate(wishes) if other.trains)
        if training:
            yield from self._open(training)
            return None
        return _agreed(wishes)

    @property
    def _size(self) -> int:
        return sum(tensor.nbytes for tensor in self.state.tensors.values())

    def _in_round(self, wishes: list[Wish], made: list[int]) -> Program[Wish | None]:
        averaging = [w for w, other in enumerate(wishes) if other == Wish.AVERAGE]
        if averaging:
            yield from self.part.average(self.state, self.part.module, averaging)
            return None
        if wishes[0] in (Wish.GATHER, Wish.COLLECT, Wish.ACCOUNT) and len(set(wishes)) == 1:
            return wishes[0]
        assert self.state.round is not None
        if any(made):
            yield from self._close()
            return None
        if any(other.trains for other in wishes) or len(self.state.round.active) < self.link.workers:
            self.state.round = None  # it was opened for some, and nobody has made a step: open it for all who want
            return None
        return _agreed(wishes)

    def _open(self, training: tuple[int, ...]) -> Program[None]:
        with passing(self._size):
            yield from self.part.open(self.state, Round(self.state.number, training))
        self.made = 0

    def _close(self) -> Program[None]:
        with passing(self._size):
            self.state = yield from self.part.close(self.state, self.part.module)
        self.made = 0


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
