"""Independent Subnetwork Training: cut the hidden units over the workers, train the pieces alone, merge."""

from __future__ import annotations

from torch import Tensor

from isthmus.nets.mlp import MLP, MLPSpec, index_map, initial_state, parameter_shapes
from isthmus.nets.ownership import IndexMap, merge_states, slice_state
from isthmus.partitions import Partition, partition_at
from isthmus.train.config import TrainConfig
from isthmus.train.exchange import Program, gather, scatter
from isthmus.train.round import Worker, local_steps
from isthmus.train.scaling import evaluation_scales, zero_cross_blocks
from isthmus.train.strategies.interface import Whole, load_flat, pack, unpack


class IST:
    """One worker of IST. Worker 0 holds the whole model between rounds; the others never hold more than their piece.

    Reference:
        Yuan, Wolfe, Dun, Tang, Kyrillidis, Jermaine, "Distributed learning of deep neural networks using independent
        subnet training" (VLDB 2022).
    """

    def __init__(self, spec: MLPSpec, worker: Worker) -> None:
        self._spec = spec
        self._worker = worker
        self._partitions = partitions(spec, worker.config, 0)
        self.trained = self._network()
        self._state: dict[str, Tensor] = {}
        if worker.is_root:
            self._state = initial_state(spec, worker.config.seed)
            if worker.config.law == "block":
                zero_cross_blocks(self._state, self._partitions)
            self._state = {name: tensor.to(worker.features.device) for name, tensor in self._state.items()}

    def round(self, number: int, steps: range) -> Program[float]:
        """Cut, train the piece on this worker's shard, merge."""
        self._partitions = partitions(self._spec, self._worker.config, number)
        self.trained = self._network()
        yield from self._cut()
        loss = local_steps(self.trained, self._worker, steps)
        yield from self._merge()
        return loss

    def whole(self) -> Whole:
        """Return the merged network and the scales that match its pre-activations to those of the pieces."""
        config = self._worker.config
        scales = {} if config.scale == "none" else evaluation_scales(config.law, self._partitions)
        return Whole(self._spec, self._state, scales)

    def _cut(self) -> Program[None]:
        """Load this worker's piece of the whole model into its network."""
        workers = self._worker.config.workers
        pieces = None
        if self._worker.is_root:
            with self._worker.meter.computing():
                whole = {name: self._state[name] for name in parameter_shapes(self._spec)}
                pieces = [pack(list(slice_state(whole, self._index_map(w)).values())) for w in range(workers)]
        piece = yield from scatter(pieces, self._size(self._worker.index), self._worker.index, workers)
        load_flat(self.trained, piece)

    def _merge(self) -> Program[None]:
        """Put every worker's piece back into the whole model.

        Only parameters travel: the statistics of batch norm would be those of the pieces, and are computed anew on the
        merged network before it is evaluated.
        """
        workers = range(self._worker.config.workers)
        own = pack(list(self.trained.parameters()))
        pieces = yield from gather(own, [self._size(w) for w in workers], self._worker.index, len(workers))
        if self._worker.is_root:
            with self._worker.meter.computing():
                parts = [(self._unpack(w, pieces[w]), self._index_map(w)) for w in workers]
                self._state = merge_states(self._state, parts)

    def _network(self) -> MLP:
        """Return this worker's small dense network, reused while its widths stay the same."""
        spec = self._piece_spec(self._worker.index)
        current = getattr(self, "trained", None)
        return current if current is not None and current.spec == spec else MLP(spec).to(self._worker.features.device)

    def _piece_spec(self, worker: int) -> MLPSpec:
        return self._spec.with_widths([partition.sizes[worker] for partition in self._partitions])

    def _size(self, worker: int) -> int:
        return sum(shape.numel() for shape in parameter_shapes(self._piece_spec(worker)).values())

    def _unpack(self, worker: int, flat: Tensor) -> dict[str, Tensor]:
        shapes = parameter_shapes(self._piece_spec(worker))
        return dict(zip(shapes, unpack(flat, list(shapes.values())), strict=True))

    def _index_map(self, worker: int) -> IndexMap:
        return index_map(self._spec, [partition.held(worker) for partition in self._partitions])


def partitions(spec: MLPSpec, config: TrainConfig, round: int) -> list[Partition]:
    """Return the partition of every hidden layer in a round; every worker derives the same."""
    return [
        partition_at(config.law, width, config.workers, config.seed, f"hidden{layer}", round, config.core)
        for layer, width in enumerate(spec.widths)
    ]
