"""Where a cut network lives between rounds: every worker is home to shards of its tensors, and nobody holds it all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from isthmus.nets import Coupling, Subnetwork, trace
from isthmus.nets.norms import statistics
from isthmus.nets.ownership import Held, IndexMap, slice_tensor, view_slice, write_slice
from isthmus.nets.subnetwork import named_state
from isthmus.nets.writes import written
from isthmus.trainer.store.homes import Homes
from isthmus.trainer.store.keeping import Deal, Step, places, same_indices, step_between
from isthmus.trainer.store.pieces import Pieces
from isthmus.trainer.store.routes import Box, Routes, legs
from isthmus.trainer.strategies.interface import Worker
from isthmus.trainer.wire.exchange import Program, broadcast, scatter
from isthmus.trainer.wire.tensors import differing


class Store:
    """One worker's side of the store.

    Every round parameters travel, and buffers that a forward pass changes; back again only those of them that are
    trained. Other buffers (masks, tables) every worker has whole. The running statistics of batch norms are of no use
    to anyone but their own piece: they are measured anew on the merged network and do not travel. What a worker holds
    on in the next round, and nobody else needs, stays with it; :meth:`settle` brings it home.

    Attributes:
        coupling: of the network.
        homes: who is home to what.
        trained: names of the tensors that come back.
        statistics: names of those that norms measure.
    """

    def __init__(self, worker: Worker, wire: torch.dtype | None = None) -> None:
        self._worker = worker
        self.coupling: Coupling = worker.network.coupling
        self.statistics = statistics(self.coupling)
        entries = self.coupling.entries
        living = written(self.coupling) - self.statistics
        self._out = [name for name, entry in entries.items() if entry.is_parameter or name in living]
        self.trained = [name for name in self._out if entries[name].trained or name in living]
        self._still = [name for name in entries if name not in self._out]
        link = worker.link
        self.homes = Homes(link.workers, {name: entries[name].shape for name in self._out})
        types = {name: entries[name].dtype for name in self._out}
        self._pieces = Pieces(self.homes, types, link, worker.device, wire)
        self._short = wire is not None
        self._fixed: dict[str, Tensor] = {}
        self._steps: list[Step] = []
        self._routes: list[tuple[object, Routes]] = []

    def start(self, first: Deal | None = None) -> Program[dict[str, Tensor]]:
        """Return this worker's shards of the initial network.

        Args:
            first: the round whose pieces alone have weights to start with; entries that nobody holds in it are zero.
        """
        whole = self._worker.network.make()
        tensors = {name: tensor.detach() for name, tensor in named_state(whole)}
        alike = not (yield from differing(tensors, self._worker.link, self._worker.device))
        shards = {}
        for name in self._out:
            start, stop = self.homes.rows(name, self._worker.link.index)
            shard = tensors[name][start:stop] if tensors[name].dim() else tensors[name]
            if not alike:
                shard = yield from self._from_first(tensors[name], shard, name)
            if start < stop:
                shards[name] = shard.clone()
        lifted = [name for name, tensor in self.coupling.constants.items() if tensor.is_meta]
        if lifted:  # tensors made in forward: the skeleton could not know their values
            tensors |= self._retraced(whole).constants
        for name in (*self._still, *lifted):
            fixed = tensors[name].detach()
            if not alike:
                others = range(1, self._worker.link.workers)
                flat = yield from broadcast(fixed.reshape(-1), 0, self._worker.link, others)
                fixed = flat.view(fixed.shape)
            self._fixed[name] = fixed.clone()
        if lifted:
            constants = {**self.coupling.constants, **{name: self._fixed[name] for name in lifted}}
            self.coupling = replace(self.coupling, constants=constants)
        if first is not None:
            self._zero_unheld(shards, first)
        return shards

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
        if kept is not None:
            step = self.step(kept, deal)
            came = yield from self._fetch(shards, step, "out", step.outward, reference)
        elif self._short and after is deal:  # what will stay with the workers must come as it is
            step = self.step(deal, deal)
            came = yield from self._fetch(shards, step, "to keep", step.kept, None)
            came += yield from self._fetch(shards, step, "out", step.outward, reference)
        else:
            came = yield from self._fetch(shards, deal, "out", deal.boxes, reference)
        return self._reader(came, deal.map(self._worker.link.index), before)

    def _fetch(
        self,
        shards: Mapping[str, Tensor],
        of: Deal | Step,
        key: str,
        way: Callable[[int, Sequence[str]], list[Box]],
        reference: dict[str, Tensor] | None,
    ) -> Program[list[tuple[Box, Tensor]]]:
        """Return this worker's boxes and their values; rounded, where a reference is asked for."""
        boxes = [way(worker, self._out) for worker in range(self._worker.link.workers)]
        routes = self._routed((of, key), boxes)
        values = yield from self._pieces.outward(shards, routes, reference if self._short else None)
        return list(zip(routes.boxes, values, strict=True))

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
                whole = has[name] if stays else first.new_empty(Box(name, mine[name]).shape(self.homes))
                for box, value in found:
                    write_slice(whole, places(mine[name], box.held), value)
                return whole
            if name in self.homes.shapes or (
                name in self.statistics and name in has and same_indices(indices[name], held)
            ):
                return has[name]
            return slice_tensor(self._fixed[name], held)

        return read

    def close(
        self,
        shards: Mapping[str, Tensor],
        deal: Deal,
        kept: Deal | None,
        after: Deal | None,
        piece: Subnetwork | None,
        reference: Mapping[str, Tensor],
    ) -> Program[bool]:
        """Merge all workers' pieces into the shards; return whether something stayed with the workers.

        Args:
            shards: of this worker.
            deal: the round.
            kept: the round before, if it was opened with what had stayed.
            after: the next one, if what stays with a worker may stay.
            piece: of this worker, None if it holds nothing.
            reference: what came rounded when the round was opened.
        """
        step = None if after is None else self.step(deal, after)
        if step is None:
            yield from self._bring(shards, deal, "back", deal.boxes, deal, piece, reference)
            return False
        opened = None if kept is None else self.step(kept, deal)
        if self._short and opened is not None and not step.keeps:  # what did not come rounded goes home as it is
            yield from self._bring(shards, opened, "kept", opened.kept, deal, piece)
            yield from self._bring(shards, opened, "came", opened.outward, deal, piece, reference)
        else:
            yield from self._bring(shards, step, "back", step.homeward, deal, piece, reference)
        return step.keeps

    def settle(self, shards: Mapping[str, Tensor], deal: Deal, after: Deal, piece: Subnetwork) -> Program[None]:
        """Bring home what stayed with the workers after a round; they keep it too."""
        step = self.step(deal, after)
        yield from self._bring(shards, step, "kept", step.kept, deal, piece)

    def step(self, before: Deal, after: Deal) -> Step:
        """Return what moves between two rounds; the last two that were asked for are kept.

        With a shorter wire what stays must be the same in all rounds, for what comes is rounded, and what stays is not.
        """
        for step in self._steps:
            if step.before is before and step.after is after:
                return step
        stays = before is after or not self._short
        new = step_between(before, after, self.trained) if stays else Step(before, after, ({},) * len(before.units))
        self._steps = [new, *self._steps[:1]]
        return new

    def _bring(
        self,
        shards: Mapping[str, Tensor],
        of: Deal | Step,
        key: str,
        way: Callable[[int, Sequence[str]], list[Box]],
        deal: Deal,
        piece: Subnetwork | None,
        reference: Mapping[str, Tensor] | None = None,
    ) -> Program[None]:
        """Bring boxes of all workers home; changes alone of what came rounded, where a reference is given."""
        boxes = [way(worker, self.trained) for worker in range(self._worker.link.workers)]
        routes = self._routed((of, key), boxes)
        state = {} if piece is None else piece.state()
        values = self._parts(state, deal, routes.boxes)
        began = None
        if self._short and reference is not None:
            began = self._parts({**state, **reference}, deal, routes.boxes)
        yield from self._pieces.homeward(shards, values, routes, began)

    def _parts(self, tensors: Mapping[str, Tensor], deal: Deal, boxes: Sequence[Box]) -> list[Tensor]:
        """Return what tensors of a piece hold of some boxes, or are themselves."""
        mine, found = deal.map(self._worker.link.index), []
        for box in boxes:
            tensor = tensors[box.name].detach()
            fits = tuple(tensor.shape) == box.shape(self.homes)
            found.append(tensor if fits else view_slice(tensor, places(mine[box.name], box.held)))
        return found

    def _routed(self, key: tuple[object, str], boxes: Sequence[Sequence[Box]]) -> Routes:
        """Return the routes of some boxes; those of the last few rounds are kept."""
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
                left = torch.zeros_like(shard)
                for part in parts:
                    write_slice(left, part, view_slice(shard, part))
                shard.copy_(left)

    def _from_first(self, tensor: Tensor, shard: Tensor, name: str) -> Program[Tensor]:
        """Return this worker's shard of worker 0's tensor."""
        link = self._worker.link
        pieces = None
        if link.index == 0:
            ends = [self.homes.rows(name, worker) for worker in range(link.workers)]
            pieces = [(tensor[a:b] if tensor.dim() else tensor.view(1)[a:b]).reshape(-1) for a, b in ends]
        flat = yield from scatter(pieces, shard.reshape(-1), link)
        return flat.view(shard.shape)

    def _retraced(self, whole: nn.Module) -> Coupling:
        """Trace the network with its weights, for the values of what its forward makes."""
        example, device = self._worker.network.example, self._worker.device
        tensors = [torch.zeros(tensor.shape, dtype=tensor.dtype, device=device) for tensor in example.tensors]
        args, kwargs = example.call(tensors)
        return trace(whole, args, kwargs)
