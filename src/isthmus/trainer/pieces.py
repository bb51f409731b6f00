"""Pieces of the whole network on their way between worker 0, which holds it between rounds, and the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from isthmus.nets.coupling import Coupling
from isthmus.nets.norms import statistics
from isthmus.nets.ownership import Held, merge_into, slice_tensor
from isthmus.nets.subnetwork import Subnetwork, named_state
from isthmus.nets.tracing import trace
from isthmus.nets.writes import written
from isthmus.partitions import Indices
from isthmus.trainer.exchange import Program, gather, scatter
from isthmus.trainer.layout import layout_of_piece, types_of
from isthmus.trainer.round import Worker

Units = Mapping[str, Indices]


class Pieces:
    """One worker's side of handing out and taking back.

    Every round parameters travel, and buffers that a forward pass changes; back again only those of them that are
    trained. Other buffers (masks, tables) travel once, whole. The running statistics of batch norms are of no use to
    anyone but their own piece: they are measured anew on the merged network and do not travel.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self.coupling = worker.network.coupling
        self._fixed: dict[str, Tensor] = {}
        entries = self.coupling.entries
        living = written(self.coupling) - statistics(self.coupling)
        self._out = [name for name, entry in entries.items() if entry.is_parameter or name in living]
        self._back = [name for name in self._out if entries[name].trained or name in living]
        self._still = [name for name in entries if name not in self._out]

    def share_fixed(self, whole: nn.Module | None) -> Program[None]:
        """Send what does not change from worker 0 to all, once.

        Args:
            whole: the network on worker 0, None elsewhere.
        """
        worker = self._worker
        lifted = [name for name, tensor in self.coupling.constants.items() if tensor.is_meta]
        source: dict[str, Tensor] = {}
        if whole is not None:
            source = dict(named_state(whole))
            if lifted:  # tensors made in forward: the skeleton could not know their values
                source |= _retraced(worker, whole).constants
        shapes = {name: self.coupling.entries[name] for name in self._still}
        wanted = {name: (entry.shape, entry.dtype) for name, entry in shapes.items()}
        wanted |= {name: (tuple(t.shape), t.dtype) for name in lifted for t in (self.coupling.constants[name],)}
        for name, (shape, dtype) in wanted.items():
            empty = torch.empty(shape, dtype=dtype, device=worker.device)
            copies = None if whole is None else [source[name].detach().reshape(-1)] * worker.config.workers
            got = yield from scatter(copies, empty.reshape(-1), worker.index, worker.config.workers)
            self._fixed[name] = got.view(shape)
        if lifted:
            constants = {**self.coupling.constants, **{name: self._fixed[name] for name in lifted}}
            self.coupling = replace(self.coupling, constants=constants)

    def hand_out(self, whole: nn.Module | None, units: Sequence[Units]) -> Program[dict[str, Tensor]]:
        """Return this worker's piece of what travels, cut out of the whole by worker 0.

        Args:
            whole: the network on worker 0, None elsewhere.
            units: of every cut axis, what each worker holds.
        """
        worker, entries = self._worker, self.coupling.entries
        own = layout_of_piece(entries, self._out, self.coupling.index_map(units[worker.index]))
        slices = self._slices(whole, units)
        piece: dict[str, Tensor] = {}
        for dtype in types_of(entries, self._out):
            packed = None
            if slices is not None:
                with worker.meter.computing():
                    packed = [layout.pack(part, dtype, worker.device) for layout, part in slices]
            expected = torch.empty(own.sizes.get(dtype, 0), dtype=dtype, device=worker.device)
            flat = yield from scatter(packed, expected, worker.index, worker.config.workers)
            piece |= own.unpack(flat)
        return piece

    def take_back(self, whole: nn.Module | None, subnetwork: Subnetwork, units: Sequence[Units]) -> Program[None]:
        """Merge all workers' pieces into the whole on worker 0, by who holds what."""
        worker, entries = self._worker, self.coupling.entries
        chosen = units if whole is not None else units[worker.index : worker.index + 1]
        maps = [self.coupling.index_map(held) for held in chosen]
        layouts = [layout_of_piece(entries, self._back, index_map) for index_map in maps]
        own = layouts[worker.index] if whole is not None else layouts[0]
        state = subnetwork.state()
        for dtype in types_of(entries, self._back):
            sizes = [layout.sizes.get(dtype, 0) for layout in layouts]
            packed = own.pack(state, dtype, worker.device)
            flats = yield from gather(packed, sizes, worker.index, worker.config.workers)
            if whole is None:
                continue
            with worker.meter.computing(), torch.no_grad():
                parts = [layout.unpack(flat) for layout, flat in zip(layouts, flats, strict=True)]
                tensors = dict(named_state(whole))
                for name in self._back:
                    held = [(p[name], m[name]) for p, m in zip(parts, maps, strict=True) if name in p]
                    if held:  # of this type, and not in a block that nobody has
                        merge_into(tensors[name].detach(), held)

    def reader(self, piece: Mapping[str, Tensor]) -> Callable[[str, Held], Tensor]:
        """Return where a subnetwork is built from: the piece, and slices of what does not change.

        Every tensor gets memory of its own: a forward pass that writes to a buffer must not touch a neighbour's.
        """

        def read(name: str, held: Held) -> Tensor:
            return piece[name].clone() if name in piece else slice_tensor(self._fixed[name], held)

        return read

    def _slices(self, whole: nn.Module | None, units: Sequence[Units]) -> list[tuple] | None:
        """Return for every worker the layout of its piece and the slices, on worker 0; None elsewhere."""
        if whole is None:
            return None
        entries, tensors = self.coupling.entries, dict(named_state(whole))
        result = []
        with self._worker.meter.computing():
            for held in units:
                index_map = self.coupling.index_map(held)
                layout = layout_of_piece(entries, self._out, index_map)
                names = [name for name, _, _ in layout.entries]
                part = {name: slice_tensor(tensors[name].detach(), index_map[name]) for name in names}
                result.append((layout, part))
        return result


def _retraced(worker: Worker, whole: nn.Module) -> Coupling:
    """Trace the network with its weights, for the values of what its forward makes."""
    example = worker.network.example
    tensors = [torch.zeros(tensor.shape, dtype=tensor.dtype, device=worker.device) for tensor in example.tensors]
    args, kwargs = example.call(tensors)
    return trace(whole, args, kwargs)
