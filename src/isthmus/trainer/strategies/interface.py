"""What a strategy is made of while it runs: plain state, and two programs that open and close a round over it."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from isthmus.nets.pieces.ownership import Held
from isthmus.nets.pieces.pattern import Pattern
from isthmus.partitions.classes import ClassDeal
from isthmus.trainer.task.network import Network
from isthmus.trainer.wire.exchange import Driving, Link, Program
from isthmus.trainer.wire.meter import Traffic
from isthmus.trainer.wire.native import Native

if TYPE_CHECKING:
    from isthmus.trainer.store.rehome import Move, Saved
    from isthmus.trainer.store.serve import Housed


@dataclass(frozen=True)
class Round:
    """A round that is open.

    Attributes:
        number: 0, 1, ...
        active: the workers that train in it; the others only take part in the exchanges.
    """

    number: int
    active: tuple[int, ...]


@dataclass
class State:
    """What one worker keeps between rounds: plain data that can be saved.

    Attributes:
        tensors: parameters and buffers by name, or this worker's shards of them.
        number: of the round that is open, or else of the next.
        round: the one that is open, if one is.
        made: steps this worker has made in it.
        steps: made in all.
        held: the round whose units the module holds: the open one, or the last in which this worker trained.
        stale: workers whose tensors are behind those of the others.
        kept: the round before, where entries that nobody else needs stayed with the workers that hold them.
        behind: whether the shards lack what so stayed.
        reference: what this worker began the open round with, where changes travel (with a shorter wire).
        began: norm of its block when the open round was opened.
        capacities: of every seat, as measured, where that was asked for and done.
    """

    tensors: dict[str, Tensor]
    number: int = 0
    round: Round | None = None
    made: int = 0
    held: Round | None = None
    stale: frozenset[int] = frozenset()
    kept: Round | None = None
    behind: bool = False
    reference: dict[str, Tensor] = field(default_factory=dict)
    began: float = math.inf
    capacities: tuple[float, ...] | None = None
    steps: int = 0


@dataclass(frozen=True, eq=False)
class Merged:
    """The whole network between rounds.

    Attributes:
        model: the network with its merged weights; None where no worker holds it.
        scales: what the parameters named here are multiplied by when it is used (empty where nothing was cut).
        open: those of them that no norm follows, where a common factor matters.
        skeleton: returns it to look at, where no worker holds it and it is not of the network's own class.
        metadata: what a file of it says beside its tensors.
    """

    model: nn.Module | None
    scales: Mapping[str, Pattern] = field(default_factory=dict)
    open: tuple[str, ...] = ()
    skeleton: Callable[[], nn.Module] | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Needs:
    """What a worker's part will hold, known before it is there.

    Attributes:
        module: what it trains in the first round, without memory.
        kept: bytes kept between rounds beside it.
        moved: most bytes on the way at a time, when a round opens or closes, or in a step.
        held: what of the module this worker holds between steps, without memory; None: all of it.
    """

    module: nn.Module
    kept: int
    moved: int
    held: nn.Module | None = None


@dataclass(frozen=True, eq=False)
class Worker:
    """Who takes part: a link to the others, and the network that is trained.

    Attributes:
        link: number of this worker, number of workers, and the way to them.
        network: described, not held.
        seed: of the run.
        wire: the type in which floating-point numbers travel; None for their own.
        copies: whether workers keep copies of each other's rows, for the case that one is lost.
        ahead: whether what of a round's pieces nobody changes in the round before is sent in that one, beside steps.
        rounds: how many there will be, if that is known.
    """

    link: Link
    network: Network
    seed: int
    wire: torch.dtype | None = None
    copies: bool = False
    ahead: bool = False
    rounds: int | None = None

    @property
    def device(self) -> torch.device:
        """Where this worker computes."""
        return self.network.device


Commit = Callable[[], None]


class Part(Protocol):
    """One worker's part in a strategy.

    ``open`` and ``close`` are entered by all workers, by those that do not train in the round too. Between them stands
    the loop, ours or the user's. They, and ``settle`` and ``move``, change nothing that lasts: they return what is to
    be done, here and without others, once every worker has come as far. If a worker is lost before, that is forgotten.
    """

    @property
    def module(self) -> nn.Module:
        """The network this worker trains; one object for the whole run, its parameters change."""
        ...

    @property
    def called(self) -> nn.Module:
        """What the loop calls: the module, or what torch has put around it."""
        ...

    @property
    def native(self) -> Native | None:
        """The process group of torch's own parts, where they do the work."""
        ...

    def accumulating(self) -> AbstractContextManager[None]:
        """Leave gradients as they are in backward passes inside the block."""
        ...

    def needs(self, skeleton: nn.Module) -> Needs:
        """Return what it will hold; called before the start, where whatever is made takes no memory.

        Args:
            skeleton: of the whole network.
        """
        ...

    @property
    def deal(self) -> ClassDeal | None:
        """Who owns which classes, by seat, where outputs are cut by class."""
        ...

    @property
    def absent(self) -> Sequence[int]:
        """The classes that no worker has any more."""
        ...

    def targets(self, targets: Any) -> Any:
        """Return what is right for this worker's module, from what is right for the whole network."""
        ...

    def route(self, state: State, prior: float, drawn: float) -> None:
        """Note which share of all samples, and of those it trains on, are of this worker's own classes."""
        ...

    def start(self) -> Program[State]:
        """Do what has to be done before the first round."""
        ...

    def open(self, state: State, round: Round) -> Program[Commit]:
        """Give the module what this worker holds in a round."""
        ...

    def ahead(self, state: State) -> Program[None]:
        """Begin what may go on beside the steps of the round that was just opened; entered by all workers.

        Args:
            state: in the round.
        """
        ...

    def block(self) -> Mapping[str, Tensor]:
        """Return what of the module is merged when a round is closed, and looked at before: it may be refused."""
        ...

    def close(self, state: State, module: nn.Module, refused: Sequence[int]) -> Program[Commit]:
        """Bring what was trained in the open round back into the state.

        Args:
            state, module: of this worker.
            refused: workers whose blocks are no numbers, or too large: they count as if they had not trained, and go
                on with what the others have made. Never all that train.
        """
        ...

    @property
    def measures(self) -> bool:
        """Whether it waits to be told how fast the workers are."""
        ...

    def measure(self, state: State, seconds: float) -> Program[Commit | None]:
        """Have pieces fit the workers' speeds from the next round on; None as long as not all are known.

        Args:
            state: between rounds.
            seconds: of a step of this worker; 0 if that is not known yet.
        """
        ...

    def average(self, state: State, module: nn.Module, active: Callable[[], Program[Sequence[int]]]) -> Program[None]:
        """Average gradients over the active workers; only of strategies that ask for it in the middle of a step.

        Args:
            state, module: of this worker.
            active: returns who they are, of those that train in the round; entered once by every worker.
        """
        ...

    def step_traffic(self, module: nn.Module) -> Traffic:
        """Return what a worker moves in every step, beside what opens and closes a round.

        Args:
            module: what it trains; its tensors may have no values.
        """
        ...

    def round_traffic(self, module: nn.Module) -> Traffic:
        """Return what a worker moves when a round is closed beside our exchanges, through torch's own parts.

        Args:
            module: as above.
        """
        ...

    def attach(self, meet: Callable[[], Driving[None]]) -> None:
        """Be given what has this worker meet the others in the middle of a step; :meth:`average` follows in it."""
        ...

    def complete(self) -> None:
        """Refuse a step of the optimizer while what was begun in the middle of the step is not at its end.

        Raises:
            WorkerError: so it is.
        """
        ...

    @property
    def each_pass(self) -> bool:
        """Whether :meth:`step_traffic` is that of every pass of a step."""
        ...

    @property
    def taken(self) -> int:
        """A number that stands for the batch that it has taken; 0 where that may be any."""
        ...

    @property
    def averages(self) -> bool:
        """Whether gradients are averaged in every backward pass, while it goes on."""
        ...

    @property
    def changed(self) -> frozenset[str]:
        """Parameters of the module that stand for other entries than in the round before."""
        ...

    @property
    def common(self) -> Collection[str]:
        """Tensors of the state that are the same on all workers between rounds, where each has all of them."""
        ...

    @property
    def store(self) -> Housed | None:
        """Where the network's shards are between rounds; None where every worker holds all of it."""
        ...

    def beside(self) -> Sequence[Tensor]:
        """Return what is kept between rounds beside the state's tensors."""
        ...

    def settle(self, state: State, viewing: bool) -> Program[Commit]:
        """Bring the state up to date between rounds, before anything reads it; entered by all workers.

        Args:
            state: of this worker.
            viewing: whether that is for somebody who looks, and the next round goes on from what stayed with workers.
        """
        ...

    def come(self) -> State:
        """Return the state of a worker that comes when the others have begun; :meth:`move` fills it."""
        ...

    def move(self, state: State, move: Move, saved: Saved) -> Program[Commit]:
        """Go on with other workers, of whom the link knows; entered by all of them.

        Args:
            state: with the numbers of workers that were.
            move: who of those before is who now.
            saved: returns what reads rows that nobody has any more; all workers enter.

        Raises:
            WorkerError: there are none.
        """
        ...

    def merged(self, state: State) -> Merged:
        """Return the whole network, if this worker holds it, and its scales."""
        ...

    def restore(self, state: State, piece: Callable[[str, Held], Tensor]) -> None:
        """Have the module hold again what it held in ``state.held``.

        Args:
            state: whose tensors are what they were.
            piece: returns what the module held of a parameter or buffer, from its name and index sets.
        """
        ...


