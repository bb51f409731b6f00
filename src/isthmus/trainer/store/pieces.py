"""Pieces of the whole network on their way between worker 0, which holds it between rounds, and the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from isthmus.nets import Coupling, Subnetwork, trace
from isthmus.nets.norms import statistics
from isthmus.nets.ownership import Held, IndexMap, merge_into, slice_tensor
from isthmus.nets.writes import written
from isthmus.partitions import Indices
from isthmus.trainer.strategies.interface import Worker
from isthmus.trainer.wire.exchange import Program, gather, scatter
from isthmus.trainer.wire.layout import Layout, layout_of_piece, types_of

Units = Mapping[str, Indices]


class Pieces:
    """One worker's side of handing out and taking back.

    Every round parameters travel, and buffers that a forward pass changes; back again only those of them that are
    trained. Other buffers (masks, tables) travel once, whole. The running statistics of batch norms are of no use to
    anyone but their own piece: they are measured anew on the merged network and do not travel.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self.coupling: Coupling = worker.network.coupling
        self.statistics = statistics(self.coupling)
        self._fixed: dict[str, Tensor] = {}
        entries = self.coupling.entries
        living = written(self.coupling) - self.statistics
        self._out = [name for name, entry in entries.items() if entry.is_parameter or name in living]
        self._back = [name for name in self._out if entries[name].trained or name in living]
        self._still = [name for name in entries if name not in self._out]

    def share_fixed(self, whole: nn.Module | None, tensors: Mapping[str, Tensor] | None) -> Program[None]:
        """Send what does not change from worker 0 to all, once.

        Args:
            whole, tensors: the network and its state on worker 0, None elsewhere.
        """
        worker = self._worker
        lifted = [name for name, tensor in self.coupling.constants.items() if tensor.is_meta]
        source = None if tensors is None else dict(tensors)
        if source is not None and lifted:  # tensors made in forward: the skeleton could not know their values
            source |= _retraced(worker, whole).constants
        shapes = {name: self.coupling.entries[name] for name in self._still}
        wanted = {name: (entry.shape, entry.dtype) for name, entry in shapes.items()}
        wanted |= {name: (tuple(t.shape), t.dtype) for name in lifted for t in (self.coupling.constants[name],)}
        for name, (shape, dtype) in wanted.items():
            empty = torch.empty(shape, dtype=dtype, device=worker.device)
            copies = None if source is None else [source[name].detach().reshape(-1)] * worker.link.workers
            got = yield from scatter(copies, empty.reshape(-1), worker.link)
            self._fixed[name] = got.view(shape)
        if lifted:
            constants = {**self.coupling.constants, **{name: self._fixed[name] for name in lifted}}
            self.coupling = replace(self.coupling, constants=constants)

    def hand_out(
        self, whole: Mapping[str, Tensor] | None, units: Sequence[Units | None]
    ) -> Program[dict[str, Tensor]]:
        """Return this worker's piece of what travels, cut out of the whole by worker 0.

        Args:
            whole: the network's tensors on worker 0, None elsewhere.
            units: of every cut axis, what each worker holds; None of a worker that holds nothing.
        """
        worker, entries = self._worker, self.coupling.entries
        chosen = range(worker.link.workers) if whole is not None else (worker.link.index,)
        maps = {number: self._map(units[number]) for number in chosen}
        layouts = {number: layout_of_piece(entries, self._out, index_map) for number, index_map in maps.items()}
        own = layouts[worker.link.index]
        slices = None
        if whole is not None:
            slices = [_slices(whole, layouts[number], maps[number]) for number in chosen]
        piece: dict[str, Tensor] = {}
        for dtype in types_of(entries, self._out):
            packed = None
            if slices is not None:
                packed = [layouts[n].pack(part, dtype, worker.device) for n, part in zip(chosen, slices, strict=True)]
            expected = torch.empty(own.sizes.get(dtype, 0), dtype=dtype, device=worker.device)
            flat = yield from scatter(packed, expected, worker.link)
            piece |= own.unpack(flat)
        return piece

    def take_back(
        self, whole: Mapping[str, Tensor] | None, piece: Subnetwork | None, units: Sequence[Units | None]
    ) -> Program[None]:
        """Merge all workers' pieces into the whole on worker 0, by who holds what."""
        worker, entries, here = self._worker, self.coupling.entries, self._worker.link.index
        chosen = range(worker.link.workers) if whole is not None else (here,)
        maps = {number: self._map(units[number]) for number in chosen}
        layouts = {number: layout_of_piece(entries, self._back, index_map) for number, index_map in maps.items()}
        state = {} if piece is None else piece.state()
        for dtype in types_of(entries, self._back):
            sizes = [layouts[number].sizes.get(dtype, 0) for number in chosen]
            packed = layouts[here].pack(state, dtype, worker.device)
            flats = yield from gather(packed, sizes if whole is not None else [0] * worker.link.workers, worker.link)
            if whole is None:
                continue
            with torch.no_grad():
                parts = [layouts[number].unpack(flat) for number, flat in zip(chosen, flats, strict=True)]
                for name in self._back:
                    held = [(p[name], m[name]) for p, m in zip(parts, maps.values(), strict=True) if name in p]
                    if held:  # of this type, and not in a block that nobody has
                        merge_into(whole[name], held)

    def reader(self, piece: Mapping[str, Tensor], before: Subnetwork | None = None) -> Callable[[str, Held], Tensor]:
        """Return where a subnetwork is built from: the piece, and slices of what does not change.

        Every tensor gets memory of its own: a forward pass that writes to a buffer must not touch a neighbour's.
        Running statistics go on from those of the piece before, where the worker keeps the units.
        """
        kept = {} if before is None else {n: t for n, t in before.state().items() if n in self.statistics}

        def read(name: str, held: Held) -> Tensor:
            if name in piece:
                return piece[name].clone()
            if before is not None and name in kept and same_indices(before.indices[name], held):
                return kept[name].clone()
            return slice_tensor(self._fixed[name], held)

        return read

    def _map(self, units: Units | None) -> IndexMap:
        return {} if units is None else self.coupling.index_map(units)


def same_indices(one: Held, other: Held) -> bool:
    """Whether two index sets of a tensor are the same in every dimension."""
    pairs = zip(one, other, strict=True)
    return all((a is None and b is None) or (a is not None and b is not None and _equal(a, b)) for a, b in pairs)


def _equal(one: Indices, other: Indices) -> bool:
    return len(one) == len(other) and bool((one == other).all())


def _slices(whole: Mapping[str, Tensor], layout: Layout, index_map: IndexMap) -> dict[str, Tensor]:
    return {name: slice_tensor(whole[name].detach(), index_map[name]) for name, _, _ in layout.entries}


def _retraced(worker: Worker, whole: nn.Module | None) -> Coupling:
    """Trace the network with its weights, for the values of what its forward makes."""
    assert whole is not None
    example = worker.network.example
    tensors = [torch.zeros(tensor.shape, dtype=tensor.dtype, device=worker.device) for tensor in example.tensors]
    args, kwargs = example.call(tensors)
    return trace(whole, args, kwargs)
