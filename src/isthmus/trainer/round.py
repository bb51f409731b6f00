"""The local steps of one round on one worker's network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_

from isthmus.randomness import generator
from isthmus.trainer.account import flops
from isthmus.trainer.config import TrainConfig
from isthmus.trainer.exchange import Meter
from isthmus.trainer.network import Network
from isthmus.trainer.samples import Samples
from isthmus.trainer.shards import batch_at


@dataclass
class Worker:
    """One worker: its number, its shard of the data and nobody else's, and its meter.

    Attributes:
        index: 0 .. workers - 1; worker 0 is also the root.
        network: what the run trains, not its weights.
        samples: this worker's share.
        meter: bytes and seconds of the round that is going on.
        step_flops: operations of one step, by the shapes of the network that made it.
    """

    index: int
    network: Network
    samples: Samples
    meter: Meter = field(default_factory=Meter)
    step_flops: dict[tuple[torch.Size, ...], int] = field(default_factory=dict)

    @property
    def config(self) -> TrainConfig:
        """The run's configuration."""
        return self.network.config

    @property
    def device(self) -> torch.device:
        """Where this worker computes."""
        return self.samples.device

    @property
    def is_root(self) -> bool:
        """Whether this worker holds the whole model between rounds and evaluates it."""
        return self.index == 0

    def loss(self, call: Callable[..., Any], step: int) -> Tensor:
        """Return the mean cross-entropy of a network on this worker's batch of a global step.

        What is random in the network (dropout) is drawn from (seed, step, worker).
        """
        config = self.config
        torch.manual_seed(int(generator(config.seed, "train/noise", step, self.index).integers(2**63)))
        positions = torch.from_numpy(batch_at(config, self.index, len(self.samples.targets), step))
        return functional.cross_entropy(*self.samples.predict(call, positions.to(self.device)))

    def gradients(self, network: nn.Module, step: int) -> Tensor:
        """Give the network's parameters the gradients of its loss at a global step; return the loss, detached."""
        call = self.network.caller(network)

        def forward_backward() -> Tensor:
            loss = self.loss(call, step)
            loss.backward()
            return loss.detach()

        shapes = tuple(parameter.shape for parameter in network.parameters())
        if shapes in self.step_flops:
            return forward_backward()
        loss, self.step_flops[shapes] = flops(forward_backward)
        return loss

    def flops(self, network: nn.Module) -> int:
        """Return the operations of one step with a network; 0 before its first step."""
        return self.step_flops.get(tuple(parameter.shape for parameter in network.parameters()), 0)


def new_optimizer(network: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Return the optimizer of a configuration, its state at zero: SGD with Nesterov momentum, or AdamW."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(trained, lr=config.peak_lr, weight_decay=config.weight_decay)
    return torch.optim.SGD(
        trained,
        lr=config.peak_lr,
        momentum=config.momentum,
        nesterov=config.momentum > 0,
        weight_decay=config.weight_decay,
    )


def update(network: nn.Module, optimizer: torch.optim.Optimizer, config: TrainConfig, step: int) -> None:
    """Make the step of a global number with the gradients the parameters have, and clear them."""
    if config.clip is not None:
        clip_grad_norm_(network.parameters(), config.clip)
    for group in optimizer.param_groups:
        group["lr"] = config.lr_at(step)
    optimizer.step()
    optimizer.zero_grad()


def local_steps(network: nn.Module, worker: Worker, steps: range, optimizer: torch.optim.Optimizer | None) -> float:
    """Train the network on this worker's batches of the given global steps; return the sum of their losses.

    Args:
        network, worker, steps: which network, on whose data, from which step to which.
        optimizer: one that goes on from the round before; None starts at zero: the weights that momentum was gathered
            for have since been merged with those of others. So a round depends on nothing but the merged weights, and
            no optimizer state has to travel.
    """
    network.train()
    chosen = new_optimizer(network, worker.config) if optimizer is None else optimizer
    total = torch.zeros((), dtype=torch.float64, device=worker.device)
    with worker.meter.computing():
        for step in steps:
            total += worker.gradients(network, step)
            update(network, chosen, worker.config, step)
        return total.item()