class Ours:
    """What is so of every part whose workers exchange by our own programs alone, between rounds."""

    native: Native | None = None
    deal: ClassDeal | None = None
    absent: Sequence[int] = ()
    each_pass: bool = False
    taken: int = 0

    def attach(self, meet: Callable[[], Driving[None]]) -> None:
        """Do nothing: it meets nobody in a step."""

    def complete(self) -> None:
        """Do nothing: nothing is begun."""

    def targets(self, targets: Any) -> Any:
        """Return them as they are."""
        return targets

    def route(self, state: State, prior: float, drawn: float) -> None:
        """Do nothing."""

    def accumulating(self) -> AbstractContextManager[None]:
        """Do nothing."""
        return nullcontext()

    def ahead(self, state: State) -> Program[None]:
        """Do nothing: all that the next round needs may be changed in this one."""
        yield from ()

    def step_traffic(self, module: nn.Module) -> Traffic:
        """Return nothing: workers meet between rounds."""
        return Traffic()

    def round_traffic(self, module: nn.Module) -> Traffic:
        """Return nothing: all that travels is exchanges of ours."""
        return Traffic()


Build = Callable[..., Part]


def moved(round: Round | None, move: Move) -> Round | None:
    """Return a round by the numbers that its workers have after a move, without those that are gone."""
    if round is None:
        return None
    now = [move.now(then) for then in round.active]
    return Round(round.number, tuple(sorted(each for each in now if each is not None)))


def closed(state: State) -> Commit:
    """Return what notes that the open round is closed, where no more is to be done."""
    round = state.round
    assert round is not None

    def commit() -> None:
        state.number, state.round, state.made = round.number + 1, None, 0

    return commit
