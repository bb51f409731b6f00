"""What a step of a piece costs beside a step of the plain module it stands for: CPU time, interleaved, one process.

    OMP_NUM_THREADS=1 python benchmarks/nets_step.py

One worker holds all of a perceptron 784-w-w-10, so both compute the same. Each line is the median over rounds of
(CPU time of the piece) / (CPU time of the module), for the forward pass alone and for forward, backward and SGD.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

import isthmus
from isthmus.nets.pieces.subnetwork import build

ROUNDS = 60


def perceptron(width: int, norm: bool) -> nn.Sequential:
    """Return a perceptron with two hidden layers, with or without batch norms."""
    layers: list[nn.Module] = []
    for inputs in (784, width):
        layers += [nn.Linear(inputs, width), *([nn.BatchNorm1d(width)] if norm else []), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 10))


def step_of(module: nn.Module, x: torch.Tensor, y: torch.Tensor) -> Callable[[], None]:
    """Return a step of SGD."""
    optimizer = torch.optim.SGD(module.parameters(), 1e-3)

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(x), y).backward()
        optimizer.step()

    return step


def seconds(function: Callable[[], object], repeats: int) -> float:
    """Return the CPU time of some calls."""
    start = time.process_time()
    for _ in range(repeats):
        function()
    return time.process_time() - start


def ratio(piece: Callable[[], object], module: Callable[[], object], repeats: int) -> float:
    """Return the median ratio of CPU times; the order changes every round."""
    found = []
    for round in range(ROUNDS):
        if round % 2:
            plain = seconds(module, repeats)
            found.append(seconds(piece, repeats) / plain)
        else:
            ours = seconds(piece, repeats)
            found.append(ours / seconds(module, repeats))
    return statistics.median(found)


def main() -> None:
    """Print the ratios."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print("hidden      norm  batch  forward  step")
    for width, repeats in ((256, 20), (1024, 3)):
        for norm in (False, True):
            for batch in (32, 128):
                x, y = torch.randn(batch, 784), torch.randint(10, (batch,))
                module = perceptron(width, norm)
                piece = build(module, isthmus.trace(module, (x,)), {}).module
                forward = ratio(lambda p=piece, x=x: p(x), lambda m=module, x=x: m(x), repeats)
                step = ratio(step_of(piece, x, y), step_of(module, x, y), repeats)
                label = f"{width}-{width}"
                print(f"{label:<10}  {'batch' if norm else '-':<5} {batch:>5}  {forward:>7.3f}  {step:.3f}", flush=True)


if __name__ == "__main__":
    main()
