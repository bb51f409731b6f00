"""Training runs: accuracy and loss against what they cost, costs as bars, one table of all strategies, headlines."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from isthmus.records import Run
from isthmus.report.curves import Curve, averaged, curves, traffic
from isthmus.report.events import MEANING, marks
from isthmus.report.noise import is_noise
from isthmus.report.plots import Bars, Figure, Marks, Plot, Section, Series, Table, slug
from isthmus.report.strategies import RIVALS, STRATEGIES, law_words
from isthmus.report.wording import mean, percent, plain, prefix_for, scaled, seconds, spread, times

_WIDE_SPREAD = 8  # curves whose ends are further apart than this factor need a logarithmic axis

_INTRO = (
    "The same network trained by several strategies. Test accuracy is the share of held-out examples that the joined "
    "network gets right."
)
_ONE_SEED = (
    " Where a strategy has one seed only, a difference of a few examples is chance; headlines call a difference level "
    "when it is within the error of the test set."
)
_ACCURACY_CAPTION = (
    "The same curves four times: against rounds, samples seen, bytes sent and received by the busiest worker, and "
    "seconds. Higher and further left is better; which strategy leads depends on what is dear."
)
_LOSS_CAPTION = "The same for the loss on held-out data: lower is better."


def training_sections(runs: Sequence[Run]) -> list[Section]:
    """Return one section for each network on each data set."""
    by_subject: dict[str, list[Run]] = {}
    for run in runs:
        by_subject.setdefault(_subject(run), []).append(run)
    return [_section(subject, alike) for subject, alike in by_subject.items()]


def _subject(run: Run) -> str:
    """What was trained on what: "digits", or "examples.networks:cnn on digits"."""
    model = run.config.get("model")
    return f"{plain(model)} on {plain(run.config.get('data'))}" if model else plain(run.config.get("data"))


def _section(subject: str, runs: Sequence[Run]) -> Section:
    found = curves(runs)
    seeds = max((len(one.runs) for one in found), default=1)
    spans = f" Lines are means over up to {seeds} seeds, bands reach from the lowest to the highest." * (seeds > 1)
    spans += f" {MEANING}" * any(run.events for run in runs)
    figures = [
        _figure(found, "accuracy", "Test accuracy against what it costs", _ACCURACY_CAPTION + spans),
        _figure(found, "loss", "Test loss against what it costs", _LOSS_CAPTION + spans),
        _train_loss(found),
        *_cost_figures(found),
    ]
    shown = list(dict.fromkeys(one.strategy for one in found))
    return Section(
        name=slug(f"training {subject}"),
        title=f"Training {subject}" if " on " in subject else f"Training on {subject}",
        intro=_INTRO + _ONE_SEED * any(len(one.runs) == 1 for one in found),
        headlines=_headlines(found),
        warnings=_warnings(runs),
        figures=tuple(figure for figure in figures if figure is not None),
        tables=(_table(found),),
        terms=tuple((known.label, known.meaning) for name in shown if (known := STRATEGIES.get(name))) + _laws(found),
    )


def _laws(found: Sequence[Curve]) -> tuple[tuple[str, str], ...]:
    """What the laws of the IST runs mean, in words."""
    shown = dict.fromkeys(law_words(one.runs[0].config) for one in found if one.strategy not in RIVALS)
    return tuple(law for law in shown if law is not None and law[1])


_MEASURES = {"accuracy": ("test_accuracy", "test accuracy (%)", 100.0), "loss": ("test_loss", "test loss", 1.0)}
_AXES: tuple[tuple[str, str, Callable[[Run], list[Any]]], ...] = (
    ("rounds", "round", lambda run: [row.get("round") for row in run.rows]),
    ("samples", "samples seen by all workers", lambda run: [row.get("samples") for row in run.rows]),
    ("bytes per worker", "bytes sent and received by the busiest worker", traffic),
    ("seconds", "seconds", lambda run: [row.get("seconds") for row in run.rows]),
)


def _figure(found: Sequence[Curve], name: str, title: str, caption: str) -> Figure | None:
    column, y_label, factor = _MEASURES[name]
    panels = []
    for axis, x_label, positions in _AXES:
        series = [averaged(one, positions, column, factor) for one in found]
        finished = [drawn for one, drawn in zip(found, series, strict=True) if one.runs[0].status == "finished"]
        plot = _plot(f"against {axis}", x_label, y_label, series, _focus(series, finished))
        panels.append(replace(plot, marks=_marks(found, axis, positions)))
    return Figure(name, title, caption, tuple(panels)) if any(panel.has_points for panel in panels) else None


def _marks(found: Sequence[Curve], axis: str, positions: Callable[[Run], list[Any]]) -> tuple[Marks, ...]:
    return marks([run for one in found for run in one.runs], positions, time=axis == "seconds")


def _plot(
    title: str, x_label: str, y_label: str, series: Sequence[Series], focus: tuple[float, float] | None = None
) -> Plot:
    ends = [one.x[-1] for one in series if one.x and one.x[-1] > 0]
    wide = bool(ends) and max(ends) > _WIDE_SPREAD * min(ends)
    shown = tuple(one for one in series if one.x)
    return Plot(title, x_label, y_label, shown, x_scale="log" if wide else "linear", focus=focus)


def _focus(series: Sequence[Series], finished: Sequence[Series]) -> tuple[float, float] | None:
    """The part of the y axis around the finished curves' ends; the start would squeeze their differences to nothing."""
    values = [value for one in series for value in (*one.y, *one.low, *one.high)]
    ends = [one.y[-1] for one in finished if one.y]
    if len(ends) < 2:
        return None
    room = 2 * (max(ends) - min(ends)) + 0.04 * (max(values) - min(values))
    low, high = max(min(values), min(ends) - room), min(max(values), max(ends) + room)
    margin = 0.03 * (high - low)
    return (low - margin, high + margin) if high - low < 0.6 * (max(values) - min(values)) else None


