"""Where a cut network lives between rounds: every worker is home to shards of its tensors, and nobody holds it all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from isthmus.nets import Coupling, Subnetwork, trace
from isthmus.nets.norms import statistics
from isthmus.nets.ownership import Held, slice_tensor, view_slice, write_slice
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
        before: Subnetwork | None,
        reference: dict[str, Tensor],
    ) -> Program[Callable[[str, Held], Tensor]]:
        """Bring this worker's piece from the homes; return where a subnetwork is built from.

        Args:
            shards: of this worker.
            deal: the round.
            kept: the round before, if what nobody else needs stayed with the workers.
            before: what this worker trained last. Running statistics go on from it where the worker keeps the units.
            reference: is given what came rounded.
        """
        step = None if kept is None else self.step(kept, deal)
        here = self._worker.link.index
        workers = range(self._worker.link.workers)
        boxes = [step.outward(w, self._out) if step else deal.boxes(w, self._out) for w in workers]
        values = yield from self._pieces.outward(shards, self._routed((step or deal, "out"), boxes), reference)
        came = {box.name: (box, value) for box, value in zip(boxes[here], values, strict=True)}
        has = {} if before is None else {name: tensor.detach() for name, tensor in before.state().items()}
        indices = {} if before is None else before.indices

        def read(name: str, held: Held) -> Tensor:
            if name in came:
                box, value = came[name]
                if step is None or name not in step.moved[here]:
                    return value
                write_slice(has[name], places(deal.map(here)[name], box.held), value)
                return has[name]
            if name in self.homes.shapes:
                return has[name]
            if name in self.statistics and name in has and same_indices(indices[name], held):
                return has[name]
            return slice_tensor(self._fixed[name], held)

        return read

    def close(
        self,
        shards: Mapping[str, Tensor],
        deal: Deal,
        after: Deal | None,
        piece: Subnetwork | None,
        reference: Mapping[str, Tensor],
    ) -> Program[bool]:
        """Merge all workers' pieces into the shards; return whether something stayed with the workers.

        Args:
            shards: of this worker.
            deal: the round.
            after: the next one, if what stays with a worker may stay.
            piece: of this worker, None if it holds nothing.
            reference: what came rounded when the round was opened.
        """
        step = None if after is None else self.step(deal, after)
        keeps = step is not None and step.keeps
        workers = range(self._worker.link.workers)
        boxes = [step.homeward(w, self.trained) if step else deal.boxes(w, self.trained) for w in workers]
        values = self._values(piece, deal, boxes[self._worker.link.index])
        yield from self._pieces.homeward(shards, values, self._routed((step or deal, "back"), boxes), reference)
        return keeps

    def settle(self, shards: Mapping[str, Tensor], deal: Deal, after: Deal, piece: Subnetwork) -> Program[None]:
        """Bring home what stayed with the workers after a round; they keep it too."""
        step = self.step(deal, after)
        boxes = [step.kept(w, self.trained) for w in range(self._worker.link.workers)]
        values = self._values(piece, deal, boxes[self._worker.link.index])
        yield from self._pieces.homeward(shards, values, self._routed((step, "kept"), boxes), None)

    def step(self, before: Deal, after: Deal) -> Step:
        """Return what moves between two rounds; the last two that were asked for are kept."""
        for step in self._steps:
            if step.before is before and step.after is after:
                return step
        self._steps = [step_between(before, after, self.trained), *self._steps[:1]]
        return self._steps[0]

    def _values(self, piece: Subnetwork | None, deal: Deal, boxes: Sequence[Box]) -> list[Tensor]:
        """Return what a piece holds of some boxes."""
        if piece is None:
            return []
        state, mine = piece.state(), deal.map(self._worker.link.index)
        found = []
        for box in boxes:
            whole = mine[box.name]
            tensor = state[box.name].detach()
            found.append(tensor if box.held is whole else view_slice(tensor, places(whole, box.held)))
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
