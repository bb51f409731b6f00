"""A data set by name: bundled with scikit-learn, generated, from files, or the user's own function."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from sklearn import datasets

from isthmus.data.dataset import Dataset
from isthmus.data.idx import read_idx_folder
from isthmus.data.libsvm import read_libsvm
from isthmus.data.sbm import stochastic_block_model
from isthmus.data.split import standardize
from isthmus.data.text import read_text
from isthmus.errors import InvalidInput, check_choice
from isthmus.factories import call_factory, load_factory


def load(name: str, length: int | None = None) -> Dataset:
    """Return the data set ``name``.

    ``digits``, ``diabetes``, ``breast-cancer`` (bundled), ``sbm`` or ``sbm:NODES`` (generated, nodes of a graph),
    ``idx:FOLDER``, ``libsvm:FILE``, ``text:FILE`` or ``text:FOLDER``, or ``python:MODULE:FACTORY``, a function without
    arguments that returns a :class:`Dataset` (the current folder is searched first).

    Args:
        name: one of these.
        length: length of the network's input sequence, which text is cut to; other data does not use it.

    Raises:
        InvalidInput: an unknown name (the nearest known one is suggested), text without a length, or a function that
            cannot be found or returns something else.
        DataError: the file or folder is missing or malformed.
    """
    kind, colon, place = name.partition(":")
    if colon and kind in _PLACES:
        if not place:
            raise InvalidInput(f"`data` must name a place after {kind!r}: `{kind}:{_PLACES[kind]}`, got {name!r}")
        return _read(kind, place, length)
    return BUNDLED[check_choice("data", name, [*BUNDLED, *(f"{kind}:{place}" for kind, place in _PLACES.items())])]()


def load_standardized(name: str) -> Dataset:
    """Return a data set of numbers as a whole, each feature with mean 0 and variance 1.

    Raises:
        InvalidInput: tokens or nodes of a graph; or what :func:`load` refuses.
    """
    dataset = load(name)
    if not dataset.numeric:
        raise InvalidInput(f"`data` must have numbers as features, got {name!r}, whose samples are tokens or nodes")
    return standardize(dataset)[0]


def _read(kind: str, place: str, length: int | None) -> Dataset:
    if kind == "idx":
        return read_idx_folder(place)
    if kind == "libsvm":
        return read_libsvm(place)
    if kind == "text":
        return read_text(place, length)
    if kind == "sbm":
        if not place.isdecimal():
            raise InvalidInput(f"`data` sbm:NODES must have a number of nodes, got {place!r}")
        return stochastic_block_model(int(place))
    made = call_factory(load_factory(place, flag="data"), place, flag="data")
    if not isinstance(made, Dataset):
        raise InvalidInput(f"`data` python:{place} must return an isthmus.data.Dataset, got {type(made).__name__}")
    return made


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
    "sbm": stochastic_block_model,
}
_PLACES = {"idx": "FOLDER", "libsvm": "FILE", "text": "FILE", "sbm": "NODES", "python": "MODULE:FACTORY"}
