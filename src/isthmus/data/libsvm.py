"""LIBSVM text files, read by scikit-learn; what it refuses is named by file and line."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from isthmus.data.dataset import Dataset
from isthmus.data.files import read_bytes
from isthmus.errors import DataError


def read_libsvm(path: str | Path) -> Dataset:
    """Read a LIBSVM file, raw or gzipped: ``label index:value ...`` a line, indices ascending.

    Labels are classes when they are whole numbers of at most 100 different values, targets of a regression otherwise.

    Raises:
        DataError: missing, empty, or malformed; a malformed line or a value that is not finite is named by its number.
    """
    content = read_bytes(path)
    try:
        features, labels = _parse(content)
    except (ValueError, OverflowError) as error:
        raise DataError(f"{path}, line {_first_bad_line(content)}: not `label index:value ...`: {error}") from error
    if len(labels) == 0 or features.shape[1] == 0:
        raise DataError(f"{path}: holds no samples")
    if not (np.isfinite(features).all() and np.isfinite(labels).all()):
        raise DataError(f"{path}, line {_first_bad_line(content)}: a value is not a finite number")
    values, classes = np.unique(labels, return_inverse=True)
    whole = bool(np.all(values == np.round(values)))
    if whole and len(values) <= 100:
        targets, count = classes.astype(np.int64), len(values)
    else:
        targets, count = labels, 0
    return Dataset(f"libsvm:{path}", features, targets, count, (features.shape[1],))


def _parse(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_svmlight_file  # loads pandas and more: not before it is needed

    sparse, labels = load_svmlight_file(io.BytesIO(content), dtype=np.float64, zero_based="auto")
    return np.asarray(sparse.todense()), np.asarray(labels, dtype=np.float64)


def _first_bad_line(content: bytes) -> int:
    """Return the number of the first line that the same parser refuses, or whose values are not finite."""
    for number, line in enumerate(content.splitlines(), start=1):
        if not line.split(b"#")[0].strip():
            continue
        try:
            features, labels = _parse(line + b"\n")
        except (ValueError, OverflowError):
            return number
        if not (np.isfinite(features).all() and np.isfinite(labels).all()):
            return number
    return len(content.splitlines())
