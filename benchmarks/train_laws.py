"""Accuracy and bytes of the four strategies and of every partition law at the same number of samples.

    python -m benchmarks.train_laws --data digits
    python -m benchmarks.train_laws --data fashion-mnist

    python -m benchmarks.train_laws --data digits --costs

Learning rates as in benchmarks/grid.py. Prints a Markdown table; `isthmus report` reads the run folders.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import tyro
from benchmarks.grid import Grid, costs

from isthmus.progress import progress
from isthmus.records import Run

TUNING_SEEDS = {"digits": (100, 101, 102), "fashion-mnist": (100,)}  # digits holds out only 144 images
RATES = {"digits": (0.03, 0.1, 0.3, 1.0), "fashion-mnist": (0.1, 0.3, 1.0)}
SETTINGS: dict[str, dict[str, Any]] = {
    "digits": {"data": "digits", "widths": (256, 256), "batch_size": 32, "rounds": 60},
    "fashion-mnist": {
        "data": "idx:/usr/share/datasets/fashion-mnist",
        "widths": (512, 512),
        "batch_size": 64,
        "samples": 300_000,
    },
}
VARIANTS: dict[str, dict[str, Any]] = {
    "data-parallel": {"strategy": "data-parallel"},
    "local SGD": {"strategy": "local-sgd"},
    "narrow": {"strategy": "narrow"},
    "narrow, core 1/10": {"strategy": "narrow", "core": 0.1},
    "narrow, core 1/4": {"strategy": "narrow", "core": 0.25},
    "IST block, core 1/10": {"strategy": "ist", "law": "block", "core": 0.1},
    **{
        f"IST {law}" + (", core 1/4" if core else ""): {"strategy": "ist", "law": law, "core": core}
        for core in (0.0, 0.25)
        for law in ("uniform", "fixed", "rotated", "block")
    },
}


@dataclass(frozen=True)
class Options:
    """What to compare.

    Attributes:
        data: digits or fashion-mnist.
        seeds: number of seeds, 0 first.
        workers: number of workers.
        local_steps: steps between merges.
        samples: budget over all workers instead of the setting's own.
        variants: only those whose name contains this.
        folder: where the run folders are.
        costs: show what each variant holds and sends alone, by its plan: nothing is trained.
    """

    data: str = "digits"
    seeds: int = 3
    workers: int = 4
    local_steps: int = 10
    samples: int | None = None
    variants: str = ""
    folder: Path = Path("runs/train-laws")
    costs: bool = False


def main(options: Options) -> None:
    """Tune, run, print."""
    variants = {name: variant for name, variant in VARIANTS.items() if options.variants in name}
    rates, tuning = RATES[options.data], [{"seed": seed} for seed in TUNING_SEEDS[options.data]]
    setting = {**SETTINGS[options.data], "workers": options.workers, "local_steps": options.local_steps}
    if options.costs:
        found = costs(setting, {"local SGD": VARIANTS["local SGD"], **variants})
        print("| variant | held by a worker | kB a round | against local SGD |\n|---|---|---|---|")
        for name in variants:
            print(f"| {name} | {' | '.join(found[name].row(found['local SGD']))} |")
        return
    place = f"{options.data}-{options.workers}w-H{options.local_steps}"
    if options.samples:
        setting["samples"] = options.samples
        place += f"-{options.samples}s"
    with progress(f"train_laws {place}", len(variants) * (len(rates) * len(tuning) + options.seeds)) as advance:
        grid = Grid(setting, rates, tuning, options.folder / place, advance=advance)
        results = {}
        for name, variant in variants.items():
            best = grid.best_rate(name, variant)
            results[name] = [grid.run(name, variant, {"lr": best, "seed": seed}) for seed in range(options.seeds)]
    print(f"{options.data}: {options.workers} workers, {options.local_steps} local steps\n")
    print("| variant | accuracy (%) | lr | held by a worker | sent a round: mean of workers | root | / local SGD |")
    print("|---|---|---|---|---|---|---|")
    whole = results.get("local SGD", [None])[0]
    for name, runs in results.items():
        print(table_row(name, runs, whole))


def table_row(name: str, runs: list[Run], dense: Run | None) -> str:
    """Return one line of the table."""
    accuracy = [100 * run.summary["test_accuracy"] for run in runs]
    spread = f" ± {stdev(accuracy):.2f}" if len(accuracy) > 1 else ""
    first = runs[0].summary
    sent = [total / first["rounds"] for total in first["sent_bytes"]]
    whole = (dense or runs[0]).summary
    share = max(first["worker_parameters"]) / whole["model_parameters"]
    ratio = f"{mean(first['sent_bytes']) / mean(whole['sent_bytes']):.3f}" if dense else ""
    return (
        f"| {name} | {mean(accuracy):.2f}{spread} | {runs[0].config['lr']:g} | {share:.1%} | "
        f"{mean(sent) / 1e3:,.0f} kB | {sent[0] / 1e3:,.0f} kB | {ratio} |"
    )


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
