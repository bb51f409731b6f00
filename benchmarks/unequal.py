"""Time per round of IST on machines of unequal speed: equal pieces against pieces by speed as it is measured.

A slow machine is made by sleeping: a step lasts SECONDS times the worker's slowness for the operations of an equal
piece, and in proportion for one of another size; operations are counted as they are executed. What the processes
compute themselves is a small part of it, so that the cores of the host are not the limit.

    python benchmarks/unequal.py [--seconds 0.02]
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import isthmus
from isthmus.partitions import Law, Uniform, Weighted
from isthmus.strategies import IST
from isthmus.trainer.local.flops import flops

STEPS, EQUAL, ROUNDS = 10, 3, 12  # the first rounds are dealt equally, and left out
INPUTS = {"perceptron": (64,), "convolutions": (1, 8, 8)}


def network(kind: str) -> nn.Module:
    """Return a small network of a kind."""
    torch.manual_seed(0)
    if kind == "perceptron":
        return nn.Sequential(nn.Linear(64, 240), nn.ReLU(), nn.Linear(240, 240), nn.ReLU(), nn.Linear(240, 10))
    layers = [nn.Conv2d(1, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 48, 3, stride=2, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(48 * 16, 10))


def plain(module: nn.Module) -> torch.optim.Optimizer:
    """Return an optimizer."""
    return torch.optim.SGD(module.parameters(), lr=0.01)


def job(kind: str, law: Law, slowness: tuple[float, ...], seconds: float) -> dict[str, Any]:
    """Be one worker; return how long a round takes."""
    torch.set_num_threads(1)
    x, y = torch.randn(16, *INPUTS[kind]), torch.randint(0, 10, (16,))
    training = isthmus.Training(network(kind), (x,), plain, IST(law), local_steps=STEPS)
    counted: dict[tuple[torch.Size, ...], int] = {}
    equal, ends, waited = 0, [], []
    for _ in range(ROUNDS):
        training.open()
        for _ in range(STEPS):
            shapes = tuple(p.shape for p in training.module.parameters())

            def step() -> Tensor:
                loss = functional.cross_entropy(training.module(x), y)
                loss.backward()
                return loss

            if shapes in counted:
                step()
            else:
                counted[shapes] = flops(step)[1]
            equal = equal or counted[shapes]
            time.sleep(seconds * slowness[training.seat] * counted[shapes] / equal)
            training.optimizer.step()
            training.optimizer.zero_grad()
        ends.append(time.perf_counter())
        waited.append(training.account().waiting_seconds)
    training.close()
    rounds = [after - before for before, after in zip(ends[EQUAL:], ends[EQUAL + 1 :], strict=False)]
    wait = [(last - first) / (ROUNDS - 1 - EQUAL) for first, last in zip(waited[EQUAL], waited[-1], strict=True)]
    return {"round": statistics.median(rounds), "capacities": training.capacities, "wait": wait}


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0.02, help="of a step of the fastest machine")
    seconds = parser.parse_args().seconds
    print("| network | slowness | equal pieces: s/round | by speed: s/round | ratio | longest wait: equal, by speed "
          "| capacities |\n|---|---|---|---|---|---|---|")  # fmt: skip
    for kind in INPUTS:
        for slowness in ((1.0, 1.0, 1.0), (1.0, 2.0, 4.0), (1.0, 1.0, 1.0, 4.0)):
            found = [
                isthmus.launch(job, kind, law, slowness, seconds, workers=len(slowness))
                for law in (Uniform(), Weighted("auto"))
            ]
            equal, fast = (each["round"] for each in found)
            waits = ", ".join(f"{max(each['wait']):.2f}" for each in found)
            capacities = " ".join(f"{each:g}" for each in found[1]["capacities"])
            print(f"| {kind} | {' '.join(f'{each:g}' for each in slowness)} | {equal:.3f} | {fast:.3f} "
                  f"| {equal / fast:.2f} | {waits} | {capacities} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
