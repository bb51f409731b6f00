"""What saving costs: seconds beside the work between two checkpoints, and memory beside the shards.

Run: python -m benchmarks.checkpoint [--width 4096] [--law block] [--workers 4]
"""

from __future__ import annotations

import argparse
import ctypes
import shutil
import tempfile
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

import isthmus
from isthmus.trainer.config.saving import INTERVAL
from isthmus.trainer.observe.account import resident_bytes


class Network(nn.Sequential):
    """784-w-w-10."""

    def __init__(self, width: int) -> None:
        layers = (nn.Linear(784, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10))
        super().__init__(*layers)


def job(width: int, law: str, folder: str) -> list[list[float]]:
    """Save three times after a round each; return the last one's seconds and memory, by worker."""
    training = isthmus.Training(lambda: Network(width), (torch.zeros(2, 784),), adamw, law=law, local_steps=2)
    for _ in range(3):
        for _ in range(2):
            x = torch.randn(32, 784)
            functional.cross_entropy(training.module(x), torch.zeros(32, dtype=torch.int64)).backward()
            training.optimizer.step()
            training.optimizer.zero_grad()
        training.merge()
        before, start, cpu = reset_peak(), time.perf_counter(), time.process_time()
        path = training.save(folder)
        taken, worked = time.perf_counter() - start, time.process_time() - cpu
        growth = (resident_bytes(peak=True) or 0) - before
        size = (path / f"shard-{training.worker:05d}-of-{training.workers:05d}.safetensors").stat().st_size
    largest = 4 * max(784, width) * -(-width // training.workers)
    told = training.gather(taken, worked, growth, size, largest)
    training.close()
    return told


def adamw(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(module.parameters())


def reset_peak() -> int:
    """Give back what is free, have the system count the largest resident set anew, and return the present one."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return resident_bytes() or 0


def main() -> None:
    """Print a line a worker."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--law", default="block")
    parser.add_argument("--workers", type=int, default=4)
    options = parser.parse_args()
    folder = tempfile.mkdtemp()
    told = isthmus.launch(job, options.width, options.law, folder, workers=options.workers)
    shutil.rmtree(folder)
    print(f"784-{options.width}-{options.width}-10, law {options.law}, {options.workers} workers, AdamW")
    print("worker  seconds  CPU seconds  of two minutes  file MB  growth MB  largest shard MB")
    for worker, (taken, worked, growth, size, largest) in enumerate(told):
        numbers = (taken, worked, 100 * taken / INTERVAL, size / 1e6, growth / 1e6, largest / 1e6)
        print("{:6d}  {:7.2f}  {:11.2f}  {:13.2f}%  {:7.1f}  {:9.2f}  {:16.1f}".format(worker, *numbers))


if __name__ == "__main__":
    main()
