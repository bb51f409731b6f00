"""Scripts around ``isthmus.Training``, as people write them, to be run by workers that take turns or by processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._pytree import tree_map

from cases.groups import run_group
from isthmus import Training
from isthmus.trainer.executors.in_turn import run_in_turn


def in_turn(function: Callable[..., Any], workers: int, *arguments: Any) -> list[Any]:
    """Call a function as every worker, on threads of this process."""
    return run_in_turn(function, [arguments] * workers)


def processes(function: Callable[..., Any], workers: int, *arguments: Any) -> list[Any]:
    """Call a function as every worker, in processes of their own; tensors in the results come back by value."""
    return tree_map(_tensor, run_group(_by_value, workers, function, arguments))


def _by_value(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    return tree_map(lambda leaf: leaf.numpy() if isinstance(leaf, Tensor) else leaf, function(*arguments))


def _tensor(leaf: Any) -> Any:
    return torch.from_numpy(leaf) if isinstance(leaf, np.ndarray) else leaf


WAYS: dict[str, Callable[..., list[Any]]] = {"in turn": in_turn, "processes": processes}


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3))


def normed() -> nn.Module:
    layers = [nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2)]
    return nn.Sequential(*layers, nn.Linear(8 * 16, 12), nn.ReLU(), nn.Linear(12, 3))


def sgd(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)


def adamw(module: nn.Module) -> torch.optim.Optimizer:
    """Two groups, by name."""
    biases = [p for name, p in module.named_parameters() if name.endswith("bias")]
    weights = [p for name, p in module.named_parameters() if not name.endswith("bias")]
    return torch.optim.AdamW([{"params": weights, "weight_decay": 0.1}, {"params": biases, "lr": 0.003}], lr=0.01)


def batch(worker: int, step: int, shape: tuple[int, ...] = (6,), size: int = 8) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(1000 * worker + step)
    return torch.randn(size, *shape, generator=random), torch.randint(0, 3, (size,), generator=random)


def take_step(training: Training, step: int) -> None:
    x, y = batch(training.worker, step)
    functional.cross_entropy(training.module(x), y).backward()
    training.optimizer.step()
    training.optimizer.zero_grad()


def state_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())
