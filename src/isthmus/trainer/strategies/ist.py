"""Independent Subnetwork Training: cut the units over the workers, train the pieces alone, merge."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor, nn

from isthmus.nets import NetPartition, Scaling, Subnetwork, scaling
from isthmus.nets.ownership import Held
from isthmus.nets.subnetwork import blank, build, rebuild, refill
from isthmus.strategies import IST
from isthmus.trainer.store.keeping import Deal, Units, same_indices
from isthmus.trainer.store.store import Store
from isthmus.trainer.strategies.interface import Merged, Needs, Round, State, Worker
from isthmus.trainer.wire.exchange import Program


class ISTPart:
    """One worker of IST. Between rounds every worker holds its shards of the network, in a round its piece too.

    Reference:
        Yuan, Wolfe, Dun, Tang, Kyrillidis, Jermaine, "Distributed learning of deep neural networks using independent
        subnet training" (VLDB 2022).
    """

    averages = False

    def __init__(self, strategy: IST, worker: Worker) -> None:
        self._strategy = strategy
        self._worker = worker
        self.store = Store(worker, worker.wire)
        self._piece: Subnetwork | None = None
        self._deals: list[tuple[Round, Deal]] = []
        self._scaled: tuple[int, Scaling] | None = None
        self.changed: frozenset[str] = frozenset()

    @property
    def module(self) -> nn.Module:
        """The piece this worker trains."""
        assert self._piece is not None
        return self._piece.module

    def needs(self, skeleton: nn.Module) -> Needs:
        """Return what it will hold: its rows of the network, the piece of the first round, what travels for it."""
        deal = self._deal(self._all(0))
        own = deal.units[self._worker.link.index]
        assert own is not None
        piece = build(*blank(self.store.coupling, self._worker.device), own)
        short = 0 if self._worker.wire is None else self._worker.wire.itemsize  # what came rounded is kept
        reference = short * sum(p.numel() for p in piece.module.parameters() if p.element_size() > short)
        return Needs(piece.module, self.store.kept_bytes() + reference, self.store.moved_bytes(deal))

    def start(self) -> Program[State]:
        """Make this worker's shards of the network."""
        starts_cut = self._strategy.dealt.zero_cross_blocks
        shards = yield from self.store.start(self._deal(self._all(0)) if starts_cut else None)
        return State(shards)

    def open(self, state: State, round: Round) -> Program[nn.Module]:
        """Bring the pieces of the round's partition from their homes."""
        deal = self._deal(round)
        if state.kept is not None and round != self._all(state.kept.number + 1):
            yield from self._bring_home(state, viewing=False)  # somebody takes no part in this round
            state.kept = None
        kept = None if state.kept is None else self._deal(state.kept)
        state.reference = {}
        after = self._deal(self._all(round.number + 1)) if deal.full else None
        if self._piece is not None:
            self._piece.module.zero_grad()  # of what it held: gone before the new piece comes
        read = yield from self.store.open(state.tensors, deal, kept, after, self._piece, state.reference)
        own = deal.units[self._worker.link.index]
        if own is not None:
            self._take(read, own)
            state.held = round
        state.round = round
        return self.module

    def close(self, state: State, module: nn.Module) -> Program[State]:
        """Merge the pieces into the shards."""
        round = state.round
        assert round is not None
        deal = self._deal(round)
        after = self._deal(self._all(round.number + 1)) if deal.full else None
        mine = None if deal.units[self._worker.link.index] is None else self._piece
        kept = None if state.kept is None else self._deal(state.kept)
        keeps = yield from self.store.close(state.tensors, deal, kept, after, mine, state.reference)
        stayed = round if keeps else None
        return State(state.tensors, round.number + 1, held=state.held, kept=stayed, behind=keeps)

    def settle(self, state: State) -> Program[None]:
        """Bring home what stayed with the workers, to be looked at."""
        yield from self._bring_home(state, viewing=True)

    def _bring_home(self, state: State, viewing: bool) -> Program[None]:
        if state.kept is not None and state.behind:
            assert self._piece is not None
            before, after = self._deal(state.kept), self._deal(self._all(state.kept.number + 1))
            yield from self.store.settle(state.tensors, before, after, self._piece, viewing)
            state.behind = False

    def average(self, state: State, module: nn.Module, active: object) -> Program[None]:
        """Do nothing: pieces have no gradients in common."""
        yield from ()

    def merged(self, state: State) -> Merged:
        """Return the scales that match the sums of the merged network to those of the pieces."""
        if not self._strategy.scales:
            return Merged(None)
        last = max(0, state.number - 1)
        if self._scaled is None or self._scaled[0] != last:
            self._scaled = last, scaling(self.store.coupling, self._partition(last))
        found = self._scaled[1]
        return Merged(None, found.evaluation, found.open)

    def restore(self, state: State, piece: Callable[[str, Held], Tensor]) -> None:
        """Take up the piece that was held."""
        if state.held is not None:
            own = self._deal(state.held).units[self._worker.link.index]
            assert own is not None
            self._take(piece, own)

    def _all(self, number: int) -> Round:
        """Return a round in which every worker trains."""
        return Round(number, tuple(range(self._worker.link.workers)))

    def _partition(self, number: int) -> NetPartition:
        link = self._worker.link
        return self.store.coupling.partition(link.workers, self._worker.seed, number, self._strategy.dealt)

    def _deal(self, round: Round) -> Deal:
        """Return what each worker holds in a round; the same object as before where it is the same."""
        for known, deal in self._deals:
            if known == round:
                return deal
        partition = self._partition(round.number)
        workers = range(self._worker.link.workers)
        new = Deal(self.store.coupling, [partition.of(w) if w in round.active else None for w in workers])
        deal = next((other for _, other in self._deals if other.equals(new)), new)
        self._deals = [(round, deal), *self._deals[:2]]
        return deal

    def _take(self, read: object, units: Units) -> None:
        """Give the module the worker's new units."""
        before, coupling, index = self._piece, self.store.coupling, self._worker.link.index
        if before is None:
            self._piece = build(read, coupling, units, index)  # type: ignore[arg-type]
            self.changed = frozenset()
            return
        if all(np.array_equal(indices, before.held[name]) for name, indices in units.items()):
            refill(before, read)  # type: ignore[arg-type]
            self.changed = frozenset()
            return
        self._piece = piece = rebuild(before, read, coupling, units)  # type: ignore[arg-type]
        self.changed = frozenset(
            name
            for name in {*before.indices, *piece.indices}
            if not (name in before.indices and name in piece.indices)
            or not same_indices(before.indices[name], piece.indices[name])
        )
