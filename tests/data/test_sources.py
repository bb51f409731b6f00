"""Text, a graph, and data of one's own."""

import gzip
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.linear_model import LogisticRegression

from cases.data import LENGTH, SOURCES
from isthmus.data import Dataset, load, load_standardized, read_text, standardize, stochastic_block_model, train_test
from isthmus.errors import DataError, InvalidInput

ANARCHISM = Path("/usr/share/doc/anarchism/markdown")


@given(st.binary(min_size=20, max_size=400), st.integers(1, 12))
def test_windows_give_the_text_back(content: bytes, length: int) -> None:
    """Each byte's target is the next; windows do not overlap; train is the beginning and test the last tenth."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(content)
        if len(content) < 10 * (length + 1):
            with pytest.raises(DataError, match=f"holds {len(content)} bytes; windows of {length} need at least"):
                load(f"text:{path}", length)
            return
        data = load(f"text:{path}", length)
    assert data.test is not None
    cut = len(content) - len(content) // 10
    for part, text in ((data, content[:cut]), (data.test, content[cut:])):
        assert (part.classes, part.shape) == (256, (length,))
        assert part.features.dtype == part.targets.dtype == np.int64
        features, targets = bytes(part.features.ravel().tolist()), bytes(part.targets.ravel().tolist())
        assert text.startswith(features)
        assert text[1:].startswith(targets)
        assert 0 < len(text) - len(features) <= length  # nothing is left that would fill a window and its last target


def test_a_folder_is_its_texts_in_order_of_name(tmp_path: Path) -> None:
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"second " * 10))
    (tmp_path / "a.md").write_bytes(b"first " * 10)
    (tmp_path / "c.md.gz").write_bytes(gzip.compress(b"third " * 10))
    (tmp_path / "d.html").write_bytes(b"not text")
    (tmp_path / "whole").write_bytes(b"first " * 10 + b"second " * 10 + b"third " * 10)
    folder, whole = load(f"text:{tmp_path}", 5), load(f"text:{tmp_path / 'whole'}", 5)
    assert np.array_equal(folder.features, whole.features)
    assert np.array_equal(folder.test.targets, whole.test.targets)


def test_bad_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        read_text(tmp_path / "nowhere", 8)
    with pytest.raises(DataError, match="has no text"):
        read_text(tmp_path, 8)
    path = tmp_path / "text.txt"
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"text\.txt: holds 0 bytes; windows of 8 need at least 90"):
        read_text(path, 8)
    path.write_bytes(gzip.compress(b"text" * 100)[:-9])
    with pytest.raises(DataError, match=r"text\.txt: cannot be read: Compressed file ended"):
        read_text(tmp_path, 8)
    with pytest.raises(InvalidInput, match="needs a network with a sequence as input"):
        load(f"text:{path}")
    with pytest.raises(InvalidInput, match="`length` must be at least 1, got 0"):
        load(f"text:{path}", 0)


@pytest.mark.skipif(not ANARCHISM.is_dir(), reason="the Debian package anarchism is not installed")
def test_real_text() -> None:
    data = load(f"text:{ANARCHISM}", 64)
    assert data.samples + data.test.samples > 150_000
    letters = bytes(data.features.ravel().tolist())
    assert letters.count(b" the ") / len(letters) > 0.005  # it is English


def test_the_graph_is_one_whatever_the_process() -> None:
    code = (
        "import hashlib; from isthmus.data import load; g = load('sbm:200').graph;"
        "print(hashlib.sha256(g.features.tobytes() + g.adjacency.tobytes()).hexdigest())"
    )
    two = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout for _ in range(2)]
    assert two[0] == two[1] != ""
    assert not np.array_equal(load("sbm:200").targets[:100], load("sbm:100").targets)
    assert load("sbm:200").name == "sbm:200"


def test_the_graph_has_the_stated_degrees_and_communities() -> None:
    """Edges are independent: their number deviates from its mean by at most 4.5 of its standard deviations."""
    data = load("sbm")
    assert data.graph is not None
    joined = (data.graph.adjacency > 0) & ~np.eye(2000, dtype=bool)
    assert np.array_equal(joined, joined.T)
    assert np.bincount(data.targets).tolist() == [250] * 8
    same = data.targets[:, None] == data.targets
    for pairs, neighbours in ((same & ~np.eye(2000, dtype=bool), 5.0 * 249 / 250), (~same, 5.0)):
        expected = 2000 * neighbours / 2
        assert abs(joined[pairs].sum() / 2 - expected) < 4.5 * np.sqrt(expected)


def test_features_say_something_and_neighbours_more() -> None:
    """A linear classifier sees the class in 54-58 % of the nodes; with features averaged over two steps, far more."""
    data = stochastic_block_model()
    train, test = train_test(data, 0)
    assert data.graph is not None

    def accuracy(features: np.ndarray) -> float:
        fitted = LogisticRegression(max_iter=1000).fit(features[train.features[:, 0]], train.targets)
        return float(fitted.score(features[test.features[:, 0]], test.targets))

    alone = accuracy(data.graph.features)
    adjacency = data.graph.adjacency.astype(np.float64)
    around = accuracy(np.hstack([data.graph.features, adjacency @ adjacency @ data.graph.features]))
    assert 0.5 < alone < 0.62
    assert around > alone + 0.15


@pytest.mark.parametrize("name", ["sbm:79", "sbm:20001", "sbm:many", "sbm:-5", "sbm:"])
def test_bad_sizes(name: str) -> None:
    with pytest.raises(InvalidInput, match=r"(?i)nodes"):
        load(name)


OWN = """
import numpy as np
from isthmus.data import Dataset
def waves():
    return Dataset("waves", np.eye(6), np.arange(6) % 2, 2, (6,))
