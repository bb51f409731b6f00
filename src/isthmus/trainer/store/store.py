"""Where a cut network lives between rounds: every worker is home to shards of its tensors, and nobody holds it all."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from isthmus.nets import Coupling, Subnetwork
from isthmus.nets.axes.structure import written
from isthmus.nets.pieces.ownership import Held, IndexMap, slice_tensor, view_slice, write_slice
from isthmus.nets.scale.norms import statistics
from isthmus.trainer.store.ahead import Ahead, assemble, divide
from isthmus.trainer.store.copies import Copies
from isthmus.trainer.store.draft import Draft
from isthmus.trainer.store.homes import Homes
from isthmus.trainer.store.keeping import Deal, Step, places, same_indices, step_between
from isthmus.trainer.store.pieces import Pieces
from isthmus.trainer.store.rehome import Move, Saved, rehome
from isthmus.trainer.store.routes import Box, Routes, legs
from isthmus.trainer.store.start import overwrite, take
from isthmus.trainer.strategies.interface import Commit, Worker
from isthmus.trainer.wire.exchange import Program
from isthmus.trainer.wire.tensors import differing, send_tensors


@dataclass
class Drafts:
    """What one worker's rows, and the copies it keeps of another's, are to become.

    Attributes:
        of: the copies.
        shards, copies: rows.
        kept: values of what the other worker keeps for itself; None if they are as before.
    """

    of: Copies | None
    shards: Draft
    copies: Draft
    kept: Sequence[Tensor] | None = None

    def take(self) -> None:
        """Make it so."""
        self.shards.take()
        self.copies.take()
        if self.of is not None and self.kept is not None:
            self.of.kept = self.kept


class Store:
    """One worker's side of the store.

    Every round parameters travel, and buffers that a forward pass changes; back again only those of them that are
    trained. Other buffers (masks, tables) every worker has whole. The running statistics of batch norms are of no use
    to anyone but their own piece: they are measured anew on the merged network and do not travel. What a worker holds
    on in the next round, and nobody else needs, stays with it; :meth:`settle` brings it home.

    Attributes:
        coupling: of the network.
        homes: who is home to what.
        types: of number, of what has homes.
        fixed: tensors that do not change, and those that norms measure as they are at first: every worker has them.
        trained: names of the tensors that come back.
        statistics: names of those that norms measure.
        copies: of another worker's shards, if they are kept.
        copied: whether these are up to date; if not, they are made anew when the next round is opened.
        ahead: what is on its way for the next round.
    """

    def __init__(self, worker: Worker, wire: torch.dtype | None = None) -> None:
        self._worker = worker
        self.coupling: Coupling = worker.network.coupling
        self.statistics = statistics(self.coupling)
        entries = self.coupling.entries
        living = written(self.coupling) - self.statistics
        self._out = [name for name, entry in entries.items() if entry.is_parameter or name in living]
        self.trained = [name for name in self._out if entries[name].trained or name in living]
        self._frozen = [name for name in self._out if name not in self.trained]
        self._still = [name for name in entries if name not in self._out]
        link = worker.link
        self._shapes = {name: entries[name].shape for name in self._out}
        self.homes = Homes(link.workers, self._shapes)
        self.types = {name: entries[name].dtype for name in self._out}
        self._wire = wire
        self._pieces = Pieces(self.homes, self.types, link, worker.device, wire)
        self._short = wire is not None
        self.copies = Copies(link, worker.device) if worker.copies and link.elastic else None
        self.copied = True
        self.ahead: Ahead | None = None
        self.fixed: dict[str, Tensor] = {}
        self._steps: list[Step] = []
        self._routes: list[tuple[object, Routes]] = []

    def start(self, first: Deal | None = None) -> Program[dict[str, Tensor]]:
        """Return this worker's shards of the initial network.

        Args:
            first: the round whose pieces alone have weights to start with; entries that nobody holds in it are zero.
        """
        link, initial = self._worker.link, self._worker.network.initial
        shards = yield from take(initial, self._own, link, self._worker.device)
        others = yield from differing(initial.mark(), link, self._worker.device)
        if others:
            yield from overwrite(self._worker.network, link, self.homes, shards, self.fixed, others)
        self.coupling = self._worker.network.valued
        if first is not None:
            self._zero_unheld(shards, first)
        copied = yield from self.copy(shards)
        copied()
        return shards

    def come(self) -> dict[str, Tensor]:
        """Have what every worker has whole, when the others have begun; return no shards yet."""
        self._own()
        self._worker.network.initial.drop()
        self.coupling = self._worker.network.valued
        return {}

    def draft(self, shards: dict[str, Tensor]) -> Drafts:
        """Return what this worker's shards, and the copies it keeps, are to become."""
        direct, copies = self._direct, {} if self.copies is None else self.copies.shards
        return Drafts(self.copies, Draft(shards, direct), Draft(copies, direct))

    @property
    def names(self) -> Collection[str]:
        """Of all tensors of the network."""
        return self.coupling.entries

    def beside(self) -> list[Tensor]:
        """Return what is kept between rounds beside this worker's shards."""
        copies = [] if self.copies is None else [*self.copies.shards.values(), *self.copies.kept]
        return [*self.fixed.values(), *copies]

    def copy(self, shards: Mapping[str, Tensor]) -> Program[Commit]:
        """Make the copies anew."""
        copies = self.copies
        if copies is None or not copies.needed:
            return lambda: None
        rows = yield from copies.whole(shards, self.homes, self.types)

        def commit() -> None:
            copies.shards, copies.kept, self.copied = rows, (), True

        return commit

    @property
    def _direct(self) -> bool:
        """Whether rows are merged in place, and no room is needed for new ones beside the old.

        So where nobody can be lost, and where no copies are kept: then a lost worker's rows are lost with it, and homes
        that had got its block keep it, others do not. Merging the others' once more gives the same, unless it is
        changes that travel.
        """
        return not self._worker.link.elastic or (self.copies is None and not self._short)

    def kept_bytes(self) -> int:
        """Return the bytes of what this worker will be home to or copy, and of what every worker has whole."""
        here, entries = self._worker.link.index, self.coupling.entries
        total = sum(entries[n].dtype.itemsize * math.prod(entries[n].shape) for n in self._still)
        for name in self._out:
            total += self._home_bytes(name, here)
            if self.copies is not None and self.copies.needed:
                total += self._home_bytes(name, self.copies.before)
        return total

    def _home_bytes(self, name: str, worker: int) -> int:
        shape = self.homes.shard(name, worker)
        return 0 if shape is None else self.types[name].itemsize * math.prod(shape)

    def moved_bytes(self, deal: Deal) -> int:
        """Return the most bytes on the way at a time when all of a round's pieces come or go: sent, received, and what
        shards are to become, and copies, before all workers have come as far."""
        link = self._worker.link
        routes = self._pieces.routes([deal.boxes(worker, self._out) for worker in range(link.workers)])
        drafts = 0
        if not self._direct and link.workers > 1:
            drafts = sum(self._home_bytes(name, link.index) for name in self.trained)
            if self.copies is not None:
                drafts += sum(self._home_bytes(name, self.copies.before) for name in self.trained)
        return drafts + self._pieces.most_bytes(routes)

    def open(
        self,
        shards: Mapping[str, Tensor],
        deal: Deal,
        kept: Deal | None,
        after: Deal | None,
        before: Subnetwork | None,
        reference: dict[str, Tensor],
    ) -> Program[Callable[[str, Held], Tensor]]:
        """Bring this worker's piece from the homes; return where a subnetwork is built from.

        Args:
            shards: of this worker.
            deal: the round.
            kept: the round before, if what nobody else needs stayed with the workers.
            after: the next round, if what stays with a worker may stay.
            before: what this worker trained last. Running statistics go on from it where the worker keeps the units.
            reference: is given what came rounded.
        """
        early = yield from self._landed(kept, deal)
        if kept is not None:
            step = self.step(kept, deal)
            came = yield from self._fetch(shards, step, "out", step.outward, reference, early)
        elif self._short and after is deal:  # what will stay with the workers must come as it is
            step = self.step(deal, deal)
            came = yield from self._fetch(shards, step, "to keep", step.kept, None)
            came += yield from self._fetch(shards, step, "out", step.outward, reference)
        else:
            came = yield from self._fetch(shards, deal, "out", deal.boxes, reference, early)
        return self._reader(came, deal.map(self._worker.link.index), before)

    def _fetch(
        self,
        shards: Mapping[str, Tensor],
        of: Deal | Step,
        key: str,
        way: Callable[[int, Sequence[str]], list[Box]],
        reference: dict[str, Tensor] | None,
        early: Sequence[tuple[Box, Tensor]] | None = None,
    ) -> Program[list[tuple[Box, Tensor]]]:
        """Return this worker's boxes and their values; rounded, where a reference is asked for.

        Args:
            shards: of this worker.
            of, key: by which the routes are found again.
            way: returns the boxes of a worker.
            reference: as for :meth:`open`.
            early: what of them has come before, where it was sent ahead.
        """
        boxes = [way(worker, self._out) for worker in range(self._worker.link.workers)]
        known = reference if self._short else None
        if early is None:
            routes = self._routed((of, key), boxes)
            return list(zip(routes.boxes, (yield from self._pieces.outward(shards, routes, known)), strict=True))
        assert self.ahead is not None
        round = self.ahead.step.before
        rest = [[part for box in each for part in divide(box, round, self.trained)[1]] for each in boxes]
        routes = self._pieces.routes(rest)
        came = yield from self._pieces.outward(shards, routes, None if known is None else {})
        mine = boxes[self._worker.link.index]
        values = assemble(mine, [*early, *zip(routes.boxes, came, strict=True)])
        if known is not None:
            self._pieces.note(known, mine, values)
        return list(zip(mine, values, strict=True))

    def send_ahead(self, shards: Mapping[str, Tensor], deal: Deal, after: Deal) -> Program[None]:
        """Begin to bring what the next round needs and nobody changes in this one.

        Args:
            shards: of this worker.
            deal: the round that has been opened.
            after: the next one.
        """
        routes = self._ahead(step := self.step(deal, after))
        if routes.groups:
            self.ahead = Ahead(step, routes, (yield from self._pieces.begin(shards, routes, self._short)))

    def ahead_bytes(self, deal: Deal, after: Deal) -> int:
        """Return the bytes that are on the way, sent and received, while a round's steps are made."""
        groups = self._ahead(self.step(deal, after)).groups
        ways = ((group.dtype, legs) for group in groups for legs in (*group.outgoing, *group.incoming))
        return sum(dtype.itemsize * leg.size for dtype, legs in ways for leg in legs)

    def _ahead(self, step: Step) -> Routes:
        """Return the routes of what nobody changes in the first of two rounds, and the second needs."""
        ways = [step.outward(worker, self._out) for worker in range(self._worker.link.workers)]
        boxes = [[part for box in way for part in divide(box, step.before, self.trained)[0]] for way in ways]
        return self._pieces.routes(boxes)

    def _landed(self, kept: Deal | None, deal: Deal) -> Program[list[tuple[Box, Tensor]] | None]:
        """Return what was sent ahead for a round, None if nothing was; what serves another is received too."""
        ahead = self.ahead
        if ahead is None:
            return None
        values = yield from self._pieces.land(ahead.routes, ahead.coming)
        return list(zip(ahead.routes.boxes, values, strict=True)) if ahead.serves(kept, deal) else None

    def _reader(
        self, came: Sequence[tuple[Box, Tensor]], mine: IndexMap, before: Subnetwork | None
    ) -> Callable[[str, Held], Tensor]:
        """Return where a piece's tensors come from: what came, put into what stayed; what is fixed."""
        has = {} if before is None else {name: tensor.detach() for name, tensor in before.state().items()}
        indices = {} if before is None else before.indices
        parts: dict[str, list[tuple[Box, Tensor]]] = {}
        for box, value in came:
            parts.setdefault(box.name, []).append((box, value))

        def read(name: str, held: Held) -> Tensor:
            found = parts.get(name, [])
            if len(found) == 1 and found[0][0].held is mine[name]:
                return found[0][1]
            if found:
                first = found[0][1]
                stays = name in has and same_indices(indices[name], held)
                whole = has[name] if stays else first.new_empty(Box(name, mine[name], self.homes.shapes[name]).shape)
                for box, value in found:
                    write_slice(whole, places(mine[name], box.held), value)
                return whole
            if name in self.homes.shapes or (
                name in self.statistics and name in has and same_indices(indices[name], held)
            ):
                return has[name]
            return slice_tensor(self.fixed[name], held)

        return read

    def close(
        self,
        draft: Drafts,
        deal: Deal,
        opened: Step | None,
        after: Deal | None,
        piece: Subnetwork | None,
        reference: Mapping[str, Tensor],
        refused: Sequence[int] = (),
    ) -> Program[bool]:
        """Merge all workers' pieces into the shards; return whether something stayed with the workers.

        Args:
            draft: of this worker's shards.
            deal: the round.
            opened: of :meth:`apart`, for this round.
            after: the next one, if what stays with a worker may stay.
            piece: of this worker, None if it holds nothing.
            reference: what came rounded when the round was opened.
            refused: workers whose pieces are not merged; if there are any, nothing stays.
        """
        step = None if after is None else self.step(deal, after)
        if step is not None and step.keeps and not refused:
            yield from self._bring(draft, step, "back", step.homeward, deal, piece, reference)
            if self.copies is not None and self.copies.needed:
                here, before = self._worker.link.index, self.copies.before
                own = [] if piece is None else self.stayed(step, here, piece)
                draft.kept = yield from self.copies.keep(own, step.kept(before, self.trained), self.types)
            return True
        draft.kept = ()
        if opened is not None:  # what did not come rounded goes home as it is
            yield from self._bring(draft, opened, "kept", opened.kept, deal, piece, without=refused)
            yield from self._bring(draft, opened, "came", opened.outward, deal, piece, reference, without=refused)
        else:
            yield from self._bring(draft, deal, "back", deal.boxes, deal, piece, reference, without=refused)
        return False

    def apart(self, deal: Deal, kept: Deal | None, after: Deal | None) -> Step | None:
        """Return the step whose kept entries did not come rounded when a round was opened so; None if all did."""
        before = deal if kept is None and after is deal else kept
        return self.step(before, deal) if self._short and before is not None else None

    def restore(self, draft: Drafts, step: Step, workers: Sequence[int]) -> Program[None]:
        """Bring home what had stayed with some workers, as it was, from those that keep copies of it; if any do."""
        copies, boxes = self.copies, list[list[Box]]([] for _ in range(self._worker.link.workers))
        if copies is None or not copies.needed:
            return
        for worker in workers:
            boxes[(worker + 1) % len(boxes)] = step.kept(worker, self.trained)
        routes = self._pieces.routes(boxes)
        yield from self._pieces.homeward(draft.shards, copies.kept if copies.before in workers else (), routes)
        yield from copies.follow(draft.shards, draft.copies, routes, None)

    def begin_statistics(self, piece: Subnetwork) -> None:
        """Have the running statistics of a piece's norms be what they were at the start."""
        for name, tensor in piece.state().items():
            if name in self.statistics:
                tensor.copy_(slice_tensor(self.fixed[name], piece.indices[name]))

    def settle(self, draft: Drafts, step: Step, piece: Subnetwork, viewing: bool) -> Program[None]:
        """Bring home what stayed with the workers after a round; they keep it too."""
        draft.kept = ()
        yield from self._bring(draft, step, "kept", step.kept, step.before, piece, viewing=viewing)

    def stayed(self, step: Step, worker: int, piece: Subnetwork) -> list[Tensor]:
        """Return the values of what stays with a worker, whose piece is here."""
        return _parts(piece.state(), step.before.map(worker), step.kept(worker, self.trained))

    def move(
        self,
        shards: dict[str, Tensor],
        move: Move,
        saved: Saved,
        boxes: Sequence[Sequence[Box]],
        values: Sequence[Tensor],
    ) -> Program[Commit]:
        """Go on with other workers.

        Args:
            shards: of this worker, by the homes that were.
            move: from whom to whom.
            saved: returns what reads rows that nobody has any more.
            boxes: of every worker, what it knows better than the homes.
            values: of this worker's boxes.
        """
        link, device, copies = self._worker.link, self._worker.device, self.copies
        before, now = Homes(move.before, self._shapes), Homes(link.workers, self._shapes)
        was, rows_of = move.was[link.index], {}
        if was is not None:
            rows_of[was] = shards
            if copies is not None and move.before > 1:
                rows_of[(was - 1) % move.before] = copies.shards
        sources = [move.now(then) for then in range(move.before)]
        if copies is not None:
            sources = [move.keeper(then) if source is None else source for then, source in enumerate(sources)]
        rows = yield from rehome(move, (before, now), self.types, rows_of, sources, saved, link, device)
        pieces = Pieces(now, self.types, link, device, self._wire)
        if any(boxes):
            yield from pieces.homeward(Draft(rows, direct=True), values, pieces.routes(boxes))
        yield from send_tensors(self.fixed, 0, link, device, move.newcomers)
        copied = (yield from copies.whole(rows, now, self.types)) if copies is not None and copies.needed else {}

        def commit() -> None:
            self.homes, self._pieces, self._steps, self._routes, self.ahead = now, pieces, [], [], None
            shards.clear()
            shards.update(rows)
            if copies is not None:
                copies.shards, copies.kept = copied, ()

        return commit

    def step(self, before: Deal, after: Deal) -> Step:
        """Return what moves between two rounds; the last two that were asked for are kept.

        With a shorter wire what stays must be the same in all rounds, for what comes is rounded, and what stays is not.
        """
        for step in self._steps:
            if step.before is before and step.after is after:
                return step
        if before is after or not self._short:
            new = step_between(before, after, self.trained, self._frozen)
        else:
            new = Step(before, after, ({},) * len(before.units))
        self._steps = [new, *self._steps[:1]]
        return new

    def _bring(
        self,
        draft: Drafts,
        of: Deal | Step,
        key: str,
        way: Callable[[int, Sequence[str]], list[Box]],
        deal: Deal,
        piece: Subnetwork | None,
        reference: Mapping[str, Tensor] | None = None,
        viewing: bool = False,
        without: Sequence[int] = (),
    ) -> Program[None]:
        """Bring boxes of all workers home, but for some; changes alone of what came rounded, given a reference."""
        workers = range(self._worker.link.workers)
        boxes = [[] if worker in without else way(worker, self.trained) for worker in workers]
        routes = self._pieces.routes(boxes) if without else self._routed((of, key), boxes)
        state = {} if piece is None else piece.state()
        mine = deal.map(self._worker.link.index)
        values = _parts(state, mine, routes.boxes)
        began = None
        if self._short and reference is not None:
            began = _parts({**state, **reference}, mine, routes.boxes)
        yield from self._pieces.homeward(draft.shards, values, routes, began, viewing)
        if self.copies is not None and self.copies.needed:
            known = values if began is None else None
            yield from self.copies.follow(draft.shards, draft.copies, routes, known)

    def _routed(self, key: tuple[object, str], boxes: Sequence[Sequence[Box]]) -> Routes:
        """Return the routes of some boxes; those of the last few rounds are kept."""
        if isinstance(key[0], Deal) and self.trained == self._out:
            key = (key[0], "both")  # everything, there and back
        for known, routes in self._routes:
            if known == key:
                return routes
        routes = self._pieces.routes(boxes)
        self._routes = [(key, routes), *self._routes[:3]]
        return routes

    def _zero_unheld(self, shards: Mapping[str, Tensor], deal: Deal) -> None:
        """Set to zero what no worker holds of the parameters."""
        names = [name for name in shards if self.coupling.entries[name].is_parameter]
        here, workers = self._worker.link.index, range(self._worker.link.workers)
        held: dict[str, list[Held]] = {name: [] for name in names}
        for worker in workers:
            for leg in legs(deal.boxes(worker, names), here, self.homes):
                held[leg.name].append(leg.held)
        with torch.no_grad():
            for name, parts in held.items():
                shard = shards[name]
                if any(all(indices is None for indices in part) for part in parts):
                    continue
                unheld = torch.ones_like(shard, dtype=torch.bool)
                for part in parts:
                    write_slice(unheld, part, torch.zeros_like(view_slice(unheld, part)))
                shard.masked_fill_(unheld, 0.0)

    def _own(self) -> dict[str, Tensor]:
        """Return this worker's shards of the initial values; keep what every worker has whole."""
        network, initial, here = self._worker.network, self._worker.network.initial, self._worker.link.index
        entries = self.coupling.entries
        for name in self._still:
            count = entries[name].shape[0] if entries[name].shape else 1
            self.fixed[name] = initial.rows(name, 0, count).to(network.device)
        rows = {name: self.homes.rows(name, here) for name in self._out}
        return {n: initial.rows(n, *own).to(network.device) for n, own in rows.items() if own[0] < own[1]}


def _parts(tensors: Mapping[str, Tensor], mine: IndexMap, boxes: Sequence[Box]) -> list[Tensor]:
    """Return what tensors of a piece hold of some boxes, or are themselves."""
    found = []
    for box in boxes:
        tensor = tensors[box.name].detach()
        fits = tuple(tensor.shape) == box.shape
        found.append(tensor if fits else view_slice(tensor, places(mine[box.name], box.held)))
    return found
