"""Training runs to curves, bars, tables and headlines: the numbers on the page are the runs' numbers."""

import math
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from cases.records import rewrite, rewrite_rows
from isthmus.records import Run, RunWriter, read_run
from isthmus.report import train
from isthmus.report.curves import averaged, curves, traffic
from isthmus.report.model import View
from isthmus.report.noise import _seed_error
from isthmus.report.plots import Bars, Plot, Section
from isthmus.report.strategies import STRATEGIES
from isthmus.report.wording import distinct_labels


def training_sections(runs: list[Run]) -> list[Section]:
    return train.training_sections(runs, View())


def read(*paths: Path) -> list[Run]:
    return [read_run(path) for path in paths]


def panel(section: Section, figure: str, title: str) -> Any:
    (found,) = [one for one in section.pictures if one.name == figure]
    return next(one for one in found.panels if one.title.startswith(title) or len(found.panels) == 1)


def test_runs_that_differ_only_in_seed_are_one_curve_with_their_mean_and_range(runs: Any) -> None:
    read_runs = read(*(runs.training(f"r{seed}", seed=seed) for seed in range(3)))
    (one,) = curves(read_runs)
    assert one.label == "IST, fixed pieces"
    drawn = averaged(one, lambda run: [row["round"] for row in run.rows], "test_accuracy", 100.0)
    for at, x in enumerate(drawn.x):
        values = [100 * run.rows[int(x)]["test_accuracy"] for run in read_runs]
        assert drawn.y[at] == pytest.approx(statistics.fmean(values), rel=1e-14)
        assert (drawn.low[at], drawn.high[at]) == (min(values), max(values))
    assert drawn.x == tuple(range(0, 41, 4))  # where the accuracy was evaluated


def test_the_table_gives_mean_and_standard_deviation_over_seeds(runs: Any) -> None:
    read_runs = read(*(runs.training(f"r{seed}", seed=seed) for seed in range(3)))
    scores = [100 * run.summary["test_accuracy"] for run in read_runs]
    (section,) = training_sections(read_runs)
    row = dict(zip(section.tables[-1].columns, section.tables[-1].rows[0], strict=True))
    assert row["test accuracy"] == f"{statistics.fmean(scores):.2f} % ± {statistics.stdev(scores):.2f}"
    assert row["runs"] == "3"
    assert row["sent, busiest worker"] == "13.2 MB"
    assert row["parameters of a worker"] == "165,000 (24.6 %)"


def test_a_run_that_did_not_finish_never_bends_a_mean(runs: Any) -> None:
    whole, cut = read(runs.training("whole", seed=0), runs.training("cut", seed=1, rounds=9, status=None))
    found = curves([whole, cut])
    assert [one.label for one in found] == ["IST, fixed pieces", "IST, fixed pieces [unfinished]"]
    assert [len(one.runs) for one in found] == [1, 1]
    known = [row["test_accuracy"] for row in cut.rows if row["test_accuracy"] is not None]
    assert found[1].accuracy() == [known[-1]]  # the last evaluation before it was killed


def test_traffic_is_the_running_total_of_the_busiest_worker(runs: Any) -> None:
    with RunWriter(runs.root / "uneven", "train", {}) as writer:
        for sent, received in (([0, 0], [0, 0]), ([5, 1], [1, 1]), ([0, 9], [0, 9]), ([1, 0], None)):
            writer.append({"sent_bytes": sent, "received_bytes": received})
    (run,) = read(runs.root / "uneven")
    naive, totals = [], [0, 0]
    for row in run.rows:
        for worker in range(2):
            totals[worker] += row["sent_bytes"][worker] + (row["received_bytes"] or [0, 0])[worker]
        naive.append(max(totals))
    assert traffic(run) == naive == [0, 6, 20, 20]


def test_accuracy_is_drawn_against_rounds_samples_bytes_and_seconds(runs: Any) -> None:
    (section,) = training_sections(read(runs.training("a"), runs.training("b", "data-parallel")))
    run = read_run(runs.root / "a")
    expected = {
        "against rounds": [row["round"] for row in run.rows],
        "against samples": [row["samples"] for row in run.rows],
        "against bytes": traffic(run),
        "against seconds": [row["seconds"] for row in run.rows],
    }
    for title, positions in expected.items():
        plot = panel(section, "traffic" if "bytes" in title else "accuracy", title)
        assert isinstance(plot, Plot)
        assert [series.name for series in plot.series] == ["IST, fixed pieces", "data parallel"]
        assert plot.series[0].x == tuple(map(float, positions[::4]))
    assert panel(section, "traffic", "").x_scale == "log"  # 81 times apart
    assert panel(section, "accuracy", "against rounds").x_scale == "linear"


def test_a_strategy_keeps_its_colour_whatever_stands_beside_it(runs: Any) -> None:
    for name in STRATEGIES:
        runs.training(name, name)
    for chosen in (["narrow"], ["data-parallel", "narrow"], list(STRATEGIES)):
        found = curves(read(*(runs.root / name for name in chosen)))
        assert {one.strategy: one.color.lower() for one in found} == {
            name: STRATEGIES[name].color.lower() for name in chosen
        }


