"""Text as words; the class of a sample is the word that follows some others."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from isthmus.data.dataset import Dataset
from isthmus.data.files import read_bytes
from isthmus.data.text import text_files
from isthmus.errors import DataError, InvalidInput, check_integer

VOCABULARY = 5000  # words, where no number is given
_TEST = 10  # the last tenth of files, or of the words of one, is the test part
_WORD = re.compile(r"\w+|[^\w\s]")


def read_words(place: str | Path, length: int | None) -> Dataset:
    """Read a text file (raw or gzipped), or all ``*.txt`` and ``*.md`` of a folder, as words in lower case.

    The vocabulary are the V most frequent words of the training part, numbered by frequency. Features [m, length] are
    the numbers of the words before, V for any other word, as an embedding bag takes them; targets [m] the word that
    follows. Positions at which another word follows are left out.

    Args:
        place: the file or folder; ``PLACE@V`` for another vocabulary than 5,000 words.
        length: words before, the length of the network's input.

    Raises:
        InvalidInput: no length, or one below 1; a vocabulary that is no number.
        DataError: missing, a folder without text, or too little of it.
    """
    where, mark, number = str(place).rpartition("@")
    if mark and not number.isdecimal():
        raise InvalidInput(f"`data` words:FILE@V must have a number of words, got {number!r}")
    where, most = (where, int(number)) if mark else (str(place), VOCABULARY)
    check_integer("vocabulary", most, at_least=2)
    if length is None:
        raise InvalidInput(f"`data` words:{place} needs a network that takes words, as many as it is called with")
    check_integer("length", length, at_least=1)
    texts = [read_bytes(path).decode("utf-8", "replace").lower() for path in text_files(Path(where))]
    train, test = _split([_WORD.findall(text) for text in texts])
    counts = Counter(word for words in train for word in words)
    ordered = sorted(counts, key=lambda word: (-counts[word], word))[:most]
    numbers = {word: number for number, word in enumerate(ordered)}
    parts = [_samples(words, numbers, length) for words in (train, test)]
    if len(ordered) < 2 or not all(len(targets) for _, targets in parts):
        raise DataError(f"{where}: holds too few words to foretell one from the {length} before, in both parts")
    (features, targets), other = parts
    held_out = Dataset(f"words:{place}", *other, len(ordered), (length,))
    return Dataset(f"words:{place}", features, targets, len(ordered), (length,), held_out)


def _split(files: Sequence[list[str]]) -> tuple[list[list[str]], list[list[str]]]:
    """Return the training part and the test part: by files where there are ten, else by position in each."""
    if len(files) >= _TEST:
        cut = len(files) - len(files) // _TEST
        return list(files[:cut]), list(files[cut:])
    cuts = [len(words) - len(words) // _TEST for words in files]
    return [w[:cut] for w, cut in zip(files, cuts, strict=True)], [w[cut:] for w, cut in zip(files, cuts, strict=True)]


def _samples(files: Sequence[list[str]], numbers: dict[str, int], length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return all words with ``length`` words before them in the same file, but for those that have no number."""
    before, after = [np.empty((0, length), np.int32)], [np.empty(0, np.int64)]
    for words in files:
        if len(words) <= length:
            continue
        found = np.array([numbers.get(word, len(numbers)) for word in words], np.int32)
        windows = np.lib.stride_tricks.sliding_window_view(found[:-1], length)
        known = found[length:] < len(numbers)
        before.append(windows[known])
        after.append(found[length:][known].astype(np.int64))
    return np.concatenate(before), np.concatenate(after)
