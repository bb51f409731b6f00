"""Rates and local steps of docs/slow-links.md are chosen on data that is trained on by no run and tested on by none."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from benchmarks import slow_links
from benchmarks.slow_links import (
    TASKS,
    TUNING_SEED,
    Course,
    Finding,
    Missing,
    Options,
    Variant,
    best_rate,
    known,
    needed,
    seconds_of_a_round,
    seeds,
    show,
    tune,
    tuning_data,
)

from isthmus.data.files import read_bytes
from isthmus.data.idx import read_idx_folder
from isthmus.data.text import read_text

ROOT = Path(__file__).parents[2]


def written(folder: Path, part: str, count: int) -> None:
    """Write images that tell their number."""
    images = np.arange(count, dtype=">u2").view(np.uint8).reshape(count, 1, 2)
    labels = np.arange(count, dtype=np.uint8) % 3
    for kind, values in (("images-idx3", images), ("labels-idx1", labels)):
        sizes = np.array(values.shape, ">u4").tobytes()
        (folder / f"{part}-{kind}-ubyte").write_bytes(bytes([0, 0, 8, values.ndim]) + sizes + values.tobytes())


def test_a_part_of_the_training_data_takes_the_test_sets_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    source.mkdir()
    written(source, "train", 300)
    written(source, "t10k", 7)
    monkeypatch.setattr(slow_links, "HELD_OUT", 100)
    task = replace(TASKS["mlp"], data=("idx", str(source)))
    tuned = read_idx_folder(tuning_data(task, tmp_path / "runs" / "held-out"))
    assert tuned.test is not None
    assert (len(tuned.targets), len(tuned.test.targets)) == (200, 100)
    found = [tuple(row) for part in (tuned, tuned.test) for row in np.column_stack([part.features, part.targets])]
    whole = read_idx_folder(source)
    expected = [tuple(row) for row in np.column_stack([whole.features, whole.targets])]
    assert Counter(found) == Counter(expected)  # each image with its label, in one of the two; no test image in either


def test_of_a_text_the_end_of_its_training_part_is_held_out(tmp_path: Path) -> None:
    source = tmp_path / "text.txt"
    source.write_bytes(np.random.default_rng(0).integers(0, 256, 5000, dtype=np.uint8).tobytes())
    folder = tuning_data(replace(TASKS["gpt"], data=("text", str(source))), tmp_path / "held-out")
    assert read_bytes(folder / "train.txt") == source.read_bytes()[:4500]  # what read_text trains on, and no more
    tuned, whole = read_text(folder, 8), read_text(source, 8)
    assert tuned.test is not None
    assert np.array_equal(whole.features[: len(tuned.features)], tuned.features)
    assert len(tuned.features) + len(tuned.test.features) in (len(whole.features), len(whole.features) - 1)


def test_a_target_is_reached_between_two_looks() -> None:
    course = Course("narrow", 0.1, 20, 0, looks=[(0, 0.1), (2, 0.5), (4, 0.9), (6, 0.7)])
    assert course.rounds_to(0.5) == 2
    assert course.rounds_to(0.6) == 2.5
    assert course.rounds_to(0.95) is None


def test_courses_are_kept_and_the_rate_is_the_best_on_held_out_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    written(source, "train", 300)
    written(source, "t10k", 30)
    monkeypatch.setattr(slow_links, "HELD_OUT", 100)
    task = replace(
        TASKS["mlp"], flags={"widths": (8, 8), "batch_size": 4}, data=("idx", str(source)), samples={2: 80},
        rates={2: (0.01, 0.3)}, steps={2: (10,)}, target=2.0, chosen_by=2.0,
        variants={"narrow": Variant({"strategy": "narrow"})},
    )  # fmt: skip
    monkeypatch.setitem(TASKS, "mlp", task)
    options = Options(workers=2, seeds=2, jobs=1, folder=tmp_path / "kept", work=tmp_path / "work")
    with pytest.raises(Missing, match="narrow with 10 local steps"):
        best_rate(options, "narrow", 10)
    tune(options)
    made = known(options)
    assert {(course.rate, course.seed) for course in made.values()} == {(0.01, TUNING_SEED), (0.3, TUNING_SEED)}
    best = max(made.values(), key=lambda course: course.accuracy).rate  # no rate reaches an accuracy of 2
    assert best_rate(options, "narrow", 10) == best
    tune(options)
    seeds(options)
    assert len(options.courses.read_text().splitlines()) == 4  # none twice
    assert {course.rate for course in known(options).values() if course.seed != TUNING_SEED} == {best}
    course = next(iter(made.values()))
    assert [number for number, _ in course.looks] == [0, 1, 2]
    assert not [path for path in options.work.iterdir() if path.name.startswith("mlp")]  # nothing is left of the runs


def test_a_rate_that_diverges_is_not_chosen(tmp_path: Path) -> None:
    options = Options(folder=tmp_path)
    options.place.mkdir()
    made = [Course("narrow", 0.01, 20, TUNING_SEED, looks=[(0, 0.1)]),
            Course("narrow", 0.03, 20, TUNING_SEED, looks=[(0, 0.1)], accuracy=0.2)]  # fmt: skip
    options.courses.write_text("".join(json.dumps(asdict(course)) + "\n" for course in made))
    assert best_rate(options, "narrow", 20) == 0.03


def test_rounds_to_the_target_are_whole_but_steps_of_what_communicates_in_each_are_counted(tmp_path: Path) -> None:
    options = Options(folder=tmp_path, target=0.6)
    options.place.mkdir()
    looks = [(0, 0.1), (2, 0.5), (4, 0.9)]  # 2.5 rounds of 20 steps
    made = [Course(name, 0.01, 20, TUNING_SEED, looks=looks, accuracy=0.9) for name in ("narrow", "DDP")]
    options.courses.write_text("".join(json.dumps(asdict(course)) + "\n" for course in made))
    assert needed(options, "narrow", 20, TUNING_SEED)[0] == 3
    assert needed(options, "DDP, fp16", 20, TUNING_SEED)[0] == 50
    assert needed(replace(options, target=0.95), "narrow", 20, TUNING_SEED)[0] is None


def test_seconds_with_a_core_each_leave_out_the_turns_of_computing() -> None:
    row = {"seconds": 10.0, "computing": 6.0, "cores": 2}
    one = Finding(0.1, 20, [3, None, 5], row, [0.9] * 3, [])
    assert one.seconds == [30.0, 50.0]
    assert one.apart(4) == [3 * 7.0, 5 * 7.0]  # four hosts on two cores compute in two turns
    assert one.apart(2) == one.seconds


@pytest.mark.parametrize(
    ("task", "workers", "target"),
    [("mlp", 4, None), ("mlp", 4, 0.86), ("mlp", 8, None), ("cnn", 4, None), ("cnn", 8, None)],
)
def test_the_tables_on_the_page_are_of_what_was_measured(
    task: str, workers: int, target: float | None, capsys: pytest.CaptureFixture[str]
) -> None:
    show(Options(task=task, workers=workers, target=target, folder=ROOT / "docs/measured/links"))
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    page = (ROOT / "docs/slow-links.md").read_text().splitlines()
    assert len(rows) > 15
    assert [row for row in rows if row not in page] == []


def test_longer_and_shorter_rounds_have_more_or_less_of_the_same_computing(tmp_path: Path) -> None:
    options = Options(folder=tmp_path)
    kept = options.place / "links"
    kept.mkdir(parents=True)
    row = {"seconds": 10.0, "computing": 6.0, "wire": 2e6, "hops": 4}
    (kept / "100-mbit_s-narrow-H100.json").write_text(json.dumps(row))
    assert seconds_of_a_round(options, "100 Mbit/s", "narrow", 400)["seconds"] == 10.0 + 3 * 6.0
    assert seconds_of_a_round(options, "100 Mbit/s", "narrow", 20)["seconds"] == pytest.approx(10.0 - 0.8 * 6.0)
    with pytest.raises(Missing, match="a round of narrow with 100 local steps at 10 Mbit/s"):
        seconds_of_a_round(options, "10 Mbit/s", "narrow", 100)
