"""Local SGD: every worker trains the dense network; after each round the weights are averaged."""

from __future__ import annotations

from isthmus.nets.mlp import MLP, MLPSpec, initial_state
from isthmus.train.exchange import Program, all_mean
from isthmus.train.round import Worker, local_steps
from isthmus.train.strategies.interface import Whole, load_flat, pack


class LocalSGD:
    """One worker of local SGD.

    Reference:
        Stich, "Local SGD converges fast and communicates little" (ICLR 2019).
    """

    def __init__(self, spec: MLPSpec, worker: Worker) -> None:
        self._worker = worker
        self.trained = MLP(spec).to(worker.features.device)
        self.trained.load_state_dict(initial_state(spec, worker.config.seed))

    def round(self, number: int, steps: range) -> Program[float]:
        """Train on this worker's shard, then take the mean of all workers' weights."""
        loss = local_steps(self.trained, self._worker, steps)
        flat = pack(list(self.trained.parameters()))
        mean = yield from all_mean(flat, self._worker.index, self._worker.config.workers)
        load_flat(self.trained, mean)
        return loss

    def whole(self) -> Whole:
        """Return the averaged network, which every worker holds."""
        return Whole(self.trained.spec, self.trained.state_dict())
