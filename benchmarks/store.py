"""What a round costs beside its steps: cut, exchange and merge against moving the same bytes, and over workers.

    python -m benchmarks.store                     # cost of a round against all_to_all_single, 4 workers
    python -m benchmarks.store --workers 2 4 8 16  # and how the CPU time of all workers grows with their number

Every number is CPU seconds of a round (of all workers together), so it holds on a shared machine; the seconds that pass
are beside it. A round is opened and closed around one step without work: what is left is the store.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

import isthmus


def perceptron(width: int, depth: int) -> tuple[nn.Module, tuple[torch.Tensor]]:
    layers: list[nn.Module] = [nn.Linear(64, width), nn.ReLU()]
    for _ in range(depth - 1):
        layers += [nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 10)), (torch.zeros(2, 64),)


def rounds(width: int, depth: int, law: str, count: int) -> dict[str, Any]:
    """Make some rounds without work; then move the same bytes by one collective. As one worker."""
    training = isthmus.Training(
        lambda: perceptron(width, depth),
        optimizer=lambda module: torch.optim.SGD(module.parameters(), lr=0.0),
        law=law,
        local_steps=1,
    )
    training.optimizer.step()  # the first round builds the graphs
    before = training.account()
    spent = measured(count, training.optimizer.step)
    after = training.account()
    moved = [b - a for a, b in zip(before.sent_bytes, after.sent_bytes, strict=True)]
    here, workers = training.worker, training.workers
    share = max(moved) // count // max(1, workers - 1)
    sizes = [0 if other == here else share for other in range(workers)]
    send, got = torch.zeros(sum(sizes), dtype=torch.uint8), torch.empty(sum(sizes), dtype=torch.uint8)
    plain = measured(count, lambda: dist.all_to_all_single(got, send, sizes, sizes))
    training.close()
    return {"round": spent, "move": plain, "bytes": moved[here] / count}


def measured(count: int, work: Any) -> tuple[float, float]:
    """Return CPU seconds of this process, and seconds, of one piece of work."""
    dist.barrier()
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(count):
        work()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    dist.barrier()
    return cpu / count, wall / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[4])
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--depth", type=int, default=3, help="hidden layers")
    parser.add_argument("--laws", nargs="+", default=["uniform", "block", "fixed"])
    parser.add_argument("--rounds", type=int, default=20)
    chosen = parser.parse_args()
    for law in chosen.laws:
        total: list[float] = []
        for workers in chosen.workers:
            found = isthmus.launch(everybody, chosen.width, chosen.depth, law, chosen.rounds, workers=workers)
            cpu, wall = (sum(each["round"][side] for each in found) for side in (0, 1))
            plain, passed = (sum(each["move"][side] for each in found) for side in (0, 1))
            total.append(cpu)
            size = sum(each["bytes"] for each in found)
            print(
                f"{law:8} {workers:3} workers: {size / 1e6:7.2f} MB a round, CPU {1e3 * cpu:7.2f} ms, "
                f"{cpu / plain:5.2f} x all_to_all_single; {1e3 * wall / workers:7.2f} ms pass, {wall / passed:5.2f} x",
                flush=True,
            )
        if len(total) > 2:
            slope = np.polyfit(np.log(chosen.workers), np.log(total), 1)[0]
            print(f"{law:8} CPU of all workers grows as n^{slope:.2f}")


def everybody(*arguments: Any) -> list[dict[str, Any]]:
    """Be one worker; return what all measured."""
    mine = rounds(*arguments)
    found: list[Any] = [None] * dist.get_world_size()
    numbers = torch.tensor([*mine["round"], *mine["move"], mine["bytes"]], dtype=torch.float64)
    gathered = [torch.empty_like(numbers) for _ in found]
    dist.all_gather(gathered, numbers)
    return [{"round": (r[0], r[1]), "move": (r[2], r[3]), "bytes": r[4]} for r in (g.tolist() for g in gathered)]


if __name__ == "__main__":
    main()