def _train_loss(found: Sequence[Curve]) -> Figure | None:
    axis, x_label, positions = _AXES[1]
    series = [averaged(one, positions, "train_loss", 1.0) for one in found]
    plot = replace(_plot(f"against {axis}", x_label, "training loss", series), marks=_marks(found, axis, positions))
    caption = (
        "The loss that workers see on their own data while they train. For IST this is the loss of the pieces, not of "
        "the joined network, so it compares runs of one strategy rather than strategies."
    )
    return Figure("train-loss", "Training loss", caption, (plot,)) if plot.has_points else None


def _cost_figures(found: Sequence[Curve]) -> list[Figure]:
    panels = [
        _bars(found, "Bytes sent and received, per worker", "B", {"busiest worker": Curve.traffic, "mean": _both_ways}),
        _bars(found, "Memory, per worker", "B", {
            "held": lambda one: one.summary("worker_memory_bytes"),
            "planned": lambda one: one.summary("planned_memory_bytes"),
            "measured growth": lambda one: one.summary("measured_peak_bytes"),
        }),
        _bars(found, "Computing, per worker", "FLOP", {"operations": lambda one: one.summary("flops_per_worker")}),
        _share_bars(found),
    ]
    drawn = tuple(panel for panel in panels if panel is not None)
    caption = (
        "What one worker has to send, hold and compute (the worst worker where they differ); shorter is better. "
        "Memory held is that of weights, gradients and optimizer; planned is what the run said, before it began, that "
        "it would need at most, steps and exchanges included; the measured growth counts also what the libraries load "
        "on the way, which is most of it where the network is small. "
        "The last bars say which share of the network's parameters a worker holds at a time."
    )
    return [Figure("costs", "What a worker pays", caption, drawn)] if drawn else []


def _both_ways(one: Curve) -> list[float | None]:
    ways = zip(one.average("sent_bytes"), one.average("received_bytes"), strict=True)
    return [None if sent is None or received is None else sent + received for sent, received in ways]


_Measure = Callable[[Curve], list[float | None]]


def _bars(found: Sequence[Curve], title: str, unit: str, measures: dict[str, _Measure]) -> Bars | None:
    values = [(name, [mean(measure(one)) for one in found]) for name, measure in measures.items()]
    present = [(name, row) for name, row in values if any(value is not None for value in row)]
    if not present:
        return None
    factor, letter = prefix_for(max(value for _, row in present for value in row if value is not None))
    groups = tuple(
        (
            name,
            tuple(None if value is None else value / factor for value in row),
            tuple("" if value is None else scaled(value, unit) for value in row),
        )
        for name, row in present
    )
    label = f"{letter}{unit} of one worker"
    return Bars(title, label, _labels(found), tuple(one.color for one in found), groups)


def _share_bars(found: Sequence[Curve]) -> Bars | None:
    shares = [one.share() for one in found]
    if not any(share is not None for share in shares):
        return None
    values = tuple(None if share is None else 100 * share for share in shares)
    texts = tuple("" if share is None else percent(share) for share in shares)
    group = ("parameters", values, texts)
    title = "Parameters a worker holds"
    return Bars(title, "% of the network's parameters", _labels(found), tuple(one.color for one in found), (group,))