def test_variants_of_a_strategy_are_told_apart_by_colour_and_stroke(runs: Any) -> None:
    found = curves(read(*(runs.training(f"c{core}", core=core) for core in (0.0, 0.25, 0.5))))
    assert [one.label for one in found] == [f"IST, fixed pieces (core {core:g})" for core in (0.0, 0.25, 0.5)]
    assert len({(one.color, one.style) for one in found}) == 3


def test_the_share_of_a_narrow_net_is_of_the_network_it_replaces(runs: Any) -> None:
    (section,) = training_sections(read(*(runs.training(name, name) for name in STRATEGIES)))
    bars = panel(section, "costs", "Parameters")
    assert isinstance(bars, Bars)
    shares = dict(zip(bars.labels, bars.groups[0][1], strict=True))
    assert shares["narrow net"] == shares["IST, fixed pieces"] == pytest.approx(100 * 165_000 / 669_706)
    assert shares["local SGD"] == pytest.approx(100)


def test_bars_name_bytes_and_memory_and_a_missing_number_is_no_bar(runs: Any) -> None:
    (section,) = training_sections(read(runs.training("a"), runs.training("b", "local-sgd", status=None)))
    busiest, mean = panel(section, "costs", "Bytes").groups
    assert busiest == ("busiest worker", (pytest.approx(26.4), None), ("26.4 MB", ""))
    assert mean == ("mean", (pytest.approx(26.4), None), ("26.4 MB", ""))
    planned, measured = panel(section, "costs", "Memory").groups
    assert (planned[2][0], measured[2][0]) == ("2.7 MB", "3.78 MB")


def test_headlines_compare_ist_with_its_rivals(runs: Any) -> None:
    scores = {"ist": 0.861, "narrow": 0.886, "local-sgd": 0.85, "data-parallel": 0.8998}
    paths = {name: runs.training(name, name) for name in scores}
    for name, accuracy in scores.items():
        rewrite(paths[name], "summary.json", test_accuracy=accuracy)
    (section,) = training_sections(read(*paths.values()))
    assert section.headlines == (
        ("86.1 %", "test accuracy of IST, fixed pieces"),
        ("24.6 %", "of the network's parameters are held by one worker of it"),
        ("2.5", "points of accuracy behind narrow net (88.6 %) for the same bytes at the busiest worker"),
        ("1.1", "points of accuracy ahead of local SGD (85.0 %) for 8.1 × fewer bytes at the busiest worker"),
        ("3.9", "points of accuracy behind data parallel (90.0 %) for 81 × fewer bytes at the busiest worker"),
    )


def against_narrow(runs: Any, ist: list[float], narrow: list[float], targets: int | None) -> tuple[str, str]:
    """The headline about the narrow network, for these accuracies by seed."""
    known = {} if targets is None else {"test_targets": targets}
    paths = [
        rewrite(runs.training(f"{name}-{seed}", name, seed=seed), "summary.json", test_accuracy=score, **known)
        for name, scores in (("ist", ist), ("narrow", narrow))
        for seed, score in enumerate(scores)
    ]
    (section,) = training_sections(read(*paths))
    (found,) = [headline for headline in section.headlines if "narrow net" in headline[1]]
    return found


@pytest.mark.parametrize(
    ("ist", "narrow", "targets", "big"),
    [
        ([0.975], [0.981], None, "level"),  # under a point, and nothing known of the test set
        ([0.965], [0.981], None, "1.6"),
        ([0.965], [0.981], 360, "level"),  # 6 of 360 images: two proportions differ by 2.3 points by chance
        ([0.965], [0.981], 10_000, "1.6"),
        ([0.980], [0.981], 10_000, "level"),
        ([1.0], [1.0], 360, "level"),
        ([0.97, 0.98, 0.99], [0.98, 0.985, 0.99], 10_000, "level"),  # the seeds say it, whatever the test set
        ([0.980, 0.981, 0.982], [0.985, 0.986, 0.987], 10_000, "0.5"),
        ([0.980, 0.981, 0.982], [0.981], 360, "level"),  # one seed has no spread: the test set's error
        ([0.98, 0.98], [0.98, 0.98], None, "level"),
        ([0.97, 0.97], [0.98, 0.98], None, "1.0"),
    ],
)
def test_a_difference_is_a_headline_only_beyond_chance(
    ist: list[float], narrow: list[float], targets: int | None, big: str, runs: Any
) -> None:
    shown, words = against_narrow(runs, ist, narrow, targets)
    assert shown == big
    if big == "level":
        assert words.startswith(f"with narrow net ({100 * statistics.fmean(narrow):.1f} %)")
    else:
        assert words.startswith("points of accuracy behind narrow net")


