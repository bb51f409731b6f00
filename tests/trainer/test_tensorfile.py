"""The streamed safetensors file: the bytes that the library would write, from blocks, whole or not at all."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from isthmus.errors import DataError, InvalidInput
from isthmus.trainer.store.tensorfile import _TYPES, TensorReader, TensorWriter

TENSORS = {
    "layer.weight": torch.arange(35.0).reshape(7, 5),
    "half": torch.arange(6, dtype=torch.bfloat16),
    "scaled": torch.arange(12, dtype=torch.float16).reshape(2, 3, 2),
    "mask": torch.tensor([True, False, True]),
    "step": torch.tensor(3),
    "none": torch.empty(0, 4),
    "turned": torch.arange(12.0, dtype=torch.float64).reshape(3, 4).T,
    'a "name" é\n': torch.tensor(True),
    **{str(dtype): torch.ones(3, dtype=dtype) for dtype in _TYPES},
}


def write(path: Path, tensors: dict[str, Tensor], rows: int, metadata: dict[str, str] | None = None) -> TensorWriter:
    """Write some tensors a few rows at a time."""
    outline = {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
    with TensorWriter(path, outline, metadata) as file:
        for name in file.names:
            for block in tensors[name].split(rows) if tensors[name].dim() else [tensors[name]]:
                file.write(name, block)
    return file


def stopped(writer: TensorWriter, rows: Tensor, error: BaseException | None) -> None:
    """Write rows of `a`, then end, or fail."""
    with writer as file:
        file.write("a", rows)
        if error is not None:
            raise error


@pytest.mark.parametrize("rows", [1, 2, 100])
def test_the_bytes_are_those_of_the_library(tmp_path: Path, rows: int) -> None:
    save_file({name: tensor.contiguous() for name, tensor in TENSORS.items()}, tmp_path / "theirs", {"ü": "1"})
    file = write(tmp_path / "ours", TENSORS, rows, {"ü": "1"})
    data = (tmp_path / "ours").read_bytes()
    assert data == (tmp_path / "theirs").read_bytes()
    assert (file.size, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert [path.name for path in tmp_path.iterdir() if "ours" in path.name] == ["ours"]


def test_the_library_reads_it(tmp_path: Path) -> None:
    write(tmp_path / "file", TENSORS, 2)
    loaded = load_file(tmp_path / "file")
    assert loaded.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert loaded[name].dtype == tensor.dtype
        assert loaded[name].shape == tensor.shape
        assert torch.equal(loaded[name].reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8))
    with safe_open(tmp_path / "file", "pt") as file:
        assert torch.equal(file.get_slice("layer.weight")[2:5], TENSORS["layer.weight"][2:5])


@settings(max_examples=40)
@given(st.integers(0, 9), st.integers(0, 9), st.sampled_from(sorted(_TYPES, key=str)))
def test_rows_are_read_back(
    tmp_path_factory: pytest.TempPathFactory, start: int, count: int, dtype: torch.dtype
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    tensor = torch.arange(36).reshape(9, 2, 2).to(torch.uint8).to(dtype)
    write(folder / "file", {"before": torch.tensor(1.0), "tensor": tensor}, 4)
    reader, stop = TensorReader(folder / "file"), min(9, start + count)
    got = reader.rows("tensor", start, stop)
    assert got.dtype == dtype
    assert torch.equal(got.view(torch.uint8), tensor[start:stop].view(torch.uint8))
    assert reader.read("before").item() == 1.0
    assert reader.outline == {"before": ((), torch.float32), "tensor": ((9, 2, 2), dtype)}


def test_rows_that_lie_elsewhere_are_copied_a_block_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isthmus.trainer.store.tensorfile._BLOCK", 32)
    tensor = torch.randn(13, 5).T
    write(tmp_path / "file", {"turned": tensor}, 100)
    assert torch.equal(load_file(tmp_path / "file")["turned"], tensor)


def test_what_is_not_finished_leaves_the_file_before(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write(path, {"a": torch.ones(3)}, 1)
    before = path.read_bytes()
    outline = {"a": ((3,), torch.float32), "b": ((2,), torch.float32)}
    with pytest.raises(InvalidInput, match="`a` must be written to its end before file is"):
        stopped(TensorWriter(path, outline), torch.ones(2), None)
    with pytest.raises(KeyboardInterrupt):
        stopped(TensorWriter(path, outline), torch.ones(3), KeyboardInterrupt())
    assert [path.read_bytes()] == [before]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        ("a", torch.ones(3, 2, dtype=torch.float64), r"`a` must come as rows of torch.float32 \[3, 2\], got torch.fl"),
        ("a", torch.ones(2, 3), r"got torch.float32 \[2, 3\]"),
        ("a", torch.tensor(1.0), r"got torch.float32 \[\]"),
        ("a", torch.ones(4, 2), r"`a` must come in its order, and with \[3, 2\] numbers in all"),
        ("b", torch.ones(2), "`b` must come in its order"),
    ],
)
def test_rows_that_were_not_announced_are_refused(tmp_path: Path, name: str, rows: Tensor, message: str) -> None:
    outline = {"a": ((3, 2), torch.float32), "b": ((2,), torch.float32)}
    with pytest.raises(InvalidInput, match=message), TensorWriter(tmp_path / "file", outline) as file:
        file.write(name, rows)
    with pytest.raises(InvalidInput, match="that safetensors can hold, got"):
        TensorWriter(tmp_path / "file", {"a": ((), torch.complex128)})


def test_what_is_no_such_file_is_named(tmp_path: Path) -> None:
    write(tmp_path / "file", {"a": torch.ones(300)}, 300)
    reader = TensorReader(tmp_path / "file")
    data = (tmp_path / "file").read_bytes()
    for size in (0, 7, 8, 40, len(data) - 1):
        (tmp_path / "cut").write_bytes(data[:size])
        with pytest.raises(DataError, match="cut cannot be read as safetensors: "):
            TensorReader(tmp_path / "cut")
    with pytest.raises(DataError, match="absent cannot be read as safetensors: "):
        TensorReader(tmp_path / "absent")
    (tmp_path / "file").write_bytes(data[:-1])
    with pytest.raises(DataError, match="file is cut short: a is not all there"):
        reader.read("a")
