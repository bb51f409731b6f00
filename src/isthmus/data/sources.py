"""A data set by name: bundled with scikit-learn, or ``idx:FOLDER``, or ``libsvm:FILE``."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from sklearn import datasets

from isthmus.data.dataset import Dataset
from isthmus.data.idx import read_idx_folder
from isthmus.data.libsvm import read_libsvm
from isthmus.errors import InvalidInput, check_choice


def load(name: str) -> Dataset:
    """Return the data set ``name``: ``digits``, ``diabetes``, ``breast-cancer``, ``idx:FOLDER`` or ``libsvm:FILE``.

    Raises:
        InvalidInput: an unknown name (the nearest known one is suggested).
        DataError: the file or folder is missing or malformed.
    """
    kind, colon, place = name.partition(":")
    if colon and kind in _READERS:
        if not place:
            raise InvalidInput(f"`data` must name a place after {kind!r}: `{kind}:PATH`, got {name!r}")
        return _READERS[kind](place)
    return BUNDLED[check_choice("data", name, [*BUNDLED, *(f"{reader}:PATH" for reader in _READERS)])]()


def _digits() -> Dataset:
    bunch = datasets.load_digits()
    return Dataset("digits", bunch.data / 16.0, bunch.target.astype(np.int64), 10, (8, 8))


def _diabetes() -> Dataset:
    bunch = datasets.load_diabetes(scaled=False)
    return Dataset("diabetes", bunch.data, bunch.target.astype(np.float64), 0, (bunch.data.shape[1],))


def _breast_cancer() -> Dataset:
    bunch = datasets.load_breast_cancer()
    return Dataset("breast-cancer", bunch.data, bunch.target.astype(np.int64), 2, (bunch.data.shape[1],))


BUNDLED: dict[str, Callable[[], Dataset]] = {
    "digits": _digits,
    "diabetes": _diabetes,
    "breast-cancer": _breast_cancer,
}
_READERS: dict[str, Callable[[str], Dataset]] = {"idx": read_idx_folder, "libsvm": read_libsvm}
