"""A data set by name: bundled with scikit-learn, generated, from files, or the user's own function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from isthmus.data.dataset import Dataset
from isthmus.data.idx import read_idx_folder
from isthmus.data.libsvm import read_libsvm
from isthmus.data.many import read_many
from isthmus.data.sbm import stochastic_block_model
from isthmus.data.split import standardize
from isthmus.data.text import read_text
from isthmus.data.words import read_words
from isthmus.errors import InvalidInput, check_choice
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
    from sklearn.datasets import load_digits  # a second of CPU, for those who need it

    bunch = load_digits()
    return Dataset("digits", bunch.data / 16.0, bunch.target.astype(np.int64), 10, (8, 8))


def _diabetes() -> Dataset:
    from sklearn.datasets import load_diabetes

    bunch = load_diabetes(scaled=False)
    return Dataset("diabetes", bunch.data, bunch.target.astype(np.float64), 0, (bunch.data.shape[1],))


def _breast_cancer() -> Dataset:
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer()
    return Dataset("breast-cancer", bunch.data, bunch.target.astype(np.int64), 2, (bunch.data.shape[1],))


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
