"""LIBSVM text files, read by scikit-learn; what it refuses is named by file and line."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from isthmus.data.dataset import Dataset, Features
from isthmus.data.files import read_bytes
from isthmus.errors import DataError

if TYPE_CHECKING:
    from scipy.sparse import csr_array

DENSE_MOST = 4096  # features of a sample; more than these are kept as sparse rows
_HEADER = re.compile(rb"[ \t]*(\d+)[ \t]+(\d+)[ \t]+(\d+)[ \t]*\r?(?:\n|$)")
_SEVERAL = re.compile(rb"^[^\s:#]+,", re.MULTILINE)


def read_libsvm(place: str | Path) -> Dataset:
    """Read a LIBSVM file, raw or gzipped: ``label index:value ...`` a line, indices ascending.

    Labels are classes when they are whole numbers of at most 100 different values, targets of a regression otherwise.
    With several labels a sample, ``label,label index:value ...``, each is a class. In the format of the
    extreme-classification repository a first line says how many samples, features and labels there are; features and
    labels are then numbered from 0, a sample may have no label, and features are sparse rows, as they are in every file
    with more than 4,096 features.

    Args:
        place: the file; or a folder with one file that has ``train`` in its name and one that has ``test``, both with
            such a first line.

    Raises:
        DataError: missing, empty, or malformed; a malformed line or a value that is not finite is named by its number.
    """
    path = Path(place)
    if not path.is_dir():
        return _file(f"libsvm:{place}", path)
    train, test = (_file(f"libsvm:{place}", _only(path, part), numbered=True) for part in ("train", "test"))
    return replace(train, test=test)


def _only(folder: Path, part: str) -> Path:
    found = sorted(each for each in folder.iterdir() if part in each.name and each.is_file())
    if len(found) != 1:
        names = ", ".join(each.name for each in found) or "none"
        raise DataError(f"{folder}: must hold one file with {part!r} in its name, got {names}")
    return found[0]


@dataclass(frozen=True)
class _Format:
    """How the lines of a file are to be read.

    Attributes:
        several: whether a sample may have several labels.
        header: numbers of samples, features and labels, if they are said.
    """

    several: bool
    header: tuple[int, int, int] | None

    def parse(self, lines: bytes) -> tuple[csr_array, Any]:
        """Return features and labels of some lines.

        Raises:
            ValueError, OverflowError: they are not of this format.
        """
        from scipy.sparse import csr_array
        from sklearn.datasets import load_svmlight_file  # loads pandas and more: not before it is needed

        how: dict[str, Any] = {"n_features": self.header[1], "zero_based": True} if self.header else {}
        found, labels = load_svmlight_file(io.BytesIO(lines), dtype=np.float64, multilabel=self.several, **how)
        return csr_array(found), labels


def _file(name: str, path: Path, numbered: bool = False) -> Dataset:
    content = read_bytes(path)
    found = _HEADER.match(content)
    if numbered and found is None:  # what a class is called in one file says nothing of the other
        raise DataError(f"{path}, line 1: must say how many samples, features and labels there are: `15539 5000 3993`")
    header = None if found is None else (int(found[1]), int(found[2]), int(found[3]))
    lines = content if found is None else content[found.end() :]
    form = _Format(header is not None or bool(_SEVERAL.search(lines)), header)
    before = content.count(b"\n", 0, len(content) - len(lines))

    def bad(why: str, wrong: Callable[[csr_array, Any], bool] = lambda *_: False) -> DataError:
        return DataError(f"{path}, line {before + _first_bad_line(lines, form, wrong)}: {why}")

    try:
        features, labels = form.parse(lines)
    except (ValueError, OverflowError) as error:
        raise bad(f"not `label index:value ...`: {error}") from error
    if features.shape[0] == 0 or features.shape[1] == 0:
        raise DataError(f"{path}: holds no samples")
    if header is not None and features.shape[0] != header[0]:
        raise DataError(f"{path}: its first line says {header[0]} samples, but it holds {features.shape[0]}")
    if not np.isfinite(features.data).all():
        raise bad("a value is not a finite number", lambda features, _: not np.isfinite(features.data).all())
    if not form.several and not np.isfinite(labels).all():
        raise bad("a value is not a finite number", lambda _, labels: not np.isfinite(labels).all())
    wide = header is not None or features.shape[1] > DENSE_MOST
    kept: Features = features if wide else features.toarray()
    shape = (features.shape[1],)
    if not form.several:
        values, classes = np.unique(labels, return_inverse=True)
        if bool(np.all(values == np.round(values))) and len(values) <= 100:
            return Dataset(name, kept, classes.astype(np.int64), len(values), shape)
        return Dataset(name, kept, labels, 0, shape)
    wrong = _no_label(header[2] if header else None)
    if wrong(features, labels):
        raise bad(f"labels must be whole numbers{f' from 0 to {header[2] - 1}' if header else ''}", wrong)
    return Dataset(name, kept, *_labels(labels, header[2] if header else None), shape)


def _no_label(classes: int | None) -> Callable[[csr_array, Any], bool]:
    """Return what tells whether a label among those of some samples is none."""

    def wrong(_: csr_array, labels: Sequence[tuple[float, ...]]) -> bool:
        numbers = np.array([label for each in labels for label in each])
        return not (np.all(numbers == np.round(numbers)) and (classes is None or _within(numbers, classes)))

    return wrong


def _within(numbers: np.ndarray, classes: int) -> bool:
    return bool(np.all((numbers >= 0) & (numbers < classes)))


def _labels(labels: Sequence[tuple[float, ...]], classes: int | None) -> tuple[csr_array, int]:
    """Return which labels each sample has, and how many labels there are: those of the header, or that occur."""
    from scipy.sparse import csr_array

    numbers = np.array([label for each in labels for label in each])
    if classes is None:
        values, numbers = np.unique(numbers, return_inverse=True)
        classes = len(values)
    rows = np.repeat(np.arange(len(labels)), [len(each) for each in labels])
    marks = csr_array((np.ones(len(rows), np.int32), (rows, numbers.astype(np.int64))), (len(labels), classes))
    return marks.astype(np.bool_), classes  # one that is named twice is there once


def _first_bad_line(content: bytes, form: _Format, wrong: Callable[[csr_array, Any], bool]) -> int:
    """Return the number of the first line that the same parser refuses, or that is wrong otherwise."""
    for number, line in enumerate(content.splitlines(), start=1):
        if not line.split(b"#")[0].strip():
            continue
        try:
            if wrong(*form.parse(line + b"\n")):
                return number
        except (ValueError, OverflowError):
            return number
    return len(content.splitlines())
