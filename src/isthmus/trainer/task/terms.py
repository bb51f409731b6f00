"""What of a network, of data and of files must be the same on all workers, in a few words each."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from isthmus.errors import InvalidInput
from isthmus.nets.graph.example import Example
from isthmus.trainer.task.weights import Weights

Terms = dict[str, str]

SAMPLED = 16  # items of a dataset of one's own that are read
WHOLE = 1 << 28  # bytes of a file that are read in full; of a larger one
PIECES, PIECE = 256, 1 << 20  # pieces of so many bytes, evenly spaced, the first and the last among them
_CHUNK = 1 << 24
_SEED = 0


def network_terms(
    modules: Iterable[tuple[str, str]], outline: Iterable[tuple[str, tuple[int, ...], str, bool]], example: Example
) -> Terms:
    """Return the shapes of an example call, of parameters and buffers, and what modules there are."""
    calls = [_shape(tensor.shape, tensor.dtype, any_first=True) for tensor in example.tensors]
    terms = {"`example` (but for the batch)": ", ".join(calls)}
    for name, shape, dtype, trained in outline:
        terms[f"`network` ({name})"] = _shape(shape, dtype) + ("" if trained else ", not trained")
    terms |= {f"`network` (module {name or 'itself'})": said for name, said in modules}
    return terms


def modules_of(network: nn.Module) -> tuple[tuple[str, str], ...]:
    """Return every module of a network by name: what it shows of itself, and a checksum of its class's code, where that
    is somebody's own and can be read."""
    found = []
    for name, module in network.named_modules():
        kind: Any = type(module)
        found.append((name, f"{kind.__qualname__}({' '.join(module.extra_repr().split())}){_code(kind)}"))
    return tuple(found)


def weights_terms(weights: Weights) -> Terms:
    """Return size and checksum of the files that a network starts from.

    The checksum is the SHA-256 of a file of up to 256 MB; of a larger one, that of 256 pieces of 1 MB, evenly spaced.
    """
    files = dict.fromkeys(file for file, _, _ in weights.tensors.values())
    return {f"`init` ({file.name})": file_mark(file) for file in files}


def file_mark(file: Path) -> str:
    """Return a file's size and checksum, as :func:`weights_terms` says."""
    size = file.stat().st_size
    starts: Sequence[int] = range(0, size, _CHUNK)
    length = _CHUNK
    if size > WHOLE:
        starts, length = np.linspace(0, size - PIECE, PIECES).astype(np.int64).tolist(), PIECE
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        for start in starts:
            opened.seek(start)
            digest.update(opened.read(length))
    return f"{size:,} bytes, SHA-256 {digest.hexdigest()[:8]}"


def arrays_terms(parts: Mapping[str, tuple[Any, ...]], classes: int) -> Terms:
    """Return what of arrays that were read must be the same: samples, type, classes, and the SHA-256 of all values.

    Args:
        parts: (features, targets) and what belongs to them, arrays or sparse rows, by the part's name.
        classes: number of them.
    """
    terms = {f"`data` ({name} samples)": f"{arrays[0].shape[0]:,}" for name, arrays in parts.items()}
    for name, arrays in parts.items():
        terms[f"`data` ({name} sample)"] = _shape(arrays[0].shape[1:], arrays[0].dtype)
    terms["`data` (classes)"] = str(classes)
    for name, arrays in parts.items():
        digest = hashlib.sha256()
        for array in (part for each in arrays for part in _arrays(each)):
            for chunk in _chunks(array):
                digest.update(chunk)
        terms[f"`data` (SHA-256 of {name} values)"] = digest.hexdigest()[:8]
    return terms


