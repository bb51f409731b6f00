"""Losses and metrics of one's own, by the name of a function that makes them; and data that needs them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset as TorchDataset

from isthmus.data import Dataset
from isthmus.errors import InvalidInput

Pairs = TorchDataset[tuple[Tensor, Tensor]]


def smoothed() -> Callable[[Tensor, Tensor], Tensor]:
    """Cross-entropy with label smoothing."""
    return partial(functional.cross_entropy, label_smoothing=0.1)


def balanced() -> Callable[[Tensor, Tensor], Tensor]:
    """The mean over classes of the share that is found."""

    def metric(outputs: Tensor, targets: Tensor) -> Tensor:
        found = outputs.argmax(1) == targets
        return torch.stack([found[targets == each].double().mean() for each in targets.unique()]).mean()

    return metric


def share_right() -> Callable[[Tensor, Tensor], Tensor]:
    """The accuracy, as a metric."""
    return lambda outputs, targets: (outputs.argmax(1) == targets).double().mean()


def picky() -> Callable[[Tensor, Tensor], Tensor]:
    """Refuses some targets, in words of isthmus."""

    def loss(output: Tensor, targets: Tensor) -> Tensor:
        if targets.max() > 8:
            raise InvalidInput("`data` must hold digits up to 8, got 9")
        return functional.cross_entropy(output, targets)

    return loss


_made = count(1)  # losses; what plans a run makes its own, so that its steps are none of the run's


def deadly() -> Callable[[Tensor, Tensor], Tensor]:
    """Cross-entropy that kills worker 1, started by torchrun for the first time, in its tenth step of the run."""
    first = (os.environ.get("RANK"), os.environ.get("TORCHELASTIC_RESTART_COUNT")) == ("1", "0")
    doomed, steps = first and next(_made) == 1, count(1)

    def loss(output: Tensor, targets: Tensor) -> Tensor:
        if doomed and output.requires_grad and next(steps) == 10:
            os.kill(os.getpid(), signal.SIGKILL)
        return functional.cross_entropy(output, targets)

    return loss


def no_loss() -> int:
    return 3


def breaks() -> None:
    raise RuntimeError("no such file")


class Items(Pairs):
    """Pairs by number, as a user would write them."""

    def __init__(self, inputs: Tensor, targets: Tensor) -> None:
        self.inputs, self.targets = inputs, targets

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        return self.inputs[number], self.targets[number]


class Named(Items):
    """The same as dictionaries of named arguments, targets among them."""

    def __getitem__(self, number: int) -> Any:
        return {"x": self.inputs[number], "labels": self.targets[number]}


def blobs(samples: int = 400, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Three clouds of points with 6 numbers each, and the cloud of each point."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(samples) % 3
    centers = 3.0 * torch.eye(3, 6)
    return centers[targets] + torch.randn(samples, 6, generator=generator), targets


def sums(samples: int = 400, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Points with 6 numbers each, and a number that depends on them: a regression."""
    inputs, _ = blobs(samples, seed)
    return inputs, (inputs[:, :1].tanh() + 0.5 * inputs[:, 1:2]).contiguous()


def several(samples: int = 400, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Points with 6 numbers each, and four labels a point, any of which may hold."""
    inputs, _ = blobs(samples, seed)
    return inputs, (inputs[:, :4] > 0.5).float()


class Plain(nn.Module):
    """A small network of 6 numbers; where it is given labels, it returns its own loss beside the logits."""

    def __init__(self, outputs: int = 3) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(6, 16), nn.Linear(16, outputs)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Any:
        logits = self.outer(functional.relu(self.inner(x)))
        if labels is None:
            return logits
        return {"loss": functional.cross_entropy(logits, labels, label_smoothing=0.1), "logits": logits}


def bytes_of_images() -> Dataset:
    """Digits as bytes 0..255."""
    from isthmus.data import load

    digits = load("digits")
    images = (digits.features * 255).round().astype(np.uint8)
    return Dataset("bytes", images, digits.targets, 10, (8, 8))
