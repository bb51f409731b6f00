"""Accuracy and bytes of the four strategies and of every partition law at the same number of samples.

    python benchmarks/train_laws.py --data digits
    python benchmarks/train_laws.py --data fashion-mnist

First a small grid of learning rates, the same for every variant, is tried under seeds of its own and judged on
held-out training data; then every variant runs over the seeds. Runs that exist are not run again, so it can be
stopped and continued. Prints a Markdown table; `isthmus report` reads the run folders.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import tyro

from isthmus.progress import Advance, progress
from isthmus.records import Run, is_run, read_run
from isthmus.train import TrainConfig, train

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
    """

    data: str = "digits"
    seeds: int = 3
    workers: int = 4
    local_steps: int = 10
    samples: int | None = None
    variants: str = ""
    folder: Path = Path("runs/train-laws")


def main(options: Options) -> None:
    """Tune, run, print."""
    names = [name for name in VARIANTS if options.variants in name]
    rates = RATES[options.data]
    per_variant = len(rates) * len(TUNING_SEEDS[options.data]) + options.seeds
    with progress(f"train_laws {options.data}", len(names) * per_variant) as advance:
        results = {}
        for name in names:
            best = max(rates, key=lambda rate: held_out(options, name, rate, advance))
            results[name] = []
            for seed in range(options.seeds):
                results[name].append(one_run(options, name, best, seed))
                advance(1, name)
    print(f"{options.data}: {options.workers} workers, {options.local_steps} local steps\n")
    print("| variant | accuracy (%) | lr | held by a worker | sent a round: mean of workers | root | / local SGD |")
    print("|---|---|---|---|---|---|---|")
    dense = results.get("local SGD", [None])[0]
    for name, runs in results.items():
        print(table_row(name, runs, dense))


def held_out(options: Options, name: str, rate: float, advance: Advance) -> tuple[float, float]:
    """Return how good a learning rate is: mean held-out accuracy over the tuning seeds; of equals, the smaller loss."""
    summaries = []
    for seed in TUNING_SEEDS[options.data]:
        summaries.append(one_run(options, name, rate, seed).summary)
        advance(1, name)
    losses = [summary["line_search"]["held_out_loss_of_rule"] for summary in summaries]
    if None in losses:
        return 0.0, 0.0
    return mean(summary["held_out_accuracy"] for summary in summaries), -mean(losses)


def one_run(options: Options, name: str, rate: float, seed: int) -> Run:
    """Return the run of one variant, from its folder if it is there."""
    place = [options.data, f"{options.workers}w", f"H{options.local_steps}"]
    place += [f"{options.samples}s"] if options.samples else []
    slug = name.replace(", ", "-").replace(" ", "-").replace("/", "_").lower()
    out = options.folder / "-".join(place) / f"{slug}-lr{rate:g}-seed{seed}"
    if is_run(out) and read_run(out).status in ("finished", "diverged"):
        return read_run(out)
    config = TrainConfig(
        **SETTINGS[options.data],
        **VARIANTS[name],
        workers=options.workers,
        local_steps=options.local_steps,
        lr=rate,
        seed=seed,
        executor="serial",
        out=out,
        replace=True,
    )
    if options.samples:
        config = dataclasses.replace(config, samples=options.samples)
    run = train(config)
    assert run is not None
    return run


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
