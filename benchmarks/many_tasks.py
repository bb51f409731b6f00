"""Classification with many classes and sparse inputs: four real tasks and two generated ones, and their network.

Real data are files that any Debian machine can have: texts (package ``anarchism``) and a list of packages (what
``apt-cache dumpavail`` prints). Everything is drawn by seed, so the same files give the same samples.
"""

from __future__ import annotations

import gzip
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor, nn

from isthmus.data import Dataset, many_classes, read_words
from isthmus.data.files import read_bytes
from isthmus.data.text import text_files
from isthmus.randomness import generator

TEXT = Path("/usr/share/doc/anarchism/markdown")
PACKAGES = Path("packages.txt")
TESTED = 10_000  # samples, at most
_COMMON = 1000  # words that an input of the next word tells apart
_BEFORE = 3
_GRAMS = 1000  # of letters, by hash
_LONGEST = 16  # active inputs of a sample
_TERMS = 2000  # of descriptions


@dataclass(frozen=True)
class Files:
    """Where real data are.

    Attributes:
        text: a file of English, raw or gzipped, or a folder of some.
        packages: what ``apt-cache dumpavail`` prints, raw or gzipped.
    """

    text: Path = TEXT
    packages: Path = PACKAGES


class Bag(nn.Module):
    """One hidden layer on the sum of the rows of a sample's active inputs.

    Args:
        inputs: D, rows of the bag; the number D stands for no input.
        units: hidden.
        classes: V.
    """

    def __init__(self, inputs: int, units: int, classes: int) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(inputs + 1, units, mode="sum", padding_idx=inputs)
        self.bias = nn.Parameter(torch.zeros(units))
        self.out = nn.Linear(units, classes)
        nn.init.normal_(self.bag.weight, std=0.3)

    def forward(self, active: Tensor) -> Tensor:
        """Return scores [m, V] of samples [m, active inputs]."""
        return self.out((self.bag(active) + self.bias).relu())


@dataclass(frozen=True)
class Task:
    """What is learned.

    Attributes:
        label: in tables.
        make: returns all samples, and the number of inputs D, given the files, V, and how many samples are wanted.
        by_frequency: whether classes are numbered by it.
        several: whether a sample has several labels.
    """

    label: str
    make: Callable[[Files, int, int], tuple[Dataset, int]]
    by_frequency: bool = False
    several: bool = False


def data_of(task: str, files: Files, classes: int, wanted: int) -> tuple[Dataset, int]:
    """Return at most ``wanted`` training samples with their test part, and the number of inputs D."""
    made, inputs = TASKS[task].make(files, classes, wanted)
    assert made.test is not None
    order = generator(0, "many/order").permutation(made.samples)[:wanted]
    tested = generator(0, "many/tested").permutation(made.test.samples)[:TESTED]
    return replace(made.take(order), name=f"{task}-{classes}", test=made.test.take(tested)), inputs


def _next_word(files: Files, classes: int, wanted: int) -> tuple[Dataset, int]:
    """Three words before, of the 1,000 most frequent (others alike), each at its place -> the next word."""
    found = read_words(f"{files.text}@{classes}", _BEFORE)
    places = (_COMMON + 1) * np.arange(_BEFORE, dtype=np.int32)

    def placed(part: Dataset) -> Dataset:
        return replace(part, features=np.minimum(part.features, _COMMON) + places, test=None)

    assert found.test is not None
    return replace(placed(found), test=placed(found.test)), (_COMMON + 1) * _BEFORE


def _spelling(files: Files, classes: int, wanted: int) -> tuple[Dataset, int]:
    """A word with one or two letters wrong, as the trigrams of its letters -> the word."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    counts = Counter(
        word for path in text_files(files.text)
        for word in re.findall(r"[a-z]{4,14}", read_bytes(path).decode("utf-8", "replace").lower())
    )  # fmt: skip
    words = sorted(counts, key=lambda word: (-counts[word], word))[:classes]
    random, total = generator(0, "many/spelling"), wanted + TESTED
    targets = random.integers(0, len(words), total)
    kinds, places = random.integers(0, 4, (total, 2)), random.random((total, 2))
    drawn, twice = random.integers(0, len(letters), (total, 2)), random.random(total) < 0.5
    rows = []
    for number, target in enumerate(targets.tolist()):
        word = words[target]
        for edit in range(1 + twice[number]):
            at = int(places[number, edit] * len(word))
            letter = letters[drawn[number, edit]]
            kind = kinds[number, edit]
            middle = ("", letter, letter + word[at], word[at : at + 2][::-1])[kind]
            word = word[:at] + middle + word[at + (2 if kind == 3 else 1) :]
        whole = f"^{word}$"
        rows.append({crc32(whole[at : at + 3].encode()) % _GRAMS for at in range(len(whole) - 2)})
    return _parts(_padded(rows, _GRAMS), targets, len(words), wanted), _GRAMS


def _maintainer(files: Files, classes: int, wanted: int) -> tuple[Dataset, int]:
    """The words of a package's name and description -> who looks after it, of the busiest."""
    features, marks = _packages(files, classes, lambda fields: [fields["Maintainer"]] if "Maintainer" in fields else [])
    return _parts(features, marks.indices.astype(np.int64), marks.shape[1], _most(marks)), _TERMS


