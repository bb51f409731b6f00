"""Data parallel: every worker holds the dense network; gradients are averaged after every step."""

from __future__ import annotations

import torch

from isthmus.trainer.exchange import Program
from isthmus.trainer.round import Worker, new_optimizer, update
from isthmus.trainer.strategies.interface import Whole
from isthmus.trainer.strategies.local_sgd import check_same_start, mean_over_workers, trained_parameters


class DataParallel:
    """One worker of synchronous data-parallel training; its optimizer runs through the whole of it."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self.trained = worker.network.make().to(worker.device)
        self._optimizer = new_optimizer(self.trained, worker.config)

    def start(self) -> Program[None]:
        """Make sure that all workers start from the same weights."""
        yield from check_same_start(self.trained, self._worker)

    def round(self, number: int, steps: range) -> Program[float]:
        """Make the steps, each with the mean gradient of all workers."""
        worker, meter = self._worker, self._worker.meter
        parameters = trained_parameters(self.trained)
        total = torch.zeros((), dtype=torch.float64, device=worker.device)
        self.trained.train()
        for step in steps:
            with meter.computing():
                total += worker.gradients(self.trained, step)
                own = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in parameters.items()}
            mean = yield from mean_over_workers(own, worker)
            with meter.computing():
                for name, parameter in parameters.items():
                    parameter.grad = mean[name].clone()
                update(self.trained, self._optimizer, worker.config, step)
        return total.item()

    def whole(self) -> Whole:
        """Return the network, which is the same on every worker."""
        return Whole(self.trained)
