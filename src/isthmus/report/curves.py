"""Training runs grouped into curves: runs that differ only in their seed are averaged.

A curve's line is the mean over its seeds, its band reaches from the lowest to the highest. A run that did not finish is
a curve of its own, so that it never shortens or bends a mean.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from isthmus.records import Run
from isthmus.report.plots import Series, curve, cycle_colors, number, shade, thinning
from isthmus.report.strategies import COLORS, RIVALS, STRATEGIES, law_words
from isthmus.report.wording import distinct_labels, mean, plain, worst

_IGNORED = frozenset({"seed", "out", "json", "replace", "eval_every", "strategy", "data", "model"})
_IGNORED |= {"checkpoint_every", "keep_checkpoints"}
_IGNORED |= {"law", "law_label", "law_meaning", "law_reason"}  # in the label already
_LOOKS = (("line", 0.0), ("dashed", -0.35), ("dotted", 0.35), ("dashdot", -0.6), ("dashed", 0.5), ("dotted", -0.5))


@dataclass(frozen=True)
class Curve:
    """Runs that differ only in their seed.

    Attributes:
        label: says what differs from the other curves.
        strategy: its name in the runs.
        color, style: of the line.
        runs: one a seed.
        network: parameters of the whole network, which a narrow run does not train itself; None if unknown.
    """

    label: str
    strategy: str
    color: str
    style: str
    runs: tuple[Run, ...]
    network: float | None

    def summary(self, name: str) -> list[float | None]:
        """Return a number of the summary for each run: the worst worker's where there is one a worker."""
        return [worst(run.summary.get(name)) for run in self.runs]

    def average(self, name: str) -> list[float | None]:
        """Return a number of the summary for each run: the mean over its workers."""
        values = [run.summary.get(name) for run in self.runs]
        return [mean([number(item) for item in (value if isinstance(value, list) else [value])]) for value in values]

    def traffic(self) -> list[float | None]:
        """Return the bytes that the busiest worker of each run sent and received."""
        return [traffic(run)[-1] if run.rows and run.summary else None for run in self.runs]

    def total(self, name: str) -> list[float | None]:
        """Return, for each run, the sum over rounds of the worst worker's entry in a column of its rows."""
        return [worst(_running_totals(run, (name,))[-1]) if run.rows else None for run in self.runs]

    def accuracy(self) -> list[float | None]:
        """Return each run's last known test accuracy, from its summary or, if it was cut short, from its rows."""
        result = []
        for run in self.runs:
            known = [number(value) for value in (*(row.get("test_accuracy") for row in run.rows),
                                                 run.summary.get("test_accuracy"))]  # fmt: skip
            result.append(next((value for value in reversed(known) if value is not None), None))
        return result

    def share(self) -> float | None:
        """Return the share of the whole network's parameters that the worst worker holds."""
        held = mean(self.summary("worker_parameters"))
        return held / self.network if held is not None and self.network else None


def curves(runs: Sequence[Run]) -> list[Curve]:
    """Return the runs grouped over seeds, named by strategy and by what differs, in the order of :data:`STRATEGIES`."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        alike = {key: value for key, value in run.config.items() if key not in ("seed", "out", "json", "replace")}
        groups.setdefault(json.dumps([alike, run.status], sort_keys=True), []).append(run)
    known = list(STRATEGIES)
    grouped = sorted(groups.values(), key=lambda group: _rank(group[0], known))
    bases = [_base(group[0]) for group in grouped]
    labels = distinct_labels(bases, [group[0].config for group in grouped], _IGNORED)
    names = [plain(group[0].config.get("strategy")) for group in grouped]
    colors = cycle_colors(names, COLORS)
    result = []
    for at, (name, label, group) in enumerate(zip(names, labels, grouped, strict=True)):
        style, tone = _LOOKS[names[:at].count(name) % len(_LOOKS)]
        flag = "" if group[0].status == "finished" else f" [{group[0].status}]"
        color = shade(colors[name], tone)
        result.append(Curve(label + flag, name, color, style, tuple(group), _network(group[0], runs)))
    return result


def _network(run: Run, runs: Sequence[Run]) -> float | None:
    """The largest count of parameters among runs of one network: a narrow run reports its own small one."""
    same = ("model", "widths")
    alike = [other for other in runs if all(other.config.get(key) == run.config.get(key) for key in same)]
    return max((value for other in alike if (value := number(other.summary.get("model_parameters")))), default=None)


def _rank(run: Run, known: list[str]) -> int:
    strategy = run.config.get("strategy")
    return known.index(strategy) if strategy in known else len(known)


def _base(run: Run) -> str:
    strategy = plain(run.config.get("strategy"))
    label = STRATEGIES[strategy].label if strategy in STRATEGIES else strategy
    law = law_words(run.config)
    return f"{label}, {law[0]}" if strategy not in RIVALS and law else label


def _running_totals(run: Run, names: Sequence[str]) -> list[list[float]]:
    """Return, row by row, each worker's running total of the sum of some columns."""
    totals: list[float] = []
    result = []
    for row in run.rows:
        for name in names:
            entries = row.get(name)
            amounts = [number(entry) or 0.0 for entry in (entries if isinstance(entries, list) else [entries])]
            totals += [0.0] * (len(amounts) - len(totals))
            totals = [total + amount for total, amount in zip(totals, amounts + [0.0] * len(totals), strict=False)]
        result.append(list(totals))
    return result


def traffic(run: Run) -> list[float]:
    return [max(totals, default=0.0) for totals in _running_totals(run, ("sent_bytes", "received_bytes"))]


def averaged(one: Curve, positions: Callable[[Run], list[Any]], column: str, factor: float, **look: str) -> Series:
    """Mean, lowest and highest over the seeds, round by round where every seed has the round.

    ``look`` is what differs from the curve's own color and style, as for :func:`isthmus.report.plots.curve`.
    """
    tables = [_by_round(run, positions(run), column) for run in one.runs]
    rounds = _shared(tables)
    xs = [mean([table[at][0] for table in tables]) for at in rounds]
    values = [[table[at][1] * factor for table in tables] for at in rounds]
    band = ([min(row) for row in values], [max(row) for row in values]) if len(tables) > 1 else None
    shown = {"name": one.label, "color": one.color, "style": one.style} | look
    return curve(shown.pop("name"), xs, [mean(row) for row in values], band, **shown)


def drawn_rows(one: Curve, column: str) -> list[list[int]]:
    """Return, for each run, the rows whose numbers are in the points that :func:`averaged` draws."""
    tables = [_by_round(run, range(len(run.rows)), column) for run in one.runs]
    rounds = _shared(tables)
    return [[int(table[rounds[at]][0]) for at in thinning(len(rounds))[1]] for table in tables]


def _shared(tables: Sequence[dict[float, tuple[float, float]]]) -> list[float]:
    """The rounds that all have."""
    return sorted(set.intersection(*(set(table) for table in tables)))


def _by_round(run: Run, positions: Sequence[Any], column: str) -> dict[float, tuple[float, float]]:
    table = {}
    for row, position in zip(run.rows, positions, strict=True):
        at, x, y = number(row.get("round")), number(position), number(row.get(column))
        if at is not None and x is not None and y is not None:
            table[at] = (x, y)
    return table