def _labels(found: Sequence[Curve]) -> tuple[str, ...]:
    return tuple(one.label for one in found)


def _table(found: Sequence[Curve]) -> Table:
    columns = (
        "strategy",
        "runs",
        "test accuracy",
        "sent, busiest worker",
        "received, busiest",
        "sent, mean",
        "parameters of a worker",
        "memory per worker",
        "operations per worker",
        "computing",
        "communicating",
        "status",
    )
    rows = [
        (
            one.label,
            str(len(one.runs)),
            spread(one.accuracy(), lambda value: percent(value, 2)),
            scaled(mean(one.summary("sent_bytes")), "B"),
            scaled(mean(one.summary("received_bytes")), "B"),
            scaled(mean(one.average("sent_bytes")), "B"),
            _parameters(one),
            scaled(mean(one.summary("worker_memory_bytes")), "B"),
            scaled(mean(one.summary("flops_per_worker")), "FLOP"),
            seconds(mean(one.total("compute_seconds"))),
            seconds(mean(one.total("communicate_seconds"))),
            one.runs[0].status,
        )
        for one in found
    ]
    caption = (
        "Accuracy is that of the last evaluation, ± the standard deviation over seeds. Bytes, memory, operations and "
        "seconds are those of the worst worker over the whole run."
    )
    return Table("All strategies", caption, columns, tuple(rows), "lrrrrrrrrrrl")


def _parameters(one: Curve) -> str:
    held, share = mean(one.summary("worker_parameters")), one.share()
    return plain(None if held is None else round(held)) + ("" if share is None else f" ({percent(share)})")


def _headlines(found: Sequence[Curve]) -> tuple[tuple[str, str], ...]:
    """Accuracy and price of the best run of what is not a rival, beside each rival with as many workers."""
    scores = [(mean(one.accuracy()), one) for one in found if one.runs[0].status == "finished"]
    ranked = sorted(((score, one) for score, one in scores if score is not None), key=lambda pair: -pair[0])
    best_of_ours = next(((score, one) for score, one in ranked if one.strategy not in RIVALS), None)
    if best_of_ours is None:
        return tuple((percent(score), f"test accuracy of {one.label}") for score, one in ranked[:4])
    score, ours = best_of_ours
    variants = sum(one.strategy not in RIVALS for _, one in ranked)
    best = f" (the best of {variants} variants)" if variants > 1 else ""
    said = [(percent(score), f"test accuracy of {ours.label}{best}")]
    share = ours.share()
    if share is not None:
        said.append((percent(share), "of the network's parameters are held by one worker of it"))
    for rival in RIVALS:
        match = next(((value, one) for value, one in ranked if one.strategy == rival and _same_size(one, ours)), None)
        if match is not None:
            said.append(_against(score, ours, *match))
    return tuple(said)


def _same_size(one: Curve, other: Curve) -> bool:
    mine, theirs = one.runs[0].config, other.runs[0].config
    return mine.get("workers") == theirs.get("workers")


def _against(score: float, ours: Curve, other: float, rival: Curve) -> tuple[str, str]:
    """The difference as a headline, or that there is none beyond chance; and the bytes at the busiest worker."""
    price = _price(ours, rival)
    if is_noise(ours, rival):
        return "level", f"with {rival.label} ({percent(other)}){price}"
    points = 100 * (score - other)
    words = f"points of accuracy {'ahead of' if points >= 0 else 'behind'} {rival.label} ({percent(other)}){price}"
    return f"{abs(points):.1f}", words


def _price(ours: Curve, rival: Curve) -> str:
    sent, spent = mean(ours.traffic()), mean(rival.traffic())
    if not sent or not spent:
        return ""
    if math.isclose(sent, spent, rel_tol=0.05):
        return " for the same bytes at the busiest worker"
    fewer = f"{times(spent, sent)} fewer" if spent > sent else f"{times(sent, spent)} more"
    return f" for {fewer} bytes at the busiest worker"


def _warnings(runs: Sequence[Run]) -> tuple[str, ...]:
    said = []
    if any(run.config.get("executor") == "serial" for run in runs):
        said.append(
            "Some runs did the workers' work in turn in one process (the serial executor): "
            "their seconds are not those of workers side by side."
        )
    if any(not run.rows for run in runs):
        said.append("Some runs have no rows: they ended before their first round.")
    return tuple(said)