def test_the_error_over_seeds_is_welchs_and_covers() -> None:
    """Two strategies that are the same differ beyond the error in 5 % of experiments, not more (4.5 sigma of 4000)."""
    random = np.random.default_rng(0)
    scores = random.normal(0.9, [[0.01]] * 3 + [[0.03]] * 3, (4000, 6, 1))[..., 0]
    beyond = [abs(a[:3].mean() - a[3:].mean()) > _seed_error(list(a[:3]), list(a[3:])) for a in scores]
    assert 0.02 < np.mean(beyond) < 0.05 + 4.5 * math.sqrt(0.05 * 0.95 / 4000)
    for a in scores[:20]:
        ours = stats.ttest_ind(a[:3], a[3:], equal_var=False).confidence_interval(0.95)
        assert _seed_error(list(a[:3]), list(a[3:])) == pytest.approx((ours.high - ours.low) / 2, rel=1e-9)


def test_headlines_count_the_bytes_of_the_busiest_worker(runs: Any) -> None:
    """The first worker sends the others their pieces: its bytes are what a link must carry, not the mean."""
    paths = [runs.training("ist"), runs.training("narrow", "narrow")]
    changed = read_run(paths[0]).rows
    for row in changed:
        sent = row["sent_bytes"][0]
        row["sent_bytes"] = [4 * sent, 0, 0, 0]  # the same mean
    rewrite_rows(paths[0], changed)
    (section,) = training_sections(read(*paths))
    assert any("for 2.5 × more bytes at the busiest worker" in words for _, words in section.headlines)


def test_a_rival_with_other_workers_is_not_compared(runs: Any) -> None:
    (section,) = training_sections(read(runs.training("a"), runs.training("b", "narrow", workers=8)))
    assert not any("narrow" in words for _, words in section.headlines)


def test_capacities_that_were_measured_are_shown_and_none_where_none_were(runs: Any) -> None:
    plain_run = read_run(runs.training("equal", seed=1))
    assert "Capacities as measured" not in {table.title for table in training_sections([plain_run])[0].tables}
    unequal = read_run(runs.training("unequal", capacities=[1.0, 0.65, 0.4, 0.4], seed=2))
    shown = {table.title: table.rows for table in training_sections([plain_run, unequal])[0].tables}
    assert shown["Capacities as measured"] == (("unequal", "2", "1, 0.65, 0.4, 0.4"),)


def test_each_data_set_has_its_own_section(runs: Any) -> None:
    found = training_sections(read(runs.training("a"), runs.training("b", data="idx:/somewhere"), runs.training("c")))
    assert [section.title for section in found] == ["Training on digits", "Training on idx:/somewhere"]


def test_each_network_has_its_own_section_and_its_own_whole(runs: Any) -> None:
    """Two networks on one data set are never in one picture, and a share is of the own network."""
    chosen = (("ist", "nets:wide"), ("narrow", "nets:wide"), ("narrow", "nets:other"))
    found = read(*(runs.training(f"r{i}", strategy, model=model) for i, (strategy, model) in enumerate(chosen)))
    sections = training_sections(found)
    assert [section.title for section in sections] == ["Training nets:wide on digits", "Training nets:other on digits"]
    assert len({section.name for section in sections}) == 2
    networks = {(one.strategy, one.runs[0].config["model"]): one.network for one in curves(found)}
    assert networks == dict(zip(chosen, (669_706, 669_706, 165_000), strict=True))


def test_seconds_of_the_serial_executor_are_explained(runs: Any) -> None:
    (section,) = training_sections(read(runs.training("a", executor="serial")))
    assert any("serial executor" in warning for warning in section.warnings)
    (section,) = training_sections(read(runs.training("b")))
    assert section.warnings == ()


def test_labels_name_only_what_differs_among_the_like() -> None:
    configs = [{"lr": 1, "n": 4}, {"lr": 1, "n": 8}, {"lr": 3, "n": 4}]
    assert distinct_labels(["a", "a", "b"], configs, frozenset()) == ["a (n 4)", "a (n 8)", "b"]
    assert distinct_labels(["a", "a", "b"], configs, frozenset({"n"})) == ["a", "a", "b"]


def test_words_of_the_trade_are_explained_where_they_appear(runs: Any) -> None:
    (section,) = training_sections(read(runs.training("a", law="block"), runs.training("b", "narrow")))
    assert [term for term, _ in section.terms] == ["IST", "narrow net", "blocks"]
    assert "one seed only" in section.intro
    (section,) = training_sections(read(*(runs.training(f"s{seed}", seed=seed) for seed in range(2))))
    assert "one seed only" not in section.intro


def test_a_law_that_the_registry_does_not_know_is_called_as_the_run_calls_it(runs: Any) -> None:
    own = {"law": "mylaws:Window", "law_label": "a window", "law_meaning": "a window slides over the units"}
    (section,) = training_sections(read(runs.training("a", **own), runs.training("b", law="of an older version")))
    assert section.terms[-1] == ("a window", "a window slides over the units")
    labels = [series.name for series in section.figures[0].panels[0].series]
    assert labels == ["IST, a window", "IST, of an older version"]
