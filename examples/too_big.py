"""A network that fits nowhere: every worker gets less memory than its weights take, and IST trains and exports it.

    python -m examples.too_big

Each worker limits itself (RLIMIT_DATA: heap and other private memory, also what is only asked for) to what it has when
all libraries are loaded, and so many MB more. Then it tries: to hold the weights and nothing else; to train by
data-parallel, by local SGD, by IST. Shown are what was planned, the limit, and what became of it.
"""

import re
import resource
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from rich.console import Console
from rich.table import Table
from safetensors import safe_open
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

import isthmus
from isthmus.errors import IsthmusError
from isthmus.trainer import memory_plan
from isthmus.trainer.config import Faults
from isthmus.trainer.membership.link import join


@dataclass(frozen=True)
class Options:
    """How large, and how tight.

    Attributes:
        width: units of each of the two hidden layers; the network has 4 width^2 bytes and a little more.
        limit: MB that a worker may take.
        workers: number of workers.
        rounds: of ten steps each.
        strategies: to try, beside holding the bare weights.
    """

    width: int = 8192
    limit: int = 160
    workers: int = 8
    rounds: int = 12
    strategies: tuple[str, ...] = ("data-parallel", "local-sgd", "ist")


BATCH = 32


BARE = Faults(copies=False)  # a copy of a neighbour's rows, for the case that it dies, has no room here


def network(width: int) -> nn.Module:
    """A perceptron for digits, 64-width-width-10."""
    return nn.Sequential(
        nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)
    )


def optimizer(module: nn.Module) -> torch.optim.Optimizer:
    """SGD with momentum."""
    return torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)


def digits() -> tuple[Tensor, Tensor]:
    """The images and classes of the digits, the last 360 to test on."""
    data = load_digits()
    return torch.tensor(data.data / 16, dtype=torch.float32), torch.tensor(data.target)


def limit_memory(megabytes: int) -> None:
    """Allow this process so much more than it has now."""
    lines = Path("/proc/self/status").read_text().splitlines()
    now = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData:"))
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (now + megabytes * 1_000_000, hard))


def warm_up() -> None:
    """Load all that torch loads at its first use: train a tiny network in this process alone."""
    torch.set_num_threads(1)
    x, y = digits()
    isthmus.trace(network(8), (x[:2],))
    module = network(8)
    functional.cross_entropy(module(x[:2]), y[:2]).backward()
    optimizer(module).step()


def bare(options: Options) -> str:
    """Hold the weights, and nothing else."""
    warm_up()
    limit_memory(options.limit)
    held = network(options.width)
    return f"held {sum(p.nbytes for p in held.parameters()) / 1e6:.0f} MB"


def train(options: Options, strategy: str, path: str) -> str:
    """Be one worker: train, test the merged network on this worker's part of the test images, export."""
    warm_up()
    join()  # the limit is for the network: not for the connections, and the threads that serve them
    limit_memory(options.limit)
    x, y = digits()
    whole, example = (lambda: network(options.width)), (x[:2],)
    training = isthmus.Training(whole, example, optimizer, strategy, local_steps=10, faults=BARE)
    mine = training.share(range(1437))
    order = torch.Generator().manual_seed(training.worker)
    for _ in range(10 * options.rounds):
        chosen = torch.tensor(mine.indices)[torch.randint(len(mine), (BATCH,), generator=order)]
        loss = functional.cross_entropy(training.module(x[chosen]), y[chosen])
        loss.backward()
        training.optimizer.step()
        training.optimizer.zero_grad()
    tested = torch.arange(1437, len(x))[training.worker :: training.workers]
    with training.whole() as model, torch.no_grad():
        right = int((model(x[tested]).argmax(1) == y[tested]).sum())
    found = sum(right for (right,) in training.gather(right))
    training.export(path)
    training.close()
    return f"trained to an accuracy of {found / (len(x) - 1437):.1%}, and exported"


def outcome(function: Any, *arguments: Any, workers: int) -> str:
    """Return what came of a function in as many processes, on one line."""
    try:
        return str(isthmus.launch(function, *arguments, workers=workers))
    except IsthmusError as error:
        asked = re.search(r"tried to allocate (\d+) bytes", str(error))
        return f"no: {int(asked[1]) / 1e6:.0f} MB were refused" if asked else str(error)


def main(options: Options) -> Table:
    """Try everything, and return the table."""
    example = (torch.zeros(BATCH, 64),)
    weights = 4 * (options.width**2 + 76 * options.width + 10)
    shown = Table(title=f"64-{options.width}-{options.width}-10, {weights / 1e6:.0f} MB, {options.workers} workers")
    for title in ("what", "planned (MB)", "limit (MB)", "outcome"):
        shown.add_column(title, justify="right" if "MB" in title else "left")
    limit = str(options.limit)
    shown.add_row("bare weights", f"{weights / 1e6:.0f}", limit, outcome(bare, options, workers=1))
    with tempfile.TemporaryDirectory() as folder:
        for strategy in options.strategies:
            path = Path(folder) / f"{strategy}.safetensors"
            plans = memory_plan(
                lambda: network(options.width), example, optimizer, strategy, workers=options.workers, copies=False
            )
            planned = f"{max(plan.total for plan in plans) / 1e6:.0f}"
            said = outcome(train, options, strategy, str(path), workers=options.workers)
            if path.exists():
                with safe_open(path, "pt") as file:  # read tensor by tensor
                    size = sum(file.get_tensor(name).nbytes for name in file.keys())  # noqa: SIM118, it is no dictionary
                said += f" ({size / 1e6:.0f} MB, readable)"
            shown.add_row(strategy, planned, limit, said)
    return shown


if __name__ == "__main__":
    Console().print(main(tyro.cli(Options, description=__doc__)))
