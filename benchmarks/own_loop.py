"""What isthmus costs around a loop: CPU time under `isthmus.Training` over that of the same loop written by hand.

    OMP_NUM_THREADS=1 python -m benchmarks.own_loop

One worker and one thread, so that both loops compute the same; a perceptron 784-w-w-10, SGD with momentum. The loops
take turns, and the ratio of each pair is taken, as the machine may be busy with other things. Shown: the median ratio,
and half of the pairs lie between the two numbers beside it.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import product

import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

import isthmus
from isthmus.progress import progress


@dataclass(frozen=True)
class Options:
    """What to measure.

    Attributes:
        widths: units of both hidden layers.
        batches: samples of a step.
        strategies: to train by.
        local_steps: steps between merges.
        pairs: how often the two loops are compared.
        steps: of one loop, at least; whole rounds.
        json: print one JSON object instead of a table.
    """

    widths: tuple[int, ...] = (256, 1024)
    batches: tuple[int, ...] = (32, 128)
    strategies: tuple[str, ...] = ("ist", "local-sgd", "data-parallel")
    local_steps: tuple[int, ...] = (10, 50)
    pairs: int = 15
    steps: int = 50
    json: bool = False


@dataclass(frozen=True)
class Case:
    """One comparison, and what came out of it."""

    strategy: str
    width: int
    norm: bool
    batch: int
    local_steps: int
    ratio: float
    low: float
    high: float


def main(options: Options) -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    kinds = [
        *product(options.strategies, options.widths, (False, True), options.batches, options.local_steps),
    ]
    with progress("own_loop", len(kinds)) as advance:
        cases = []
        for kind in kinds:
            cases.append(measure(options, *kind))
            advance(1, f"{cases[-1].ratio:.3f}")
    if options.json:
        print(json.dumps([asdict(case) for case in cases]))
    else:
        Console().print(table(cases))


def measure(options: Options, strategy: str, width: int, norm: bool, batch: int, local_steps: int) -> Case:
    """Return the ratios of one case."""
    x, y = torch.randn(batch, 784), torch.randint(10, (batch,))
    module = perceptron(width, norm)
    by_hand = loop(module, make_optimizer(module), x, y)
    network = perceptron(width, norm)
    with isthmus.Training(network, (x,), make_optimizer, strategy, local_steps=local_steps) as training:
        ours = loop(training.module, training.optimizer, x, y)
        steps = -(-options.steps // local_steps) * local_steps
        found = sorted(ratios(lambda: ours(steps), lambda: by_hand(steps), options.pairs))
    low, median, high = statistics.quantiles(found, n=4)
    return Case(strategy, width, norm, batch, local_steps, median, low, high)


def ratios(ours: Callable[[], None], by_hand: Callable[[], None], pairs: int) -> Iterator[float]:
    """Yield ratios of CPU time; the order changes from pair to pair."""
    ours(), by_hand()
    for number in range(pairs):
        if number % 2:
            hand = seconds(by_hand)
            yield seconds(ours) / hand
        else:
            mine = seconds(ours)
            yield mine / seconds(by_hand)


def seconds(function: Callable[[], None]) -> float:
    """Return the CPU time of a call."""
    start = time.process_time()
    function()
    return time.process_time() - start


def loop(module: nn.Module, optimizer: Optimizer, x: Tensor, y: Tensor) -> Callable[[int], None]:
    """Return some steps of training, as anybody writes them."""

    def run(steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            functional.cross_entropy(module(x), y).backward()
            optimizer.step()

    return run


def perceptron(width: int, norm: bool) -> nn.Sequential:
    """Return a perceptron with two hidden layers, with or without batch norms."""
    layers: list[nn.Module] = []
    for inputs in (784, width):
        layers += [nn.Linear(inputs, width), *([nn.BatchNorm1d(width)] if norm else []), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 10))


def make_optimizer(module: nn.Module) -> Optimizer:
    """Return SGD with momentum."""
    return torch.optim.SGD(module.parameters(), lr=1e-3, momentum=0.9)


def table(cases: list[Case]) -> Table:
    """Return the table for people."""
    shown = Table(title="CPU time under isthmus.Training / of the loop by hand (one worker, one thread)")
    for column in ("strategy", "hidden", "norm", "batch", "local steps", "ratio", "half of the pairs"):
        shown.add_column(column, justify="left" if column in ("strategy", "norm") else "right")
    for case in cases:
        shown.add_row(
            case.strategy,
            f"{case.width}-{case.width}",
            "batch" if case.norm else "-",
            str(case.batch),
            str(case.local_steps),
            f"{case.ratio:.3f}",
            f"{case.low:.3f} .. {case.high:.3f}",
        )
    return shown


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
