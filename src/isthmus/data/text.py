"""Text as windows of bytes; the target of every byte is the next."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from isthmus.data.dataset import Dataset
from isthmus.data.files import read_bytes
from isthmus.errors import DataError, InvalidInput, check_integer

CLASSES = 256  # bytes: a network's vocabulary is known before the text is read
_TEST = 10  # the last tenth of the text is the test part
_ENDINGS = (".txt", ".md", ".txt.gz", ".md.gz")


def read_text(place: str | Path, length: int | None) -> Dataset:
    """Read a text file (raw or gzipped), or all ``*.txt`` and ``*.md`` (raw or ``.gz``) of a folder in order of name.

    Args:
        place: the file or folder.
        length: bytes of a window, the length of the network's input. Windows do not overlap; features [m, length] are
            the bytes, targets [m, length] the bytes that follow each of them.

    Raises:
        InvalidInput: no length, or one below 1.
        DataError: missing, a folder without text, or fewer bytes than one window for test and nine to train.
    """
    if length is None:
        raise InvalidInput(
            f"`data` text:{place} needs a network with a sequence as input, whose length is that of the windows of text"
        )
    check_integer("length", length, at_least=1)
    place = Path(place)
    content = b"".join(read_bytes(path) for path in text_files(place))
    needed = _TEST * (length + 1)
    if len(content) < needed:
        raise DataError(f"{place}: holds {len(content):,} bytes; windows of {length} need at least {needed:,}")
    cut = len(content) - len(content) // _TEST
    test = _windows(place, content[cut:], length)
    return _windows(place, content[:cut], length, test)


def _windows(place: Path, content: bytes, length: int, test: Dataset | None = None) -> Dataset:
    tokens = np.frombuffer(content, dtype=np.uint8).astype(np.int64)
    end = (len(tokens) - 1) // length * length
    features, targets = (part.reshape(-1, length) for part in (tokens[:end], tokens[1 : end + 1]))
    return Dataset(f"text:{place}", features, targets, CLASSES, (length,), test)


def text_files(place: Path) -> list[Path]:
    """Return a text file, or those of a folder in order of name.

    Raises:
        DataError: there are none.
    """
    if not place.exists():
        raise DataError(f"{place}: no such file or folder")
    if not place.is_dir():
        return [place]
    found = sorted(path for path in place.iterdir() if path.name.endswith(_ENDINGS))
    if not found:
        raise DataError(f"{place}: has no text ({', '.join('*' + ending for ending in _ENDINGS)})")
    return found
