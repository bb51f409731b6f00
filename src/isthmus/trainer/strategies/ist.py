"""Independent Subnetwork Training: cut the units over the workers, train the pieces alone, merge."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor, nn

from isthmus.nets import NetPartition, Scaling, Subnetwork, scaling
from isthmus.nets.pieces.ownership import Held
from isthmus.nets.pieces.subnetwork import blank, build, rebuild, refill
from isthmus.partitions import Law
from isthmus.partitions.weighted import balance
from isthmus.strategies import IST
from isthmus.trainer.store.keeping import Deal, Step, Units, same_indices
from isthmus.trainer.store.rehome import Move, Saved
from isthmus.trainer.store.routes import Box
from isthmus.trainer.store.store import Drafts, Store
from isthmus.trainer.strategies.interface import Commit, Merged, Needs, Ours, Round, State, Worker, moved
from isthmus.trainer.task.effort import efforts
from isthmus.trainer.wire.exchange import Program, all_gather
from isthmus.trainer.wire.tell import tell


class ISTPart(Ours):
    """One worker of IST. Between rounds every worker holds its shards of the network, in a round its piece too.

    Reference:
        Yuan, Wolfe, Dun, Tang, Kyrillidis, Jermaine, "Distributed learning of deep neural networks using independent
        subnet training" (VLDB 2022).
    """

    averages = False

    def __init__(self, strategy: IST, worker: Worker) -> None:
        self._strategy = strategy
        self._law = strategy.dealt
        self._worker = worker
        self.store = Store(worker, worker.wire)
        self._piece: Subnetwork | None = None
        self._deals: list[tuple[Round, Deal]] = []
        self._scaled: tuple[int, Scaling] | None = None
        self._moved = False  # whether the open round was opened with workers that are gone
        self._apart: Step | None = None  # what of the open round did not come rounded
        self._stayed: Step | None = None  # what stayed with workers after the last round, and is not home
        self._dealt: tuple[Law, tuple[int, ...]] | None = None  # by which law, and to which seats, in the last round
        self.changed: frozenset[str] = frozenset()

    @property
    def common(self) -> tuple[str, ...]:
        """None: every worker has its rows."""
        return ()

    @property
    def module(self) -> nn.Module:
        """The piece this worker trains."""
        assert self._piece is not None
        return self._piece.module

    @property
    def called(self) -> nn.Module:
        """The module."""
        return self.module

    def beside(self) -> Sequence[Tensor]:
        """Return copies, and what every worker has whole."""
        return self.store.beside()

    def needs(self, skeleton: nn.Module) -> Needs:
        """Return what it will hold: its rows of the network, the piece of the first round, what travels for it."""
        deal = self._deal(self._all(0))
        own = deal.units[self._worker.link.index]
        assert own is not None
        piece = build(*blank(self.store.coupling, self._worker.device), own)
        short = 0 if self._worker.wire is None else self._worker.wire.itemsize  # what came rounded is kept
        reference = short * sum(p.numel() for p in piece.module.parameters() if p.element_size() > short)
        moved = self.store.moved_bytes(deal)
        if self._worker.ahead:
            moved += self.store.ahead_bytes(deal, self._deal(self._all(1)))
        return Needs(piece.module, self.store.kept_bytes() + reference, moved)

    def start(self) -> Program[State]:
        """Make this worker's shards of the network."""
        starts_cut = self._strategy.dealt.zero_cross_blocks
        shards = yield from self.store.start(self._deal(self._all(0)) if starts_cut else None)
        return State(shards)

    def come(self) -> State:
        """Have what every worker has; shards come with the move."""
        return State(self.store.come())

    def open(self, state: State, round: Round) -> Program[Commit]:
        """Bring the pieces of the round's partition from their homes."""
        deal, draft, link = self._deal(round), self.store.draft(state.tensors), self._worker.link
        own, present = deal.units[link.index], link.present
        stays = state.kept is not None and round == self._all(state.kept.number + 1)
        if state.kept is not None and not stays:
            yield from self._bring_home(draft, state, viewing=False)  # somebody takes no part in this round
        kept = self._deal(state.kept) if state.kept is not None and stays else None
        state.reference = {}  # of the round before: gone before the new piece comes
        reference: dict[str, Tensor] = {}
        after = self._deal(self._all(round.number + 1)) if deal.full else None
        if self._piece is not None:
            self._piece.module.zero_grad()  # of what it held: gone too
        read = yield from self.store.open(draft.shards, deal, kept, after, self._piece, reference)
        apart = self.store.apart(deal, kept, after)
        copied = None if self.store.copied else (yield from self.store.copy(draft.shards))

        def commit() -> None:
            draft.take()
            self.store.ahead = None
            if copied is not None:
                copied()
            if not stays:
                state.kept, state.behind = None, False
            state.reference, self._apart = reference, apart
            if own is not None:
                self._take(read, own)
                state.held = round
            state.round, state.made, self._dealt = round, 0, (self._law, present)

        return commit

    def ahead(self, state: State) -> Program[None]:
        """Begin to bring what the next round needs and nobody changes in this one, where that is asked for."""
        round, worker = state.round, self._worker
        assert round is not None
        last = worker.rounds is not None and round.number + 1 >= worker.rounds
        if not worker.ahead or last or round != self._all(round.number):
            return
        deal, after = self._deal(round), self._deal(self._all(round.number + 1))
        stays = deal is after or (worker.wire is not None and after is self._deal(self._all(round.number + 2)))
        if not stays:  # what is to stay with the workers must come as it is, and not rounded
            yield from self.store.send_ahead(state.tensors, deal, after)

    def block(self) -> dict[str, Tensor]:
        """Return what goes home of the piece."""
        assert self._piece is not None
        return {name: tensor for name, tensor in self._piece.state().items() if name in self.store.trained}

    def close(self, state: State, module: nn.Module, refused: Sequence[int]) -> Program[Commit]:
        """Merge the pieces into the shards.

        The units of a worker that is refused count as held by nobody. Then everything comes home: what had stayed with
        it, as it was after the round before, where another worker has a copy.
        """
        round, draft = state.round, self.store.draft(state.tensors)
        assert round is not None
        deal = self._deal(round)
        after = self._deal(self._all(round.number + 1)) if deal.full and not self._moved else None
        mine = None if deal.units[self._worker.link.index] is None else self._piece
        if refused and state.behind:
            assert self._stayed is not None
            yield from self.store.restore(draft, self._stayed, refused)
        keeps = yield from self.store.close(draft, deal, self._apart, after, mine, state.reference, refused)
        stayed = self.store.step(deal, after) if keeps and after is not None else None

        def commit() -> None:
            draft.take()
            self._stayed = stayed
            state.number, state.round, state.made, state.reference = round.number + 1, None, 0, {}
            state.kept, state.behind, self._moved = round if keeps else None, keeps, False
            if self._worker.link.index in refused and self._piece is not None:
                self.store.begin_statistics(self._piece)

        return commit

    def settle(self, state: State, viewing: bool) -> Program[Commit]:
        """Bring home what stayed with the workers."""
        draft = self.store.draft(state.tensors)
        yield from self._bring_home(draft, state, viewing)

        def commit() -> None:
            draft.take()
            state.behind = False
            if not viewing:
                state.kept = None

        return commit

    def _bring_home(self, draft: Drafts, state: State, viewing: bool) -> Program[None]:
        if state.kept is not None and state.behind:
            assert self._piece is not None
            assert self._stayed is not None
            yield from self.store.settle(draft, self._stayed, self._piece, viewing)

    def move(self, state: State, move: Move, saved: Saved) -> Program[Commit]:
        """Go on with other workers: shards get new homes, and whoever is in a round finishes it with its piece.

        What stayed with workers comes home as it was after the round before, from the copies where there are any: what
        has been made of it since comes with the piece.
        """
        boxes: list[list[Box]] = [[] for _ in move.was]
        values: list[Tensor] = []
        here, store = self._worker.link.index, self.store
        step = self._stayed if state.behind else None
        for then in range(move.before) if step is not None else ():
            keeper = None if store.copies is None else move.keeper(then)
            itself = move.now(then)
            first, second = (keeper, itself) if state.round is not None else (itself, keeper)
            source = second if first is None else first
            if source is not None:
                assert step is not None
                boxes[source] += step.kept(then, store.trained)
                if source == here and source == itself and (keeper is None or state.round is None):
                    assert self._piece is not None
                    values += store.stayed(step, then, self._piece)
                elif source == here:
                    assert store.copies is not None
                    values += store.copies.kept
        taken = yield from store.move(state.tensors, move, saved, boxes, values)
        capacities = state.capacities
        if self._strategy.dealt.measures:  # newcomers do not know
            told = yield from tell(capacities, self._worker.link, self._worker.device)
            capacities = next((tuple(each) for each in told if each is not None), None)
        pins = self._pins(state, move)

        def commit() -> None:
            taken()
            self._weigh(state, capacities)
            self._deals, self._apart = pins
            self._moved = state.round is not None
            state.kept, state.behind, state.round = None, False, moved(state.round, move)
            state.held = state.round

        return commit

    def _pins(self, state: State, move: Move) -> tuple[list[tuple[Round, Deal]], Step | None]:
        """Return the deal of the open round, and what of it did not come rounded, for those who go on."""
        if state.round is None:
            return [], None

        def left(deal: Deal) -> Deal:
            return Deal(deal.coupling, [None if then is None else deal.units[then] for then in move.was])

        now = moved(state.round, move)
        assert now is not None
        apart = self._apart
        if apart is not None:
            ways = tuple({} if then is None else apart.moved[then] for then in move.was)
            apart = Step(left(apart.before), left(apart.after), ways)
        return [(now, left(self._deal(state.round)) if apart is None else apart.after)], apart

    @property
    def measures(self) -> bool:
        """Whether the law does."""
        return self._law.measures

    def measure(self, state: State, seconds: float) -> Program[Commit | None]:
        """Deal by capacities with which all workers need about as long, from the next round on.

        How long a piece takes goes by its operations. A seat that is empty counts as the slowest.
        """
        link = self._worker.link
        own = torch.tensor([seconds], dtype=torch.float64, device=self._worker.device)
        told = yield from all_gather(own, link, counted=False)
        if not all(bool(each > 0) for each in told):
            return None
        capacities = balance([each.item() for each in told], partial(self._work, state.number))
        known = dict(zip(link.present, capacities, strict=True))
        by_seat = tuple(known.get(seat, min(capacities)) for seat in range(link.seats))
        settled = yield from self.settle(state, viewing=False)

        def commit() -> None:
            settled()
            self._weigh(state, by_seat)

        return commit

    def _work(self, number: int, capacities: Sequence[float]) -> list[float]:
        """Return how much each worker's piece would have to compute in a round."""
        workers, coupling = range(self._worker.link.workers), self.store.coupling
        law = self._strategy.dealt.measured(capacities)
        partition = coupling.partition(len(workers), self._worker.seed, number, law)
        deal = Deal(coupling, [partition.of(w) for w in workers])
        boxes = (deal.boxes(w, self.store.trained) for w in workers)
        return [sum(box.size * self._efforts[box.name] for box in own) for own in boxes]

    @cached_property
    def _efforts(self) -> Mapping[str, float]:
        """Operations of a step for each number of each parameter: the same on all workers."""
        coupling, workers = self.store.coupling, self._worker.link.workers
        units = coupling.partition(workers, self._worker.seed, 0, self._strategy.dealt).of(0)
        piece = build(*blank(coupling, torch.device("meta")), units)
        return efforts(piece.module, self._worker.network.example)

    def _weigh(self, state: State, capacities: tuple[float, ...] | None) -> None:
        """Deal by capacities from now on; None: those of the law."""
        state.capacities, self._deals = capacities, []
        self._law = self._strategy.dealt if capacities is None else self._strategy.dealt.measured(capacities)

    def average(self, state: State, module: nn.Module, active: object) -> Program[None]:
        """Do nothing: pieces have no gradients in common."""
        yield from ()

    def merged(self, state: State) -> Merged:
        """Return the scales that match the sums of the merged network to those of the pieces."""
        if not self._strategy.scales:
            return Merged(None)
        last = max(0, state.number - 1)
        if self._scaled is None or self._scaled[0] != last:
            self._scaled = last, scaling(self.store.coupling, self._partition(last, self._dealt))
        found = self._scaled[1]
        return Merged(None, found.evaluation, found.open)

    def restore(self, state: State, piece: Callable[[str, Held], Tensor]) -> None:
        """Take up the piece that was held."""
        known = state.capacities
        self._weigh(state, known if known is not None and len(known) == self._worker.link.seats else None)
        if state.held is not None:
            own = self._deal(state.held).units[self._worker.link.index]
            assert own is not None
            self._take(piece, own)
        self.store.copied = False
        if self.store.ahead is not None:
            self.store.ahead.stale = True
        if state.round is not None:
            deal, kept = self._deal(state.round), None if state.kept is None else self._deal(state.kept)
            after = self._deal(self._all(state.round.number + 1)) if deal.full else None
            self._apart = self.store.apart(deal, kept, after)
        if state.kept is not None:
            after = self._deal(self._all(state.kept.number + 1))
            self._stayed = self.store.step(self._deal(state.kept), after)

    def _all(self, number: int) -> Round:
        """Return a round in which every worker trains."""
        return Round(number, tuple(range(self._worker.link.workers)))

    def _partition(self, number: int, as_then: tuple[Law, tuple[int, ...]] | None = None) -> NetPartition:
        law, seats = as_then or (self._law, self._worker.link.present)
        dealt = law if seats == tuple(range(self._worker.link.seats)) else law.among(seats)
        return self.store.coupling.partition(len(seats), self._worker.seed, number, dealt)

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
        same = before.held.keys() == units.keys()
        if same and all(np.array_equal(indices, before.held[name]) for name, indices in units.items()):
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
