"""Words and generated classes: every sample is what the text says, and the rank is what was asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from isthmus.data import load, many_classes, read_words
from isthmus.data.many import INPUTS
from isthmus.errors import DataError, InvalidInput


def test_every_sample_is_some_words_and_the_one_that_follows(tmp_path: Path) -> None:
    text = "The cat saw the dog, the dog saw a cat. " * 5
    (tmp_path / "a.txt").write_text(text)
    found = read_words(f"{tmp_path / 'a.txt'}@4", 2)
    words = text.lower().replace(",", " ,").replace(".", " .").split()
    train = words[: len(words) - len(words) // 10]
    vocabulary = sorted(set(train), key=lambda word: (-train.count(word), word))[:4]
    number = {word: at for at, word in enumerate(vocabulary)}
    expected = [
        ([number.get(word, 4) for word in train[at - 2 : at]], number[train[at]])
        for at in range(2, len(train)) if train[at] in number
    ]  # fmt: skip
    assert found.features.tolist() == [before for before, _ in expected]
    assert found.targets.tolist() == [after for _, after in expected]
    assert (found.classes, found.numeric, vocabulary[0]) == (4, False, "the")
    assert found.test is not None
    assert found.test.classes == 4


def test_of_many_files_the_last_are_the_test_part(tmp_path: Path) -> None:
    for number in range(10):
        (tmp_path / f"{number}.txt").write_text("a b c d " if number < 9 else "d c b a ")
    found = load(f"words:{tmp_path}", 1)
    assert found.test is not None
    pairs = [set(zip(part.features[:, 0].tolist(), part.targets.tolist(), strict=True)) for part in (found, found.test)]
    assert pairs == [{(0, 1), (1, 2), (2, 3)}, {(3, 2), (2, 1), (1, 0)}]  # nothing from one file to the next


def test_what_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("one two")
    with pytest.raises(DataError, match="too few words to foretell one from the 3 before"):
        read_words(tmp_path / "short.txt", 3)
    with pytest.raises(InvalidInput, match="needs a network that takes words"):
        read_words(tmp_path / "short.txt", None)
    with pytest.raises(InvalidInput, match="must have a number of words, got 'all'"):
        load(f"words:{tmp_path / 'short.txt'}@all", 2)
    with pytest.raises(InvalidInput, match="many:CLASSES:RANK must have one or two numbers, got 'few'"):
        load("many:few")


def test_the_class_of_a_generated_sample_hangs_on_as_many_directions_as_the_rank() -> None:
    """With rank 2 two directions of the inputs explain nearly all that their classes differ by; with rank 40 not."""
    shares = []
    for rank in (2, 40):
        found = many_classes(20, rank, 40_000)
        counts = np.zeros((INPUTS, 20))
        np.add.at(counts, (found.features, found.targets[:, None]), 1)
        rates = np.log((counts + 1) / (counts.sum(1, keepdims=True) + 20))
        spectrum = np.linalg.svd(rates - rates.mean(0), compute_uv=False) ** 2
        shares.append(spectrum[:2].sum() / spectrum.sum())
    assert shares[0] > 2 * shares[1]
    again = many_classes(20, 2, 100)
    assert np.array_equal(again.targets, many_classes(20, 2, 100).targets)
    assert again.test is not None
    assert (again.samples, again.test.samples) == (90, 10)
