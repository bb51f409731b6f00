"""Sparse features and several labels: every number of the file, and nothing else, is in the rows."""

from __future__ import annotations

import gzip
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array

from isthmus.data import Dataset, load, load_standardized, read_libsvm, train_test
from isthmus.data.libsvm import DENSE_MOST
from isthmus.errors import DataError, InvalidInput


def drawn(seed: int) -> list[tuple[set[int], dict[int, float]]]:
    """Samples with some of 6 labels and some of 10 features, and not without both: an empty line is none."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(random.integers(1, 9)):
        owned = set(np.flatnonzero(random.random(6) < random.random()).tolist())
        numbers = np.flatnonzero(random.random(10) < random.random()).tolist()
        if owned or numbers:
            values = random.normal(size=len(numbers)) * 10.0 ** random.integers(-9, 9, len(numbers))
            found.append((owned, dict(zip(numbers, values.tolist(), strict=True))))
    return found or [({0}, {})]


def written(samples: list[tuple[set[int], dict[int, float]]], features: int = 10, labels: int = 6) -> str:
    """The samples as the extreme-classification repository writes them."""
    lines = [f"{len(samples)} {features} {labels}"]
    for owned, values in samples:
        entries = (f"{number}:{value!r}" for number, value in sorted(values.items()))
        lines.append(" ".join([",".join(map(str, sorted(owned))), *entries]))
    return "\n".join(lines) + "\n"


@given(seed=st.integers(0, 10**6))
def test_every_number_and_label_of_the_file_is_kept(seed: int) -> None:
    samples = drawn(seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.txt"
        path.write_text(written(samples))
        found = load(f"libsvm:{path}")
    assert (found.samples, found.dim, found.classes, found.shape) == (len(samples), 10, 6, (10,))
    assert (found.sparse, found.labelled, found.numeric, found.targets_each) == (True, True, True, 1)
    assert not isinstance(found.features, np.ndarray)
    assert not isinstance(found.targets, np.ndarray)
    for row, (owned, values) in enumerate(samples):
        dense = np.zeros(10)
        dense[list(values)] = list(values.values())
        assert np.array_equal(found.features.toarray()[row], dense)
        assert set(np.flatnonzero(found.targets.toarray()[row])) == owned
    assert found.longest == max(len(values) for _, values in samples)


def test_a_hundred_thousand_features_are_never_made_dense(tmp_path: Path) -> None:
    """2,000 samples of 100,000 float64 would be 1.6 GB; some megabytes are taken to read 20 numbers of each."""
    random = np.random.default_rng(0)
    samples = [({n % 6}, dict.fromkeys(random.integers(0, 100_000, 20).tolist(), 0.5)) for n in range(2000)]
    path = tmp_path / "data.txt.gz"
    path.write_bytes(gzip.compress(written(samples, 100_000).encode()))
    load(f"libsvm:{path}")  # what is imported is not counted
    tracemalloc.start()
    found = load(f"libsvm:{path}")
    train, test = train_test(found, seed=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6
    assert train.samples + test.samples == 2000
    assert train.features.shape == (1600, 100_000)
    assert test.sparse
    assert test.labelled


def test_wide_files_with_one_label_are_sparse_and_narrow_ones_dense(tmp_path: Path) -> None:
    for width in (DENSE_MOST, DENSE_MOST + 1):
        path = tmp_path / "data.txt"
        path.write_text(f"1 1:2\n-1 {width}:3\n")
        found = read_libsvm(path)
        assert (found.sparse, found.labelled, found.dim) == (width > DENSE_MOST, False, width)
        assert found.targets.tolist() == [1, 0]
        assert [found.features[0, 0], found.features[1, width - 1]] == [2, 3]


def test_labels_without_a_first_line_are_those_that_occur(tmp_path: Path) -> None:
    path = tmp_path / "data.txt"
    path.write_text("3,7 1:1\n7,7 2:1\n12 1:4 2:5\n")
    found = read_libsvm(path)
    assert (found.sparse, found.classes) == (False, 3)
    assert not isinstance(found.targets, np.ndarray)
    assert found.targets.toarray().tolist() == [[True, True, False], [False, True, False], [False, False, True]]
    assert found.features.tolist() == [[1, 0], [0, 1], [4, 5]]


def test_a_folder_has_a_training_part_and_a_test_part(tmp_path: Path) -> None:
    (tmp_path / "x_train.txt").write_text(written([({0}, {0: 1.0}), ({1, 2}, {9: 2.0})]))
    (tmp_path / "x_test.txt").write_text(written([({5}, {})]))
    found = load(f"libsvm:{tmp_path}")
    assert (found.samples, found.classes) == (2, 6)
    assert found.test is not None
    assert not isinstance(found.test.targets, np.ndarray)
    assert found.test.targets.toarray()[0].tolist() == [False] * 5 + [True]
    (tmp_path / "x_test.txt").write_text(written([({5}, {})], features=11))
    with pytest.raises(DataError, match="the test part must have 10 features and 6 classes like the rest, got 11"):
        load(f"libsvm:{tmp_path}")
    (tmp_path / "x_test.txt").write_text("5 1:2\n")
    with pytest.raises(DataError, match=r"x_test.txt, line 1: must say how many samples, features and labels"):
        load(f"libsvm:{tmp_path}")
    (tmp_path / "y_test.txt").write_text("")
    with pytest.raises(DataError, match=r"must hold one file with 'test' in its name, got x_test.txt, y_test.txt"):
        load(f"libsvm:{tmp_path}")


def test_three_lines_of_one_number_are_no_first_line(tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_text("1\n2\n3\n1 1:2\n")
    found = read_libsvm(tmp_path / "data.txt")
    assert (found.samples, found.classes, found.sparse, found.labelled) == (4, 3, False, False)
    (tmp_path / "data.txt").write_text("2 3 2\r\n 2:0.5\r\n1 1:2\r\n")
    again = read_libsvm(tmp_path / "data.txt")
    assert not isinstance(again.targets, np.ndarray)
    assert (again.samples, again.dim, again.targets.toarray().tolist()) == (2, 3, [[False, False], [False, True]])


def test_what_sparse_data_may_not_be(tmp_path: Path) -> None:
    rows, labels = csr_array(np.eye(3)), csr_array(np.eye(3, dtype=bool))
    assert Dataset("x", rows, labels, 3, (3,)).take(np.array([2, 0])).samples == 2
    assert Dataset("x", rows, np.arange(3), 3, (3,)).sparse
    broken = rows.copy()
    broken.data[1] = np.inf
    for features, targets, classes, message in [
        (broken, labels, 3, "feature 1 of sample 1 is inf"),
        (rows.astype(np.int64), labels, 3, "sparse features must be float32 or float64, got int64"),
        (rows, labels.astype(np.int64), 3, "labels must be bool"),
        (rows, labels, 4, r"labels must be bool \[3, classes\] for 4 classes, got bool \(3, 3\)"),
        (rows, labels[:2], 3, r"got bool \(2, 3\)"),
        (rows.tocsc(), labels, 3, "must be a NumPy array or a scipy.sparse.csr_array, got csc_array"),
    ]:
        with pytest.raises(DataError, match=message):
            Dataset("x", features, targets, classes, (3,))
    (tmp_path / "data.txt").write_text("1 1:2\n-1 5000:3\n")
    with pytest.raises(InvalidInput, match="must have dense features and one target a sample, got"):
        load_standardized(f"libsvm:{tmp_path / 'data.txt'}")
    (tmp_path / "data.txt").write_text("1,2 1:2\n1 2:3\n")
    with pytest.raises(InvalidInput, match="which has several labels a sample"):
        load_standardized(f"libsvm:{tmp_path / 'data.txt'}")
