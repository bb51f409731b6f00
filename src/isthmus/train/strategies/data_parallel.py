"""Data parallel: every worker holds the dense network; gradients are averaged after every step."""

from __future__ import annotations

import torch

from isthmus.nets.mlp import MLP, MLPSpec, initial_state
from isthmus.train.exchange import Program, all_mean
from isthmus.train.round import Worker, new_optimizer, set_lr
from isthmus.train.strategies.interface import Whole, pack, unpack


class DataParallel:
    """One worker of synchronous data-parallel SGD; its optimizer runs through the whole training."""

    def __init__(self, spec: MLPSpec, worker: Worker) -> None:
        self._worker = worker
        self.trained = MLP(spec).to(worker.features.device)
        self.trained.load_state_dict(initial_state(spec, worker.config.seed))
        self._optimizer = new_optimizer(self.trained, worker.config)

    def round(self, number: int, steps: range) -> Program[float]:
        """Make the steps, each with the mean gradient of all workers."""
        config, meter = self._worker.config, self._worker.meter
        parameters = list(self.trained.parameters())
        shapes = [parameter.shape for parameter in parameters]
        total = torch.zeros((), dtype=torch.float64, device=self._worker.features.device)
        self.trained.train()
        for step in steps:
            with meter.computing():
                self._optimizer.zero_grad()
                loss = self._worker.loss(self.trained, step)
                loss.backward()
                total += loss.detach()
                gradient = pack([parameter.grad for parameter in parameters if parameter.grad is not None])
            mean = yield from all_mean(gradient, self._worker.index, config.workers)
            with meter.computing():
                for parameter, values in zip(parameters, unpack(mean, shapes), strict=True):
                    parameter.grad = values.clone()
                set_lr(self._optimizer, config.lr_at(step))
                self._optimizer.step()
        return total.item()

    def whole(self) -> Whole:
        """Return the network, which is the same on every worker."""
        return Whole(self.trained.spec, self.trained.state_dict())
