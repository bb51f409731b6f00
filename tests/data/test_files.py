"""IDX and LIBSVM: real files read, broken files named by file and line."""

import gzip
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.data import load, read_idx, read_idx_folder, read_libsvm
from isthmus.errors import DataError

FASHION = Path("/usr/share/datasets/fashion-mnist")
HEART = Path("/usr/share/doc/liblinear-tools/examples/heart_scale")


def idx_bytes(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()


def write_folder(folder: Path, train: int = 6, test: int = 3, labels: int | None = None) -> Path:
    random = np.random.default_rng(0)
    for part, size in (("train", train), ("t10k", test)):
        images = random.integers(0, 256, (size, 4, 5))
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx_bytes(images))
        targets = random.integers(0, 3, labels or size)
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(targets)))
    return folder


@pytest.mark.skipif(not FASHION.is_dir(), reason="the Debian package dataset-fashion-mnist is not installed")
def test_fashion_mnist() -> None:
    data = load(f"idx:{FASHION}")
    assert (data.samples, data.dim, data.classes, data.shape) == (60_000, 784, 10, (28, 28))
    assert data.test is not None
    assert data.test.samples == 10_000
    assert np.bincount(data.targets).tolist() == [6_000] * 10
    assert (data.features.min(), data.features.max()) == (0.0, 1.0)


@pytest.mark.skipif(not HEART.is_file(), reason="the Debian package liblinear-tools is not installed")
def test_heart_scale() -> None:
    data = load(f"libsvm:{HEART}")
    assert (data.samples, data.dim, data.classes) == (270, 13, 2)
    assert np.bincount(data.targets).tolist() == [150, 120]
    first = HEART.read_text().splitlines()[0].split()
    assert data.features[0, 0] == float(first[1].split(":")[1])


def test_a_folder_raw_and_gzipped(tmp_path: Path) -> None:
    data = read_idx_folder(write_folder(tmp_path))
    assert (data.samples, data.shape, data.test.samples) == (6, (4, 5), 3)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=4))
def test_any_shape_reads_back(shape: list[int]) -> None:
    array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(idx_bytes(array))
        assert np.array_equal(read_idx(path), array)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    """Whatever number of bytes is missing, raw or gzipped, the file is named."""
    whole = idx_bytes(np.arange(60).reshape(3, 4, 5))
    path = tmp_path / "images"
    for content in (whole, gzip.compress(whole)):
        for size in range(len(content)):
            path.write_bytes(content[:size])
            with pytest.raises(DataError, match=str(path)):
                read_idx(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(DataError, match="too long"):
        read_idx(path)


def test_a_truncated_file_says_what_it_misses(tmp_path: Path) -> None:
    write_folder(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(DataError, match=r"ubyte: truncated: \(6, 4, 5\) needs 136 bytes, the file holds 129"):
        load(f"idx:{tmp_path}")


def test_other_bad_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        load(f"idx:{tmp_path / 'nowhere'}")
    with pytest.raises(DataError, match="has no train-images-idx3-ubyte nor"):
        load(f"idx:{tmp_path}")
    with pytest.raises(DataError, match="do not match"):
        load(f"idx:{write_folder(tmp_path, labels=4)}")
    write_folder(tmp_path, train=0, test=2)
    with pytest.raises(DataError, match="holds no samples"):
        load(f"idx:{tmp_path}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 1:0.5 2:1\n-1 1:x\n", "line 2: not `label index:value ...`"),
        ("1 1:0.5\n\n# note\n-1 2:1 1:3\n", "line 4: not"),
        ("1 1:0.5\nfive 1:2\n", "line 2: not"),
        ("1 1:0.5\n1 2\n", "line 2: not"),
        ("1 1:0.5\n-1 1:nan\n", "line 2: a value is not a finite number"),
        ("1 1:0.5\n-1 1:1\ninf 1:1\n", "line 3: a value is not a finite number"),
        ("", "holds no samples"),
        ("# only a note\n", "holds no samples"),
        ("2 3 2\n0 0:1\n1 3:1\n", "line 3: not `label index:value ...`"),
        ("2 3 2\n0 0:1\n1 2:1 1:1\n", "line 3: not"),
        ("2 3 2\n0 0:1\n2 1:1\n", "line 3: labels must be whole numbers from 0 to 1"),
        ("2 3 2\n0,-1 0:1\n1 1:1\n", "line 2: labels must be whole numbers from 0 to 1"),
        ("2 3 2\n0 0:1\n0.5 1:1\n", "line 3: labels must be whole numbers"),
        ("1,2 1:1\n0.5 1:1\n", "line 2: labels must be whole numbers"),
        ("2 3 2\n0 0:1\n1 1:nan\n", "line 3: a value is not a finite number"),
        ("3 3 2\n0 0:1\n1 1:1\n", "its first line says 3 samples, but it holds 2"),
        ("0 3 2\n", "holds no samples"),
    ],
)
def test_a_malformed_libsvm_line_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "file"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        read_libsvm(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_libsvm_classes_and_regression(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("-1 1:1\n3 2:5\n-1 1:2 2:7\n")
    data = read_libsvm(path)
    assert (data.classes, data.targets.tolist()) == (2, [0, 1, 0])
    assert data.features.tolist() == [[1, 0], [0, 5], [2, 7]]
    path.write_text("0.5 1:1\n2.25 1:2\n")
    data = read_libsvm(path)
    assert (data.classes, data.targets.tolist()) == (0, [0.5, 2.25])
