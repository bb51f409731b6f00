"""A data set by name: bundled with scikit-learn, generated, from files, or the user's own function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from isthmus.data.dataset import Dataset
from isthmus.data.idx import read_idx_folder
from isthmus.data.libsvm import read_libsvm
from isthmus.data.many import read_many
from isthmus.data.sbm import stochastic_block_model
from isthmus.data.split import standardize
from isthmus.data.text import read_text
from isthmus.data.words import read_words
from isthmus.errors import DataError, InvalidInput, check_choice
from isthmus.factories import call_factory, load_factory


def load(name: str, length: int | None = None) -> Dataset:
    """Return the data set ``name``.

    ``digits``, ``diabetes``, ``breast-cancer`` (bundled), ``sbm`` or ``sbm:NODES`` (generated, nodes of a graph),
    ``idx:FOLDER``, ``libsvm:FILE`` or ``libsvm:FOLDER`` (sparse features and several labels too), ``text:FILE`` or
    ``text:FOLDER`` (bytes), ``words:FILE`` or ``words:FILE@V`` (the next word), ``many:V`` or ``many:V:RANK``
    (generated, V classes), or ``python:MODULE:FACTORY``, a function without arguments that returns a
    :class:`Dataset` (the current folder is searched first).

    Args:
        name: one of these.
        length: length of the network's input sequence, which text is cut to; other data does not use it.

    Raises:
        InvalidInput: an unknown name (the nearest known one is suggested), text without a length, or a function that
            cannot be found or returns something else.
        DataError: the file or folder is missing or malformed.
    """
    kind, colon, place = name.partition(":")
    if colon and kind in READERS:
        if not place:
            raise InvalidInput(f"`data` must name a place after {kind!r}: `{kind}:{READERS[kind].place}`, got {name!r}")
        return READERS[kind].read(place, length)
    places = [f"{kind}:{reader.place}" for kind, reader in READERS.items()]
    return BUNDLED[check_choice("data", name, [*BUNDLED, *places])]()


def load_standardized(name: str) -> Dataset:
    """Return a data set of numbers as a whole, each feature with mean 0 and variance 1.

    Raises:
        InvalidInput: tokens or nodes of a graph; or what :func:`load` refuses.
    """
    dataset = load(name)
    if not dataset.numeric:
        raise InvalidInput(f"`data` must have numbers as features, got {name!r}, whose samples are tokens or nodes")
    if dataset.sparse or dataset.labelled:
        what = "sparse features" if dataset.sparse else "several labels a sample"
        raise InvalidInput(f"`data` must have dense features and one target a sample, got {name!r}, which has {what}")
    return standardize(dataset)[0]


def _graph(nodes: str) -> Dataset:
    if not nodes.isdecimal():
        raise InvalidInput(f"`data` sbm:NODES must have a number of nodes, got {nodes!r}")
    return stochastic_block_model(int(nodes))


def _made(target: str) -> Dataset:
    made = call_factory(load_factory(target, flag="data"), f"`data` {target!r}")
    if not isinstance(made, Dataset):
        raise InvalidInput(f"`data` python:{target} must return an isthmus.data.Dataset, got {type(made).__name__}")
    return made


def _digits() -> Dataset:
    table = _table("digits.csv.gz", ",")
    return Dataset("digits", table[:, :-1] / 16.0, table[:, -1].astype(np.int64), 10, (8, 8))


def _diabetes() -> Dataset:
    features, targets = _table("diabetes_data_raw.csv.gz"), _table("diabetes_target.csv.gz")
    return Dataset("diabetes", features, targets[:, 0], 0, (features.shape[1],))


def _breast_cancer() -> Dataset:
    table = _table("breast_cancer.csv", ",", names=1)
    return Dataset("breast-cancer", table[:, :-1].copy(), table[:, -1].astype(np.int64), 2, (table.shape[1] - 1,))


def _table(name: str, delimiter: str | None = None, names: int = 0) -> np.ndarray:
    """Return the numbers of a file that scikit-learn brings along.

    The package itself is not loaded: that takes a second of CPU, which every worker of a run would spend.
    """
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        raise DataError(f"{name} comes with scikit-learn, which is not installed")
    path = Path(package.origin).parent / "datasets" / "data" / name
    try:
        return np.loadtxt(path, delimiter=delimiter, skiprows=names, ndmin=2)
    except OSError as error:
        raise DataError(f"{path} of scikit-learn cannot be read: {error}") from error


BUNDLED: dict[str, Callable[[], Dataset]] = {
    "digits": _digits,
    "diabetes": _diabetes,
    "breast-cancer": _breast_cancer,
    "sbm": stochastic_block_model,
}


@dataclass(frozen=True)
class Reader:
    """What ``KIND:PLACE`` reads: what its place is, and how it is read, given the place and a sequence length."""

    place: str
    read: Callable[[str, int | None], Dataset]


READERS: dict[str, Reader] = {
    "idx": Reader("FOLDER", lambda place, length: read_idx_folder(place)),
    "libsvm": Reader("FILE", lambda place, length: read_libsvm(place)),
    "text": Reader("FILE", lambda place, length: read_text(place, length)),
    "words": Reader("FILE", lambda place, length: read_words(place, length)),
    "many": Reader("CLASSES:RANK", lambda place, length: read_many(place)),
    "sbm": Reader("NODES", lambda place, length: _graph(place)),
    "python": Reader("MODULE:FACTORY", lambda place, length: _made(place)),
}
