"""Rates and local steps of docs/slow-links.md are chosen on data that is trained on by no run and tested on by none."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from benchmarks import slow_links
from benchmarks.slow_links import TASKS, tuning_data

from isthmus.data.files import read_bytes
from isthmus.data.idx import read_idx_folder
from isthmus.data.text import read_text


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
