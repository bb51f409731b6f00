"""A safetensors file that is written as its tensors come and read by rows: never more of it in memory than one block.

``safetensors`` itself writes a dictionary of whole tensors, and reads by mapping the file, whose pages then count as
this process's memory. The bytes are the same: what is written here is what ``safetensors.torch.save_file`` would write.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from isthmus.errors import DataError, InvalidInput

Outline = Mapping[str, tuple[Sequence[int], torch.dtype]]

# As the library lays them out: types of eight bytes first, so that every tensor begins at a multiple of its own size.
_TYPES = {
    torch.uint64: "U64", torch.int64: "I64", torch.float64: "F64", torch.complex64: "C64", torch.float32: "F32",
    torch.uint32: "U32", torch.int32: "I32", torch.bfloat16: "BF16", torch.float16: "F16", torch.uint16: "U16",
    torch.int16: "I16", torch.float8_e5m2fnuz: "F8_E5M2FNUZ", torch.float8_e4m3fnuz: "F8_E4M3FNUZ",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2", torch.int8: "I8", torch.uint8: "U8",
    torch.bool: "BOOL",
}  # fmt: skip
_ORDER = {dtype: place for place, dtype in enumerate(_TYPES)}
_DTYPES = {name: dtype for dtype, name in _TYPES.items()}
_BLOCK = 1 << 24  # bytes at a time: of what has to be copied before it is written, and of what is read in blocks


class TensorWriter:
    """Writes one safetensors file; what tensors it holds is said first, and their rows then come in the file's order.

    ::

        with TensorWriter(path, {"weight": ((4, 3), torch.float32)}) as file:
            for name in file.names:
                for block in blocks_of(name):
                    file.write(name, block)
        print(file.size, file.sha256)

    It is written aside, hashed on the way, forced to the disk and renamed when the block ends: whole or not at all.

    Attributes:
        path: of the file.
        names: of the tensors, in the order in which they must come.
        size, sha256: of the whole file in bytes, and its SHA-256 in hexadecimal, once it is written.
    """

    def __init__(self, path: str | Path, outline: Outline, metadata: Mapping[str, str] | None = None) -> None:
        """Lay out the file.

        Args:
            path: where; the folder exists.
            outline: shape and type of every tensor, by name.
            metadata: what else to keep in the header.

        Raises:
            InvalidInput: a type of number that safetensors does not know.
        """
        self.path = Path(path)
        for name, (_, dtype) in outline.items():
            if dtype not in _TYPES:
                raise InvalidInput(f"`{name}` must be of a type that safetensors can hold, got {dtype}")
        self.names = sorted(outline, key=lambda name: (_ORDER[outline[name][1]], name))
        self._outline = {name: (tuple(shape), dtype) for name, (shape, dtype) in outline.items()}
        self._ends: dict[str, int] = {}
        self._at = 0
        self.size, self.sha256 = 0, ""
        self._head = self._header(metadata)
        self._partial = self.path.with_name(f"{self.path.name}.partial")
        self._hash = hashlib.sha256()

    def __enter__(self) -> TensorWriter:
        self._file = self._partial.open("wb")
        self._put(self._head)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with self._file as file:
                if kind is None:
                    self._check_complete()
                    file.flush()
                    os.fsync(file.fileno())
            if kind is None:
                os.replace(self._partial, self.path)
                sync_folder(self.path.parent)
                self.sha256 = self._hash.hexdigest()
        finally:
            self._partial.unlink(missing_ok=True)

    def write(self, name: str, rows: Tensor) -> None:
        """Append the next rows of a tensor, or all of it.

        Args:
            name: of the tensor.
            rows: [rows, ...] like the tensor beyond its first dimension; a tensor without dimensions as it is.

        Raises:
            InvalidInput: another shape or type than was said, more rows, or a tensor that comes later.
        """
        shape, dtype = self._outline[name]
        begin, here = self._ends[name] - _bytes(shape, dtype), self._at - self._data
        after = here + rows.numel() * dtype.itemsize
        if rows.dtype != dtype or rows.shape[1:] != shape[1:] or rows.dim() != len(shape):
            raise InvalidInput(
                f"`{name}` must come as rows of {dtype} {list(shape)}, got {rows.dtype} {list(rows.shape)}"
            )
        if rows.numel() and not begin <= here < after <= self._ends[name]:
            raise InvalidInput(f"`{name}` must come in its order, and with {list(shape)} numbers in all")
        for block in _blocks(rows.detach()):
            self._put(_memory(block))

    def _header(self, metadata: Mapping[str, str] | None) -> bytes:
        said: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
        end = 0
        for name in self.names:
            shape, dtype = self._outline[name]
            begin, end = end, end + _bytes(shape, dtype)
            said[name] = {"dtype": _TYPES[dtype], "shape": shape, "data_offsets": [begin, end]}
            self._ends[name] = end
        text = json.dumps(said, ensure_ascii=False, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        self._data = 8 + len(text)
        self.size = self._data + end
        return len(text).to_bytes(8, "little") + text

    def _put(self, data: bytes | memoryview) -> None:
        self._hash.update(data)
        self._file.write(data)
        self._at += len(data)

    def _check_complete(self) -> None:
        if self._at != self.size:
            missing = next(name for name in self.names if self._data + self._ends[name] > self._at)
            raise InvalidInput(f"`{missing}` must be written to its end before {self.path.name} is closed")


class TensorReader:
    """Reads rows of the tensors of one safetensors file into memory of their own.

    Attributes:
        path: of the file.
        outline: shape and type of every tensor, by name.
        metadata: what else is kept in the header.
    """

    def __init__(self, path: str | Path) -> None:
        """Read the header.

        Raises:
            DataError: a file that is missing, torn, or no safetensors file.
        """
        self.path = Path(path)
        try:
            with safe_open(self.path, "pt"), self.path.open("rb") as file:  # the library checks the header
                size = int.from_bytes(file.read(8), "little")
                said = json.loads(file.read(size))
        except (SafetensorError, OSError) as error:
            raise DataError(f"{self.path} cannot be read as safetensors: {_line(error)}") from error
        self.metadata: dict[str, str] = said.pop("__metadata__", {})
        for name, entry in said.items():
            if entry["dtype"] not in _DTYPES:
                raise DataError(f"{self.path}: {name} has numbers of type {entry['dtype']}, which is not known")
        self.outline = {name: (tuple(entry["shape"]), _DTYPES[entry["dtype"]]) for name, entry in said.items()}
        self._begins = {name: 8 + size + entry["data_offsets"][0] for name, entry in said.items()}

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Return rows start .. stop - 1 of a tensor; of one without dimensions all of it, for (0, 1).

        Raises:
            DataError: the file was cut since.
        """
        shape, dtype = self.outline[name]
        found = torch.empty((stop - start, *shape[1:]) if shape else (), dtype=dtype)
        self.fill(name, start, found)
        return found

    def fill(self, name: str, start: int, rows: Tensor) -> None:
        """Overwrite some rows, in consecutive memory of this machine, by those of a tensor from row ``start`` on.

        Raises:
            DataError: the file was cut since.
        """
        shape, dtype = self.outline[name]
        with self.path.open("rb") as file:
            file.seek(self._begins[name] + start * _bytes(shape[1:], dtype))
            if file.readinto(_memory(rows)) < rows.numel() * dtype.itemsize:
                raise DataError(f"{self.path} is cut short: {name} is not all there")

    def blocks(self, name: str) -> Iterator[Tensor]:
        """Yield all rows of a tensor, as many at a time as had better be held.

        Raises:
            DataError: the file was cut since.
        """
        shape, dtype = self.outline[name]
        rows, each = shape[0] if shape else 1, max(1, _BLOCK // max(1, _bytes(shape[1:], dtype)))
        for start in range(0, rows, each):
            yield self.rows(name, start, min(start + each, rows))

    def read(self, name: str) -> Tensor:
        """Return all of a tensor."""
        shape, _ = self.outline[name]
        return self.rows(name, 0, shape[0] if shape else 1)


def sync_folder(folder: Path) -> None:
    """Force the names in a folder to the disk: a file that was renamed there is then found under its new name."""
    place = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(place)
    finally:
        os.close(place)


def _blocks(rows: Tensor) -> Iterator[Tensor]:
    """Yield the rows in consecutive memory of this machine: as they are, or copied a block at a time."""
    if rows.device.type == "cpu" and rows.is_contiguous():
        yield rows
    elif rows.dim() == 0:
        yield rows.cpu()
    else:
        each = max(1, _BLOCK // max(1, _bytes(rows.shape[1:], rows.dtype)))
        for view in rows.split(each):
            yield view.cpu().contiguous()


def _memory(tensor: Tensor) -> memoryview:
    """Return the bytes of a tensor in consecutive memory, not a copy."""
    flat = tensor.reshape(-1)
    flat = flat if flat.numel() else flat.new_empty(0)  # a view of nothing may have a stride of 0
    return flat.view(torch.uint8).numpy().data


def _bytes(shape: Sequence[int], dtype: torch.dtype) -> int:
    return math.prod(shape) * dtype.itemsize


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
