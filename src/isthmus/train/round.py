"""The local steps of one round on one worker's network."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from isthmus.train.config import TrainConfig
from isthmus.train.exchange import Meter
from isthmus.train.shards import batch_at


@dataclass
class Worker:
    """One worker: its number, its shard of the data and nobody else's, and its meter.

    Attributes:
        index: 0 .. workers - 1; worker 0 is also the root.
        config: of the run.
        features: [m, p] float32, this worker's share.
        targets: [m] int64.
        classes: number of classes in the whole data set.
        meter: bytes and seconds of the round that is going on.
    """

    index: int
    config: TrainConfig
    features: Tensor
    targets: Tensor
    classes: int
    meter: Meter = field(default_factory=Meter)

    @property
    def is_root(self) -> bool:
        """Whether this worker holds the whole model between rounds and evaluates it."""
        return self.index == 0

    def loss(self, network: nn.Module, step: int) -> Tensor:
        """Return the mean cross-entropy of the network on this worker's batch of a global step."""
        positions = torch.from_numpy(batch_at(self.config, self.index, len(self.targets), step))
        positions = positions.to(self.targets.device)
        return functional.cross_entropy(network(self.features[positions]), self.targets[positions])


def new_optimizer(network: nn.Module, config: TrainConfig) -> torch.optim.SGD:
    """Return SGD with Nesterov momentum, its momentum at zero."""
    return torch.optim.SGD(
        network.parameters(),
        lr=config.peak_lr,
        momentum=config.momentum,
        nesterov=config.momentum > 0,
        weight_decay=config.weight_decay,
    )


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of every parameter."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def local_steps(network: nn.Module, worker: Worker, steps: range) -> float:
    """Train the network on this worker's batches of the given global steps; return the sum of their losses.

    Momentum starts at zero: the weights it was gathered for have since been merged with those of others. So a round
    depends on nothing but the merged weights, and no optimizer state has to travel.
    """
    network.train()
    optimizer = new_optimizer(network, worker.config)
    total = torch.zeros((), dtype=torch.float64, device=worker.features.device)
    with worker.meter.computing():
        for step in steps:
            set_lr(optimizer, worker.config.lr_at(step))
            optimizer.zero_grad()
            loss = worker.loss(network, step)
            loss.backward()
            optimizer.step()
            total += loss.detach()
        return total.item()
