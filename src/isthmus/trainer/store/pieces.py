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
        self._dealt: _Dealt | None = None
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

        What worker 0 holds itself does not become a message. What it holds all of, and nobody else any, is the whole's
        own tensor, trained where it is.

        Args:
            whole: the network's tensors on worker 0, None elsewhere.
            units: of every cut axis, what each worker holds; None of a worker that holds nothing.
        """
        link, dealt = self._worker.link, self._deal(units)
        own = _empty() if whole is not None else dealt.out(link.index)
        piece: dict[str, Tensor] = {}
        for dtype in types_of(self.coupling.entries, self._out):
            packed = None
            if whole is not None:
                packed = [self._cut(whole, dealt, number, dtype) for number in range(link.workers)]
            expected = torch.empty(own.sizes.get(dtype, 0), dtype=dtype, device=self._worker.device)
            flat = yield from scatter(packed, expected, link)
            # memory of their own, aligned: a product's last bits hang on where its operands begin
            piece |= {name: tensor.clone() for name, tensor in own.unpack(flat).items()}
        if whole is not None and units[link.index] is not None:
            piece = {name: self._own(whole, dealt, name) for name in dealt.names(link.index, self._out)}
        return piece

    def take_back(
        self, whole: Mapping[str, Tensor] | None, piece: Subnetwork | None, units: Sequence[Units | None]
    ) -> Program[None]:
        """Merge all workers' pieces into the whole on worker 0, by who holds what."""
        link, dealt = self._worker.link, self._deal(units)
        state = {} if piece is None else piece.state()
        for dtype in types_of(self.coupling.entries, self._back):
            sizes = [0 if whole is None else dealt.back(w).sizes.get(dtype, 0) if w else 0 for w in range(link.workers)]
            layout = _empty() if whole is not None else dealt.back(link.index)
            packed = layout.pack(state, dtype, self._worker.device)
            flats = yield from gather(packed, sizes, link)
            if whole is not None:
                parts = [dealt.back(w).unpack(flat) if w else state for w, flat in enumerate(flats)]
                self._merge(whole, parts, dealt, dtype)

    def reader(self, piece: Mapping[str, Tensor], before: Subnetwork | None = None) -> Callable[[str, Held], Tensor]:
        """Return where a subnetwork is built from: the piece, and slices of what does not change.

        Running statistics go on from those of the piece before, where the worker keeps the units.
        """
        kept = {} if before is None else {n: t for n, t in before.state().items() if n in self.statistics}

        def read(name: str, held: Held) -> Tensor:
            if name in piece:
                return piece[name]
            if before is not None and name in kept and same_indices(before.indices[name], held):
                return kept[name]
            return slice_tensor(self._fixed[name], held)

        return read

    def _cut(self, whole: Mapping[str, Tensor], dealt: _Dealt, worker: int, dtype: torch.dtype) -> Tensor:
        """Return the message to a worker; an empty one to the worker itself."""
        layout = dealt.out(worker) if worker != self._worker.link.index else _empty()
        names = [name for name, _, kind in layout.entries if kind == dtype]
        slices = {name: slice_tensor(whole[name].detach(), dealt.maps[worker][name]) for name in names}
        return layout.pack(slices, dtype, self._worker.device)

    def _own(self, whole: Mapping[str, Tensor], dealt: _Dealt, name: str) -> Tensor:
        here = self._worker.link.index
        tensor, held = whole[name].detach(), dealt.maps[here][name]
        if dealt.alone == here and all(indices is None for indices in held):
            return tensor
        return slice_tensor(tensor, held)

    def _merge(
        self, whole: Mapping[str, Tensor], parts: Sequence[Mapping[str, Tensor]], dealt: _Dealt, dtype: torch.dtype
    ) -> None:
        with torch.no_grad():
            for name in self._back:
                if self.coupling.entries[name].dtype != dtype:
                    continue
                held = [(p[name], dealt.maps[w][name]) for w, p in enumerate(parts) if name in dealt.maps[w]]
                if held and held[0][0].data_ptr() != whole[name].data_ptr():  # it was not trained where it is
                    merge_into(whole[name], held)

    def _deal(self, units: Sequence[Units | None]) -> _Dealt:
        """Return what follows from the units of a round; the same for its opening and its closing."""
        if self._dealt is None or self._dealt.units is not units:
            self._dealt = _Dealt(self.coupling, units, self._out, self._back)
        return self._dealt


class _Dealt:
    """What the units that each worker holds in one round mean for the tensors, worked out when it is asked for."""

    def __init__(
        self, coupling: Coupling, units: Sequence[Units | None], out: Sequence[str], back: Sequence[str]
    ) -> None:
        self.units = units
        self.maps = _Maps(coupling, units)
        active = [worker for worker, held in enumerate(units) if held is not None]
        self.alone = active[0] if len(active) == 1 else None
        self._entries = coupling.entries
        self._names = {"out": out, "back": back}
        self._layouts: dict[tuple[str, int], Layout] = {}

    def names(self, worker: int, names: Sequence[str]) -> list[str]:
        """Return those of some tensors of which a worker holds anything."""
        return [name for name in names if name in self.maps[worker]]

    def out(self, worker: int) -> Layout:
        """Return what a worker is sent."""
        return self._layout("out", worker)

    def back(self, worker: int) -> Layout:
        """Return what a worker sends back."""
        return self._layout("back", worker)

    def _layout(self, way: str, worker: int) -> Layout:
        key = (way, worker)
        if key not in self._layouts:
            self._layouts[key] = layout_of_piece(self._entries, self._names[way], self.maps[worker])
        return self._layouts[key]


class _Maps:
    """The index sets of every worker; None for all of a dimension, also where a worker holds every unit by number."""

    def __init__(self, coupling: Coupling, units: Sequence[Units | None]) -> None:
        self._coupling, self._units = coupling, units
        self._maps: dict[int, IndexMap] = {}

    def __getitem__(self, worker: int) -> IndexMap:
        if worker not in self._maps:
            held = self._units[worker]
            found = {} if held is None else self._coupling.index_map(held)
            self._maps[worker] = {
                name: tuple(
                    None if indices is None or len(indices) == size else indices
                    for indices, size in zip(each, self._coupling.entries[name].shape, strict=True)
                )
                for name, each in found.items()
            }
        return self._maps[worker]


def same_indices(one: Held, other: Held) -> bool:
    """Whether two index sets of a tensor are the same in every dimension."""
    pairs = zip(one, other, strict=True)
    return all((a is None and b is None) or (a is not None and b is not None and _equal(a, b)) for a, b in pairs)


def _equal(one: Indices, other: Indices) -> bool:
    return len(one) == len(other) and bool((one == other).all())


def _empty() -> Layout:
    return Layout(())


def _retraced(worker: Worker, whole: nn.Module | None) -> Coupling:
    """Trace the network with its weights, for the values of what its forward makes."""
    assert whole is not None
    example = worker.network.example
    tensors = [torch.zeros(tensor.shape, dtype=tensor.dtype, device=worker.device) for tensor in example.tensors]
    args, kwargs = example.call(tensors)
    return trace(whole, args, kwargs)
