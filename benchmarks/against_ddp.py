"""The built-in data-parallel against torch's DistributedDataParallel: the same weights, the bytes, and the time.

``python benchmarks/against_ddp.py [--workers 2] [--widths 1024 1024] [--steps 60]`` trains the same perceptron both
ways in the same processes, in turns, and prints one table of worker 0. Time is given twice: in CPU seconds, which a
busy machine changes little, and by the clock.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from isthmus import Training
from isthmus.strategies import DDP, DataParallel
from isthmus.trainer import launch

TURNS = 3


@dataclass(frozen=True)
class Found:
    """What one worker has measured of one way: seconds and bytes a step, and its weights in one number each."""

    cpu: float
    wall: float
    sent: float
    norms: list[float]


def measure(widths: tuple[int, ...], steps: int) -> dict[str, dict[str, object]]:
    """Train both ways in turns; return the best turn of each."""
    torch.set_num_threads(1)
    best: dict[str, Found] = {}
    for _ in range(TURNS):
        for strategy in (DataParallel(), DDP()):
            found = one(strategy, widths, steps)
            before = best.get(strategy.name)
            best[strategy.name] = found if before is None or found.cpu < before.cpu else before
    return {name: asdict(found) for name, found in best.items()}


def one(strategy: DataParallel | DDP, widths: tuple[int, ...], steps: int) -> Found:
    """Train one way."""
    training = Training(
        lambda: perceptron(widths), (torch.zeros(2, 784),), lambda m: torch.optim.SGD(m.parameters(), lr=0.01),
        strategy, local_steps=steps + 2,
    )  # fmt: skip
    random = torch.Generator().manual_seed(training.worker)
    x, y = torch.randn(64, 784, generator=random), torch.randint(0, 10, (64,), generator=random)

    def step(x: Tensor, y: Tensor) -> None:
        functional.cross_entropy(training.module(x), y).backward()
        training.optimizer.step()
        training.optimizer.zero_grad()

    for _ in range(2):  # torch arranges its buckets in the first
        step(x, y)
    before = training.account().sent_bytes[training.worker]
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(steps):
        step(x, y)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    sent = training.account().sent_bytes[training.worker] - before
    with training.whole() as merged:
        assert merged is not None
        norms = [float(p.detach().double().norm()) for p in merged.parameters()]
    training.close()
    return Found(cpu / steps, wall / steps, sent / steps, norms)


def perceptron(widths: tuple[int, ...]) -> nn.Module:
    """A perceptron of 784 inputs and 10 classes."""
    sizes = (784, *widths)
    hidden = [each for a, b in pairwise(sizes) for each in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(sizes[-1], 10))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--widths", type=int, nargs="+", default=[1024, 1024])
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()
    found = launch(measure, tuple(options.widths), options.steps, workers=options.workers)
    ours, torchs = (Found(**found[name]) for name in ("data-parallel", "ddp"))
    print(f"{'':16}{'CPU ms a step':>16}{'clock ms':>12}{'kB sent':>12}")
    for name, each in (("data-parallel", ours), ("ddp", torchs)):
        print(f"{name:16}{1e3 * each.cpu:16.2f}{1e3 * each.wall:12.2f}{each.sent / 1e3:12.1f}")
    print(f"{'ratio':16}{ours.cpu / torchs.cpu:16.3f}{ours.wall / torchs.wall:12.3f}{ours.sent / torchs.sent:12.4f}")
    apart = max(abs(a - b) / b for a, b in zip(ours.norms, torchs.norms, strict=True))
    print(f"largest relative difference of a weight's norm: {apart:.1e}")


if __name__ == "__main__":
    main()
