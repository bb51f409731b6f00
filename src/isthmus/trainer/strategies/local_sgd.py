"""Local SGD: every worker trains the dense network; after each round the weights are averaged."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from isthmus.errors import WorkerError
from isthmus.trainer.exchange import Program, all_gather, all_mean
from isthmus.trainer.layout import digest, layout_of
from isthmus.trainer.round import Worker, local_steps, new_optimizer
from isthmus.trainer.strategies.interface import Whole


class LocalSGD:
    """One worker of local SGD.

    Reference:
        Stich, "Local SGD converges fast and communicates little" (ICLR 2019).
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self.trained = worker.network.make().to(worker.device)
        self._optimizer: torch.optim.Optimizer | None = None

    def start(self) -> Program[None]:
        """Make sure that all workers start from the same weights."""
        yield from check_same_start(self.trained, self._worker)

    def round(self, number: int, steps: range) -> Program[float]:
        """Train on this worker's shard, then take the mean of all workers' weights."""
        worker = self._worker
        if worker.config.keeps_state and self._optimizer is None:
            self._optimizer = new_optimizer(self.trained, worker.config)
        loss = local_steps(self.trained, worker, steps, self._optimizer)
        mean = yield from mean_over_workers(trained_parameters(self.trained), worker)
        with torch.no_grad():
            for name, parameter in trained_parameters(self.trained).items():
                parameter.copy_(mean[name])
        return loss

    def whole(self) -> Whole:
        """Return the averaged network, which every worker holds."""
        return Whole(self.trained)


def trained_parameters(network: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that are trained, by name, tied ones once."""
    return {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}


def mean_over_workers(tensors: Mapping[str, Tensor], worker: Worker) -> Program[dict[str, Tensor]]:
    """Return the mean of every tensor over all workers."""
    layout = layout_of(tensors)
    result: dict[str, Tensor] = {}
    for dtype in layout.sizes:
        flat = layout.pack(tensors, dtype, worker.device)
        mean = yield from all_mean(flat, worker.index, worker.config.workers)
        result |= layout.unpack(mean)
    return result


def check_same_start(network: nn.Module, worker: Worker) -> Program[None]:
    """Compare the workers' first weights, by a digest.

    Raises:
        WorkerError: they differ, and an average of them would mean nothing.
    """
    own = int(digest(dict(network.named_parameters()))[:12], 16)  # 48 bits: exact in float64
    tensor = torch.tensor([own], dtype=torch.float64, device=worker.device)
    found = yield from all_gather(tensor, worker.config.workers, counted=False)
    for other, value in enumerate(found):
        if value.item() != found[0].item():
            raise WorkerError(
                f"worker {other} starts from other weights than worker 0: the factory of `model` must draw from "
                "torch's own generator only, which isthmus seeds"
            )
