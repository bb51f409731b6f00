"""The loop of the command line: what a user would write around ``isthmus.Training``, for any data and loss."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from isthmus.randomness import derived_seed
from isthmus.trainer.config import TrainConfig
from isthmus.trainer.local.flops import flops
from isthmus.trainer.task.examples import Examples
from isthmus.trainer.task.objective import Objective
from isthmus.trainer.task.shares import batch_at
from isthmus.trainer.training import Training


@dataclass
class Loop:
    """One worker's local steps.

    Attributes:
        config: of the run.
        training: around these steps.
        objective: what is trained by.
        share: this worker's examples.
        operations: of the last round.
        step_flops: operations of one step, by the shapes of the network that made it.
        order: returns the positions in the share of the batch of a global step; by default drawn by seed and seat.
    """

    config: TrainConfig
    training: Training
    objective: Objective
    share: Examples
    operations: int = 0
    step_flops: dict[tuple[torch.Size, ...], int] = field(default_factory=dict)
    order: Callable[[int], np.ndarray] | None = None

    def round(self, number: int, steps: range) -> tuple[float, int]:
        """Make the steps of one round; return the sum of their losses, and how many were made: fewer on being stopped.

        What is random in the network (dropout) is drawn from (seed, round, seat).
        """
        training, device = self.training, self.training.device
        torch.manual_seed(derived_seed(self.config.seed, "train/noise", number, training.seat))
        training.open()
        training.module.train()
        shapes = tuple(parameter.shape for parameter in training.module.parameters())
        total = torch.zeros((), dtype=torch.float64, device=device)
        made = 0
        for step in steps:
            if training.stopping:
                break
            made += 1
            if shapes in self.step_flops:
                total += self._step(step)
            else:
                loss, self.step_flops[shapes] = flops(partial(self._step, step))
                total += loss
        self.operations = self.step_flops.get(shapes, 0) * made
        return total.item(), made

    def _step(self, step: int) -> Tensor:
        config, training = self.config, self.training
        draw = self.order or partial(batch_at, config.seed, config.step.batch_size, training.seat, self.share.count)
        parts = np.split(draw(step), config.step.accumulate)
        loss = torch.zeros((), dtype=torch.float64, device=training.device)
        for number, part in enumerate(parts, start=1):
            with nullcontext() if number == len(parts) else training.no_sync():
                loss += self._pass(part) / len(parts)
        if config.step.clip is not None:
            clip_grad_norm_(training.module.parameters(), config.step.clip)
        for group, peak in zip(training.optimizer.param_groups, self._peaks(), strict=True):
            group["lr"] = peak * config.lr_at(step)
        training.optimizer.step()
        training.optimizer.zero_grad()
        return loss

    def _peaks(self) -> list[float]:
        """Return the peak of every group's rate over that of the configuration."""
        groups = self.training.optimizer.param_groups
        for group in groups:
            group.setdefault("initial_lr", group["lr"])
        return [group["initial_lr"] for group in groups]

    def _pass(self, positions: np.ndarray) -> Tensor:
        """Add the gradients of one pass of some of this worker's examples; return its mean loss."""
        config, module = self.config, self.training.module
        batch = self.share.batch(positions)
        batch = replace(batch, targets=self.training.targets(batch.targets))
        with autocast(config.step.autocast, self.training.device):
            loss = self.objective.training_loss(module, batch)
        (loss / config.step.accumulate if config.step.accumulate > 1 else loss).backward()
        return loss.detach()


def autocast(kind: str | None, device: torch.device) -> nullcontext[None] | torch.autocast:
    """Return the context in which matrix products use another type of number, or one that does nothing."""
    return nullcontext() if kind is None else torch.autocast(device.type, dtype=getattr(torch, kind))
