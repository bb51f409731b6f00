"""Variants of a training at the same number of samples: a learning rate chosen for each, then runs over seeds.

The rate is the best of a grid that is the same for all variants, judged on held-out training data under seeds of its
own. Runs that exist are not run again, so a benchmark can be stopped and continued.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

import isthmus
from isthmus.records import Run, is_run, read_run
from isthmus.trainer import configure, train

_OF_A_RUN = ("rounds", "samples", "eval_every")


@dataclass(frozen=True)
class Costs:
    """What a round of a variant costs, by its plan: no run is made, and bytes hang on nothing that is measured.

    Attributes:
        held: parameters of the worker that has most.
        sent: bytes that a worker sends in a round, mean over the workers and over rounds after the first.
    """

    held: int
    sent: float

    def row(self, dense: Costs) -> tuple[str, str, str]:
        """Return what is held, kilobytes a round and that against local SGD, as the tables show them."""
        return f"{self.held / dense.held:.1%}", f"{self.sent / 1e3:,.0f}", f"{self.sent / dense.sent:.3f}"


def costs(setting: Mapping[str, Any], variants: Mapping[str, Mapping[str, Any]]) -> dict[str, Costs]:
    """Return what each variant costs; those that cut the same axes are planned together."""
    flags = {flag: value for flag, value in setting.items() if flag not in _OF_A_RUN}
    found: dict[str, Costs] = {}
    for cut in dict.fromkeys(variant.get("cut") for variant in variants.values()):
        alike = [name for name, variant in variants.items() if variant.get("cut") == cut]
        strategies = [configure(**setting, **variants[name]).strategy for name in alike]
        axes = {} if cut is None else {"cut": cut}
        outlook = isthmus.plan(strategies, flops=1e9, copies=False, **flags, **axes)
        for name, each in zip(alike, outlook.prospects, strict=True):
            assert each.forecast is not None, each.problem
            sent = [moved.sent for moved in each.forecast.moved]
            found[name] = Costs(max(load.parameters for load in each.forecast.loads), mean(sent))
    return found


@dataclass(frozen=True)
class Grid:
    """What all variants of one comparison share.

    Attributes:
        setting: flags of ``isthmus train``, the same for all variants.
        rates: learning rates to choose from.
        tuning: what differs while a rate is chosen (seeds, and settings).
        folder: where the runs are.
        by_loss: whether to judge by the held-out loss instead of the accuracy.
    """

    setting: Mapping[str, Any]
    rates: Sequence[float]
    tuning: Sequence[Mapping[str, Any]]
    folder: Path
    by_loss: bool = False
    advance: Callable[[int, str], None] = field(default=lambda count, note: None)

    def best_rate(self, name: str, variant: Mapping[str, Any]) -> float:
        """Return the best rate of a variant; of equals, that with the smaller loss."""
        if len(self.rates) == 1:
            return self.rates[0]
        return max(self.rates, key=lambda rate: self._held_out(name, variant, rate))

    def run(self, name: str, variant: Mapping[str, Any], changes: Mapping[str, Any]) -> Run:
        """Return the run of a variant with some changes, from its folder if it is there."""
        slug = name.replace(", ", "-").replace(" ", "-").replace("/", "_").lower()
        place = "-".join(f"{key}{value:g}" for key, value in sorted(changes.items()))
        out = self.folder / f"{slug}-{place}"
        if is_run(out) and read_run(out).status in ("finished", "diverged"):
            run: Run | None = read_run(out)
        else:
            settings = {**self.setting, **variant, **changes}
            run = train(**settings, executor="serial", out=out, replace=True)
        assert run is not None
        self.advance(1, name)
        return run

    def _held_out(self, name: str, variant: Mapping[str, Any], rate: float) -> tuple[float, float]:
        summaries = [self.run(name, variant, {**changes, "lr": rate}).summary for changes in self.tuning]
        losses = [summary["line_search"]["held_out_loss_of_rule"] for summary in summaries]
        if None in losses:
            return -float("inf"), 0.0
        accuracy = mean(summary["held_out_accuracy"] for summary in summaries)
        return (-mean(losses), accuracy) if self.by_loss else (accuracy, -mean(losses))
