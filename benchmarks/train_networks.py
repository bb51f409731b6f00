"""IST on a CNN, a ResNet (by width and by depth), a GPT on bytes and a graph network, beside its rivals.

    python -m benchmarks.train_networks --network cnn
    python -m benchmarks.train_networks --network cnn --costs

For 2 and 4 workers at the same number of samples: data-parallel, local SGD, the narrow dense network that costs a
worker what IST costs it, IST as in the original paper (a new permutation every round), and IST with fixed pieces, with
and without a shared core. A learning rate is chosen for every row with 4 workers under a seed of its own. Prints a
Markdown table; `isthmus report` reads the run folders.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
import tyro
from benchmarks.grid import Grid, costs

from examples import networks
from isthmus.progress import progress
from isthmus.records import Run

IMAGES = {"data": "idx:/usr/share/datasets/fashion-mnist", "features": "standardized"}
TEXT = "text:/usr/share/doc/anarchism/markdown"
CORE = {"core": 0.25}
LAST = {"eval_every": 10**6}  # evaluate before the first round and after the last


def gpt() -> tuple[torch.nn.Module, tuple[torch.Tensor]]:
    """Two layers, so that the whole comparison takes minutes; eight heads, so that four workers can share two."""
    return networks.gpt(layers=2, width=128, heads=8)


def gcn() -> tuple[torch.nn.Module, tuple[torch.Tensor, torch.Tensor]]:
    """A graph of 1,000 nodes."""
    return networks.gcn(nodes=1000)


DENSE = {"data-parallel": {"strategy": "data-parallel"}, "local SGD": {"strategy": "local-sgd"}}
WIDTH = {
    **DENSE,
    "narrow": {"strategy": "narrow"},
    "IST uniform": {"law": "uniform"},
    "IST block": {"law": "block"},
    "narrow, core 1/4": {"strategy": "narrow", **CORE},
    "IST uniform, core 1/4": {"law": "uniform", **CORE},
    "IST block, core 1/4": {"law": "block", **CORE},
}
DEPTH = {"cut": ("block",), "law": "overlapping"}
STREAM = {  # no weight joins two cut axes in a transformer: there are no cross-blocks, and `fixed` is `block`
    key.replace("block", "fixed"): {**variant, **({"law": "fixed"} if variant.get("law") == "block" else {})}
    for key, variant in WIDTH.items()
}


@dataclass(frozen=True)
class Comparison:
    """One network, its data and the variants.

    Attributes:
        setting: flags of ``isthmus train``.
        rates: learning rates to choose from.
        variants: by name.
        seeds: number of seeds.
        by_loss: whether the loss is what counts (text).
    """

    setting: dict[str, Any]
    rates: tuple[float, ...]
    variants: dict[str, dict[str, Any]]
    seeds: int = 3
    by_loss: bool = False


COMPARISONS = {
    "cnn": Comparison(
        {"model": "examples.networks:cnn", **IMAGES, "samples": 80_000, "batch_size": 32, **LAST},
        (0.1, 0.3, 1.0),
        WIDTH,
    ),
    "resnet": Comparison(
        {"model": "examples.networks:resnet", **IMAGES, "samples": 40_000, "batch_size": 32, **LAST},
        (0.1, 0.3),
        {
            **WIDTH,
            "shallow (half the blocks)": {"strategy": "narrow", **DEPTH, "minimum": 2},
            "IST depth (half the blocks)": {**DEPTH, "minimum": 2},
        },
        seeds=1,
    ),
    "gpt": Comparison(
        {
            "model": "benchmarks.train_networks:gpt",
            "data": TEXT,
            "samples": 8_000,
            "batch_size": 8,
            "local_steps": 20,
            "optimizer": "adamw",
            "weight_decay": 0.01,
            "clip": 1.0,
            **LAST,
        },
        (1e-3, 3e-3, 1e-2),
        STREAM,
        seeds=1,
        by_loss=True,
    ),
    "gcn": Comparison(
        {
            "model": "benchmarks.train_networks:gcn",
            "data": "sbm:1000",
            "rounds": 20,
            "local_steps": 5,
            "batch_size": 80,
            "optimizer": "adamw",
            **LAST,
        },
        (3e-3, 1e-2, 3e-2),
        WIDTH,
    ),
}


@dataclass(frozen=True)
class Options:
    """What to compare.

    Attributes:
        network: cnn, resnet, gpt or gcn.
        seeds: number of seeds, 0 first (default: as the network's cost allows).
        variants: only those whose name contains this.
        folder: where the run folders are.
        costs: show what each variant holds and sends alone, by its plan: nothing is trained.
    """

    network: str = "cnn"
    seeds: int | None = None
    variants: str = ""
    folder: Path = Path("runs/train-networks")
    costs: bool = False


def main(options: Options) -> None:
    """Tune, run, print."""
    chosen = COMPARISONS[options.network]
    seeds = chosen.seeds if options.seeds is None else options.seeds
    variants = {name: variant for name, variant in chosen.variants.items() if options.variants in name}
    if options.costs:
        _costs(chosen.setting, variants)
        return
    tuning = [{"seed": 100, "workers": 4}]
    grid = Grid(chosen.setting, chosen.rates, tuning, options.folder / options.network, chosen.by_loss)
    with progress(f"train_networks {options.network}", len(variants) * (len(chosen.rates) + 2 * seeds)) as advance:
        grid = replace(grid, advance=advance)
        runs: dict[tuple[str, int], list[Run]] = {}
        for name, variant in variants.items():
            rate = grid.best_rate(name, variant)
            for workers in (2, 4):
                changes = {"lr": rate, "workers": workers}
                runs[name, workers] = [grid.run(name, variant, {**changes, "seed": seed}) for seed in range(seeds)]
    what = "loss (nats a byte)" if chosen.by_loss else "accuracy (%)"
    print(f"\n{options.network}: 2 workers / 4 workers, {seeds} seed(s)\n")
    print(f"| variant | {what}, 2 | {what}, 4 | lr | held (%) | memory (MB) | GFLOP | kB a round | against local SGD |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in variants:
        dense = [runs.get(("local SGD", workers), runs[name, workers])[0] for workers in (2, 4)]
        print(table_row(name, [runs[name, workers] for workers in (2, 4)], dense, chosen.by_loss))


def _costs(setting: dict[str, Any], variants: dict[str, dict[str, Any]]) -> None:
    """Print what each variant holds and sends with 2 and with 4 workers."""
    wanted = {"local SGD": DENSE["local SGD"], **variants}
    found = [costs({**setting, "workers": workers}, wanted) for workers in (2, 4)]
    print("| variant | held | kB a round | against local SGD |\n|---|---|---|---|")
    for name in variants:
        rows = [each[name].row(each["local SGD"]) for each in found]
        print(f"| {name} | {' | '.join(' / '.join(pair) for pair in zip(*rows, strict=True))} |")


def table_row(name: str, runs: list[list[Run]], dense: list[Run], by_loss: bool) -> str:
    """Return one line of the table, costs for 2 and 4 workers: those of the busiest worker, but bytes are the mean
    over workers of what is sent in a round (a root of IST sends n / 2 times that)."""
    cells = []
    for several in runs:
        score = [run.summary["test_loss"] if by_loss else 100 * run.summary["test_accuracy"] for run in several]
        digits = 3 if by_loss else 2
        spread = f" ± {stdev(score):.{digits}f}" if len(score) > 1 else ""
        cells.append(f"{mean(score):.{digits}f}{spread}")
    costs: list[list[str]] = []
    for several, whole in zip(runs, dense, strict=True):
        mine, other = several[0].summary, whole.summary
        costs.append([
            f"{100 * max(mine['worker_parameters']) / other['model_parameters']:.0f}",
            f"{max(mine['worker_memory_bytes']) / 1e6:.2f}",
            f"{mine['flops_per_worker'] / 1e9:,.0f}",
            f"{mean(mine['sent_bytes']) / mine['rounds'] / 1e3:,.0f}",
            f"{mean(mine['sent_bytes']) / mean(other['sent_bytes']):.2f}",
        ])  # fmt: skip
    both = [" / ".join(pair) for pair in zip(*costs, strict=True)]
    rate = f"{runs[0][0].config['lr']:g}"
    return f"| {' | '.join([name, *cells, rate, *both])} |"


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
