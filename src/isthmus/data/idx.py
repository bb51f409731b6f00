"""IDX, the file format of MNIST: big-endian magic, sizes, then unsigned bytes; raw or gzipped."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from isthmus.data.dataset import Dataset
from isthmus.data.files import read_bytes
from isthmus.errors import DataError

_UNSIGNED_BYTE = 8


def read_idx(path: str | Path) -> NDArray[np.uint8]:
    """Read one IDX file of unsigned bytes.

    Raises:
        DataError: the file is missing, not IDX, truncated, or longer than its header says (file and sizes named).
    """
    content = read_bytes(path)
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != _UNSIGNED_BYTE:
        raise DataError(f"{path}: not an IDX file of unsigned bytes")
    dims = content[3]
    header = 4 + 4 * dims
    if len(content) < header:
        raise DataError(f"{path}: truncated: the header of {header} bytes is cut at {len(content)}")
    shape = tuple(int(size) for size in np.frombuffer(content[4:header], dtype=">u4"))
    expected = header + math.prod(shape)
    if len(content) != expected:
        problem = "truncated" if len(content) < expected else "too long"
        raise DataError(f"{path}: {problem}: {shape} needs {expected} bytes, the file holds {len(content)}")
    return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape)


def read_idx_folder(folder: str | Path) -> Dataset:
    """Read an MNIST-format folder: train-* and t10k-* images and labels, raw or ``.gz``; pixels scaled to [0, 1].

    Raises:
        DataError: a file is missing or malformed, or images and labels differ in number.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    parts = {part: _read_part(folder, part) for part in ("train", "t10k")}
    classes = max(int(labels.max()) for _, labels in parts.values()) + 1

    def dataset(part: str, test: Dataset | None = None) -> Dataset:
        images, labels = parts[part]
        features = images.reshape(len(images), -1).astype(np.float32) / np.float32(255)
        return Dataset(f"idx:{folder}", features, labels.astype(np.int64), classes, images.shape[1:], test)

    return dataset("train", dataset("t10k"))


def _read_part(folder: Path, part: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    images = read_idx(_find(folder, f"{part}-images-idx3-ubyte"))
    labels = read_idx(_find(folder, f"{part}-labels-idx1-ubyte"))
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        raise DataError(f"{folder}: {part} has images {images.shape} and labels {labels.shape}: they do not match")
    if images.size == 0:
        raise DataError(f"{folder}: {part} holds no samples")
    return images, labels


def _find(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.exists():
            return path
    raise DataError(f"{folder}: has no {name} nor {name}.gz")
