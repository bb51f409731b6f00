"""Time per round of IST on machines of unequal speed: equal pieces against pieces by speed as it is measured.

A slow machine is made by sleeping: a step lasts SECONDS times the worker's slowness for the operations of an equal
piece, and in proportion for one of another size; operations are counted as they are executed. What the processes
compute themselves is a small part of it, so that the cores of the host are not the limit. Beside what was measured
stands what the operations alone come to under the capacities that were found: exact, however busy the host is.

    python benchmarks/unequal.py [--seconds 0.02] [--exact]

``--exact`` measures nothing: from the slowness itself follow the capacities, once by how many numbers a piece has, once
by its operations as a training counts them, and the ratio by the operations that are executed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import isthmus
from isthmus.nets.pieces.subnetwork import build
from isthmus.partitions import Law, Uniform, Weighted
from isthmus.partitions.weighted import balance
from isthmus.strategies import IST
from isthmus.trainer.local.flops import flops
from isthmus.trainer.task.effort import efforts

STEPS, EQUAL, ROUNDS = 10, 3, 12  # the first rounds are dealt equally, and left out
SLOWNESS = ((1.0, 1.0, 1.0), (1.0, 2.0, 4.0), (1.0, 1.0, 1.0, 4.0))
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


class Pieces:
    """The pieces of a small network under some capacities, and what they take."""

    def __init__(self, kind: str, workers: int) -> None:
        self.model, self.x, self.workers = network(kind), torch.randn(16, *INPUTS[kind]), workers
        self.coupling = isthmus.trace(self.model, (self.x,))
        self.efforts = efforts(self.of([1.0] * workers)[0].to("meta"), self.coupling.example)

    def of(self, capacities: Sequence[float]) -> list[nn.Module]:
        """Return them."""
        partition = self.coupling.partition(self.workers, 0, 0, Weighted(tuple(capacities)))
        return [build(self.model, self.coupling, partition.of(w)).module for w in range(self.workers)]

    def numbers(self, capacities: Sequence[float]) -> list[float]:
        """Return how many numbers each has."""
        return [sum(p.numel() for p in piece.parameters()) for piece in self.of(capacities)]

    def operations(self, capacities: Sequence[float]) -> list[float]:
        """Return what each takes as a training counts it."""
        pieces = self.of(capacities)
        return [sum(p.numel() * self.efforts[name] for name, p in piece.named_parameters()) for piece in pieces]

    def executed(self, capacities: Sequence[float]) -> list[int]:
        """Return the operations of a step that are executed."""
        return [flops(lambda piece=piece: piece(self.x).sum().backward())[1]  # type: ignore[misc]
                for piece in self.of(capacities)]  # fmt: skip

    def ratio(self, slowness: Sequence[float], capacities: Sequence[float]) -> float:
        """Return the slowest worker's time with equal pieces over that with pieces by capacities."""
        equal, dealt = (
            max(each * slow for each, slow in zip(self.executed(chosen), slowness, strict=True))
            for chosen in ([1.0] * self.workers, capacities)
        )
        return equal / dealt


def exact() -> None:
    """Print what the slowness alone comes to."""
    print("| network | slowness | capacities by numbers | ratio | capacities by operations | ratio |")
    print(6 * "|---" + "|")
    for kind in INPUTS:
        for slowness in SLOWNESS[1:]:
            pieces = Pieces(kind, len(slowness))
            spent = [each * slow for each, slow in zip(pieces.executed([1.0] * pieces.workers), slowness, strict=True)]
            found = [balance(spent, work) for work in (pieces.numbers, pieces.operations)]
            shown = [f"{_words(each)} | {pieces.ratio(slowness, each):.2f}" for each in found]
            print(f"| {kind} | {_words(slowness)} | {' | '.join(shown)} |", flush=True)


def _words(numbers: Sequence[float]) -> str:
    return " ".join(f"{each:g}" for each in numbers)


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0.02, help="of a step of the fastest machine")
    parser.add_argument("--exact", action="store_true", help="measure nothing")
    args = parser.parse_args()
    if args.exact:
        exact()
        return
    seconds = args.seconds
    print("| network | slowness | equal pieces: s/round | by speed: s/round | ratio | ratio by operations "
          "| longest wait: equal, by speed | capacities |\n|---|---|---|---|---|---|---|---|")  # fmt: skip
    for kind in INPUTS:
        for slowness in SLOWNESS:
            found = [
                isthmus.launch(job, kind, law, slowness, seconds, workers=len(slowness))
                for law in (Uniform(), Weighted("auto"))
            ]
            equal, fast = (each["round"] for each in found)
            waits = ", ".join(f"{max(each['wait']):.2f}" for each in found)
            capacities = found[1]["capacities"]
            expected = Pieces(kind, len(slowness)).ratio(slowness, capacities)
            print(f"| {kind} | {_words(slowness)} | {equal:.3f} | {fast:.3f} | {equal / fast:.2f} | {expected:.2f} "
                  f"| {waits} | {_words(capacities)} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