def number():
    return 3
def broken():
    return Dataset("waves", np.full((2, 1), np.nan), np.arange(2), 2, (1,))
"""


def test_data_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_own_data.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    data = load("python:my_own_data:waves")
    assert isinstance(data, Dataset)
    assert (data.name, data.samples) == ("waves", 6)
    for name, message in (
        ("python:my_own_data:number", r"must return an isthmus\.data\.Dataset, got int"),
        ("python:my_own_data:wave", "did you mean 'waves'"),
        ("python:my_own_data", "`data` must be MODULE:FACTORY"),
        ("python:my_own_data:broken", "waves: feature 0 of sample 0 is nan"),
        ("python:", "`python:MODULE:FACTORY`"),
    ):
        with pytest.raises(InvalidInput, match=message):
            load(name)


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_is_sound(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same data every time, of the shape it says, and fit to be split."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    name = SOURCES[source](tmp_path)
    data, again = load(name, LENGTH), load(name, LENGTH)
    assert np.array_equal(data.features, again.features)
    assert np.array_equal(data.targets, again.targets)
    assert len(data.features) == len(data.targets) == data.samples > 0
    assert data.features[0].size == np.prod(data.shape)
    if data.classes:
        assert 0 <= data.targets.min() <= data.targets.max() < data.classes
    train, test = train_test(data, seed=0)
    assert min(train.samples, test.samples) > 0
    assert data.name


@pytest.mark.parametrize(
    ("name", "read", "largest"),
    [
        ("digits", load_digits, 16.0),
        ("diabetes", partial(load_diabetes, scaled=False), 1.0),
        ("breast-cancer", load_breast_cancer, 1.0),
    ],
    ids=["digits", "diabetes", "breast-cancer"],
)
def test_bundled_data_are_those_that_scikit_learn_reads(name: str, read: Callable[[], Any], largest: float) -> None:
    """Which are read without loading it."""
    data, bunch = load(name), read()
    assert np.array_equal(data.features, bunch.data / largest)
    assert data.features.flags.c_contiguous
    assert np.array_equal(data.targets, bunch.target)


def test_numbers_only_where_a_scale_is_needed() -> None:
    with pytest.raises(InvalidInput, match="must have numbers as features, got 'sbm:80'"):
        load_standardized("sbm:80")
    (expected,) = standardize(load("diabetes"))
    assert np.array_equal(load_standardized("diabetes").features, expected.features)
