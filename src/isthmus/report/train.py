"""Training runs: who gets there first, accuracy and loss against what they cost, one table of all, headlines."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from isthmus.records import Run
from isthmus.report.curves import Curve, averaged, curves, traffic
from isthmus.report.events import MEANING, marks
from isthmus.report.model import View
from isthmus.report.noise import is_noise
from isthmus.report.planned import planned_tables
from isthmus.report.plots import Bars, Figure, Marks, Plot, Section, Series, Table, focus, number, slug, wide
from isthmus.report.race import ACCURACY, LOSS, Measure, over_lines, race, recorded_seconds
from isthmus.report.strategies import RIVALS, STRATEGIES, law_words
from isthmus.report.wording import mean, percent, plain, prefix_for, scaled, seconds, spread, times

_INTRO = (
    "The same network trained by several strategies. Test accuracy is the share of held-out examples that the joined "
    "network gets right."
)
_ONE_SEED = (
    " Where a strategy has one seed only, a difference of a few examples is chance; headlines call a difference level "
    "when it is within the error of the test set."
)
_TRAFFIC_CAPTION = "What the busiest worker had sent and received by then. Further left is better."
_ACCURACY_CAPTION = (
    "Against rounds, samples seen by all workers, and the seconds of the machine that the runs were made on. Which "
    "strategy leads depends on what is dear."
)
_LOSS_CAPTION = "The loss on held-out data, against what it costs: lower is better."


def training_sections(runs: Sequence[Run], view: View) -> list[Section]:
    """Return one section for each network on each data set."""
    by_subject: dict[str, list[Run]] = {}
    for run in runs:
        by_subject.setdefault(_subject(run), []).append(run)
    return [_section(subject, alike, view) for subject, alike in by_subject.items()]


def _subject(run: Run) -> str:
    """What was trained on what: "digits", or "examples.networks:cnn on digits"."""
    model = run.config.get("model")
    return f"{plain(model)} on {plain(run.config.get('data'))}" if model else plain(run.config.get("data"))


def _section(subject: str, runs: Sequence[Run], view: View) -> Section:
    found = curves(runs)
    measure = next((one for one in (ACCURACY, LOSS) if _known(runs, one)), LOSS)
    seeds = max((len(one.runs) for one in found), default=1)
    spans = f" Lines are means over up to {seeds} seeds, bands reach from the lowest to the highest." * (seeds > 1)
    spans += f" {MEANING}" * any(run.events for run in runs)
    rest = tuple(axis for axis in _AXES if axis is not _TRAFFIC)
    figures = [_figure(found, measure, (_TRAFFIC,), "traffic", "bytes", _TRAFFIC_CAPTION + spans)]
    more = [
        _figure(found, ACCURACY, rest, "accuracy", "what it costs", _ACCURACY_CAPTION + spans),
        _figure(found, LOSS, rest if measure is LOSS else _AXES, "loss", "what it costs", _LOSS_CAPTION + spans),
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
        race=race(found, measure, view),
        more=tuple(figure for figure in more if figure is not None),
        tables=(*planned_tables(found), *_capacities(runs), _table(found)),
        terms=tuple((known.label, known.meaning) for name in shown if (known := STRATEGIES.get(name))) + _laws(found),
    )


def _laws(found: Sequence[Curve]) -> tuple[tuple[str, str], ...]:
    """What the laws of the IST runs mean, in words."""
    shown = dict.fromkeys(law_words(one.runs[0].config) for one in found if one.strategy not in RIVALS)
    return tuple(law for law in shown if law is not None and law[1])


_Axis = tuple[str, str, Callable[[Run], list[Any]]]
_TRAFFIC: _Axis = ("bytes per worker", "bytes sent and received by the busiest worker", traffic)
_SECONDS: _Axis = ("seconds", "seconds on the machine of the run", recorded_seconds)
_SAMPLES: _Axis = ("samples", "samples seen by all workers", lambda run: [row.get("samples") for row in run.rows])
_AXES: tuple[_Axis, ...] = (
    ("rounds", "round", lambda run: [row.get("round") for row in run.rows]),
    _SAMPLES,
    _TRAFFIC,
    _SECONDS,
)


def _known(runs: Sequence[Run], measure: Measure) -> bool:
    return any(number(row.get(measure.column)) is not None for run in runs for row in run.rows)


def _figure(
    found: Sequence[Curve], measure: Measure, axes: Sequence[_Axis], name: str, against: str, caption: str
) -> Figure | None:
    panels = []
    for chosen in axes:
        axis, x_label, positions = chosen
        shown = _by_line(found) if chosen is _SECONDS else found
        series = [averaged(one, positions, measure.column, measure.factor) for one in shown]
        finished = [drawn for one, drawn in zip(shown, series, strict=True) if one.runs[0].status == "finished"]
        heading = f"against {axis}" if len(axes) > 1 else ""
        plot = _plot(heading, x_label, measure.label, series, focus(series, finished))
        panels.append(replace(plot, marks=_marks(found, axis, positions)))
    title = f"Test {measure.words} against {against}"
    return Figure(name, title, caption, tuple(panels)) if any(panel.has_points for panel in panels) else None


def _by_line(found: Sequence[Curve]) -> list[Curve]:
    """Seconds over different lines are never averaged."""
    return [
        one if line is None else replace(one, label=f"{one.label}, {line.shown}")
        for line, one in over_lines(found)
    ]


def _marks(found: Sequence[Curve], axis: str, positions: Callable[[Run], list[Any]]) -> tuple[Marks, ...]:
    return marks([run for one in found for run in one.runs], positions, time=axis == "seconds")


def _plot(
    title: str, x_label: str, y_label: str, series: Sequence[Series], limits: tuple[float, float] | None = None
) -> Plot:
    shown = tuple(one for one in series if one.x)
    return Plot(title, x_label, y_label, shown, x_scale="log" if wide(series) else "linear", focus=limits)


def _train_loss(found: Sequence[Curve]) -> Figure | None:
    axis, x_label, positions = _SAMPLES
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


def _capacities(runs: Sequence[Run]) -> tuple[Table, ...]:
    """Return how fast the workers were, of runs that measured it; no table where none did."""
    known = [(run, run.summary.get("capacities")) for run in runs]
    rows = [
        (run.path.name, plain(run.config.get("seed")), ", ".join(plain(number(each)) for each in found))
        for run, found in known
        if isinstance(found, list) and found
    ]
    caption = (
        "How much each worker held from the fourth round on, by how long its steps took: the fastest 1. Another run "
        "measures others; given to --capacities they make a run that can be repeated."
    )
    columns = ("run", "seed", "of each worker")
    return (Table("Capacities as measured", caption, columns, tuple(rows), "lrl"),) if rows else ()


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
            "their own seconds are not those of workers side by side. Seconds over a line count the slowest worker's."
        )
    if any(row.get("sent_bytes") and not row.get("hops") for run in runs for row in run.rows):
        said.append(
            "Some runs were made before hops were counted: their seconds over a line leave out its latency, and are "
            "too few."
        )
    if any(not run.rows for run in runs):
        said.append("Some runs have no rows: they ended before their first round.")
    return tuple(said)