def _tags(files: Files, classes: int, wanted: int) -> tuple[Dataset, int]:
    """The words of a package's name and description -> its tags (written in, use, interface, ...), of the commonest."""
    features, marks = _packages(files, classes, lambda fields: re.findall(r"[^\s,]+", fields.get("Tag", "")))
    return _parts(features, marks, marks.shape[1], _most(marks)), _TERMS


def _most(marks: csr_array) -> int:
    return int(marks.shape[0] - marks.shape[0] // 10)


def _packages(
    files: Files, classes: int, labels_of: Callable[[dict[str, str]], list[str]]
) -> tuple[NDArray[np.int32], csr_array]:
    """Return the active inputs of all packages that have labels, and these: of all, so many of the commonest."""
    content = files.packages.read_bytes()
    text = (gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content).decode("utf-8", "replace")
    found = []
    for entry in text.split("\n\n"):
        fields = dict(re.findall(r"^(Package|Maintainer|Tag|Description(?:-en)?): (.*(?:\n .*)*)$", entry, re.M))
        labels = labels_of(fields)
        if "Package" in fields and labels:
            said = fields.get("Description", fields.get("Description-en", "")).partition("\n")[0]
            found.append((re.findall(r"[a-z]+|\d+", f"{fields['Package']} {said}".lower()), labels))
    known, terms = (_numbered((each for row in rows for each in row), most) for rows, most in (
        ((labels for _, labels in found), classes), ((said for said, _ in found), _TERMS)))  # fmt: skip
    kept = [(said, {known[each] for each in labels if each in known}) for said, labels in found]
    kept = [(said, labels) for said, labels in kept if labels]
    order = generator(0, "many/packages").permutation(len(kept))
    rows = [{terms[term] for term in kept[at][0] if term in terms} for at in order]
    labels = [sorted(kept[at][1]) for at in order]
    ends = np.cumsum([0, *map(len, labels)])
    marks = csr_array((np.ones(ends[-1], bool), np.concatenate(labels), ends), (len(labels), len(known)))
    return _padded(rows, _TERMS), marks


def _generated(rank: int) -> Callable[[Files, int, int], tuple[Dataset, int]]:
    def make(files: Files, classes: int, wanted: int) -> tuple[Dataset, int]:
        return many_classes(classes, rank, max(wanted * 10 // 9 + 1, 10 * TESTED)), 1000

    return make


def _numbered(items: Iterable[str], most: int) -> dict[str, int]:
    """Return the most frequent items, numbered by frequency."""
    counts = Counter(items)
    return {each: at for at, each in enumerate(sorted(counts, key=lambda item: (-counts[item], item))[:most])}


def _padded(rows: Sequence[set[int]], nothing: int) -> NDArray[np.int32]:
    """Return sets of numbers as an array, what is missing filled up by the number of no input."""
    longest = min(_LONGEST, max(map(len, rows)))
    found = np.full((len(rows), longest), nothing, np.int32)
    for at, row in enumerate(rows):
        few = sorted(row)[:longest]
        found[at, : len(few)] = few
    return found


def _parts(features: NDArray[np.int32], targets: NDArray[np.int64] | csr_array, classes: int, cut: int) -> Dataset:
    shape = features.shape[1:]
    test = Dataset("many", features[cut:], targets[cut:], classes, shape)
    return Dataset("many", features[:cut], targets[:cut], classes, shape, test)


TASKS = {
    "next-word": Task("next word", _next_word, by_frequency=True),
    "spelling": Task("misspelt -> word", _spelling),
    "maintainer": Task("package -> maintainer", _maintainer, by_frequency=True),
    "tags": Task("package -> tags", _tags, several=True),
    "rank-64": Task("generated, rank 64", _generated(64)),
    "rank-9": Task("generated, rank 9", _generated(9)),
}