def items_terms(parts: Mapping[str, Sequence[Any]]) -> Terms:
    """Return what of datasets of one's own must be the same: their classes, lengths, and 16 items, evenly spaced.

    Items are read twice, torch's generator with the same seed before each: where they differ still, they are drawn from
    elsewhere and their values are left out.

    Raises:
        InvalidInput: an item cannot be read.
    """
    terms = {}
    for name, items in parts.items():
        terms[f"`data` ({name} samples)"] = f"{len(items):,} of {type(items).__qualname__}"
    for name, items in parts.items():
        first, second = (_read(items, name) for _ in range(2))
        terms[f"`data` ({name} items)"] = "; ".join(dict.fromkeys(_kind(item) for item in first))
        if _checksum(first) == _checksum(second):
            terms[f"`data` (SHA-256 of {len(first)} {name} items)"] = _checksum(first)
    return terms


def _read(items: Sequence[Any], name: str) -> list[Any]:
    chosen = np.unique(np.linspace(0, len(items) - 1, SAMPLED).astype(np.int64)).tolist()
    found = []
    with torch.random.fork_rng(devices=[]):
        for number in chosen:
            torch.manual_seed(_SEED)
            try:
                found.append(items[number])
            except Exception as error:
                said = " ".join(str(error).split())
                raise InvalidInput(f"item {number} of the {name} `data`: {type(error).__name__}: {said}") from error
    return found


def _leaves(item: Any) -> list[Any]:
    leaves: list[Any] = pytree.tree_leaves(item)
    return [leaf.detach().cpu().numpy() if isinstance(leaf, Tensor) and _known(leaf) else leaf for leaf in leaves]


def _known(tensor: Tensor) -> bool:
    return tensor.dtype != torch.bfloat16 and not tensor.is_meta and tensor.layout is torch.strided


def _kind(item: Any) -> str:
    return ", ".join(
        _shape(each.shape, each.dtype) if isinstance(each, np.ndarray) else type(each).__name__
        for each in _leaves(item)
    )


def _checksum(items: Sequence[Any]) -> str:
    digest = hashlib.sha256()
    for leaf in (leaf for item in items for leaf in _leaves(item)):
        if isinstance(leaf, (str, bytes, int, float, bool)):
            digest.update(repr(leaf).encode())
        elif isinstance(leaf, np.ndarray) and leaf.dtype != object:
            for chunk in _chunks(leaf):
                digest.update(chunk)
    return digest.hexdigest()[:8]


def _arrays(rows: Any) -> tuple[NDArray[Any], ...]:
    """Return an array itself, and those that sparse rows are made of."""
    return (rows,) if isinstance(rows, np.ndarray) else (rows.data, rows.indices, rows.indptr)


def _chunks(array: NDArray[Any]) -> Iterator[bytes]:
    """Yield the bytes of an array, little-endian, not much at a time."""
    rows = np.atleast_1d(array)
    step = max(1, _CHUNK // max(1, rows[:1].nbytes))
    for start in range(0, len(rows), step):
        piece = np.ascontiguousarray(rows[start : start + step])
        yield piece.astype(piece.dtype.newbyteorder("<"), copy=False).tobytes()


def _shape(shape: Sequence[int], dtype: Any, any_first: bool = False) -> str:
    """Return a tensor's type and sizes.

    >>> _shape((10, 20), torch.float32), _shape((10, 20), torch.float32, any_first=True), _shape((), "int64")
    ('10 x 20 float32', '... x 20 float32', 'one int64')
    """
    sizes = list(map(str, shape))
    sizes[:1] = ["..."] if any_first and sizes else sizes[:1]
    return f"{' x '.join(sizes) or 'one'} {str(dtype).removeprefix('torch.')}"


@cache
def _code(kind: Any) -> str:
    """Return a checksum of a class's code, "" for one of an installed package, which has a version."""
    try:
        if "site-packages" in str(inspect.getsourcefile(kind)) or kind.__module__.startswith("isthmus."):
            return ""
        return f", code {hashlib.sha256(inspect.getsource(kind).encode()).hexdigest()[:8]}"
    except (OSError, TypeError):  # made in a shell, or by a function of a library
        return ""
