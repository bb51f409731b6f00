"""Whether `--law auto` picks the best law: the four example networks under every law, at the same number of samples.

    python -m benchmarks.law_by_structure --network resnet

One learning rate a network, that which benchmarks/train_networks.py found for IST with 4 workers. Prints a Markdown
row; `auto` is one of the laws, so it needs no runs of its own. Runs that exist are not run again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import tyro
from benchmarks.grid import Grid
from benchmarks.train_networks import COMPARISONS

import isthmus
from isthmus.factories import call_factory, load_factory, network_and_call
from isthmus.progress import progress

LAWS = ("uniform", "fixed", "block")
SHORT: dict[str, dict[str, Any]] = {  # of what benchmarks/train_networks.py runs
    "cnn": {"samples": 40_000, "lr": 0.1},
    "resnet": {"samples": 16_000, "lr": 0.1},
    "gpt": {"samples": 4_000, "lr": 3e-3, "data": "text:docs"},  # of this repository: every machine has it
    "gcn": {"rounds": 20, "lr": 3e-2},
}


@dataclass(frozen=True)
class Options:
    """What to compare.

    Attributes:
        network: cnn, resnet, gpt or gcn.
        workers: number of workers.
        seeds: number of seeds, 0 first.
        folder: where the run folders are.
    """

    network: str = "cnn"
    workers: int = 4
    seeds: int = 3
    folder: Path = Path("runs/law-by-structure")


def main(options: Options) -> None:
    """Run, print."""
    comparison = COMPARISONS[options.network]
    setting = {**comparison.setting, **SHORT[options.network], "workers": options.workers, "verify": False}
    with progress(f"law_by_structure {options.network}", len(LAWS) * options.seeds) as advance:
        grid = Grid(setting, (setting["lr"],), (), options.folder / options.network, comparison.by_loss, advance)
        cells = []
        for law in LAWS:
            runs = [grid.run(law, {"law": law}, {"seed": seed}) for seed in range(options.seeds)]
            by_loss = comparison.by_loss
            found = [run.summary["test_loss"] if by_loss else 100 * run.summary["test_accuracy"] for run in runs]
            spread = f" ± {stdev(found):.{3 if by_loss else 2}f}" if len(found) > 1 else ""
            cells.append(f"{mean(found):.{3 if by_loss else 2}f}{spread}")
    law, why = chosen(setting["model"])
    print(f"| network, {options.workers} workers, {options.seeds} seeds | {' | '.join(LAWS)} | auto |")
    print("|---|" + "---|" * (len(LAWS) + 1))
    print(f"| {options.network} | {' | '.join(cells)} | {law}: {why} |")


def chosen(target: str) -> tuple[str, str]:
    """Return the law that a network's structure chooses, and why."""
    factory = load_factory(target, "model")
    network, args, kwargs = network_and_call(call_factory(factory, target), target)
    law, why = isthmus.trace(network, args, kwargs).chosen()
    return law.name, why


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
