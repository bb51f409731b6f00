"""Checkpoints on the disk: whole or not there, any damage found, rows for any number of workers."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard
from torch.testing._internal.distributed.fake_pg import FakeStore

from cases.loops import in_turn
from isthmus.errors import DataError, InvalidInput
from isthmus.trainer.checkpoint.manifest import MANIFEST, checkpoints
from isthmus.trainer.checkpoint.plain import put_together, take_apart
from isthmus.trainer.checkpoint.read import Checkpoint, choose
from isthmus.trainer.checkpoint.write import Snapshot, write
from isthmus.trainer.membership.link import join
from isthmus.trainer.store.homes import Homes
from isthmus.trainer.wire.exchange import Alone, drive
from isthmus.trainer.wire.meter import Meter
from isthmus.version import __version__

CPU = torch.device("cpu")


def whole(number: int) -> dict[str, Tensor]:
    """A network's tensors, other ones for every number."""
    random = torch.Generator().manual_seed(number)
    return {
        "in.weight": torch.randn(10, 3, generator=random),
        "in.bias": torch.randn(10, generator=random, dtype=torch.float64),
        "half": torch.randn(2, 5, generator=random).bfloat16(),
        "step": torch.tensor(number),
        "none": torch.empty(0, 3),
    }


def kept(worker: int, number: int) -> dict[str, Any]:
    return {"moments": {0: torch.full((worker + 1, 2), float(number))}, "steps": 10 * number, "rates": (0.1, math.inf)}


def save(folder: Path, number: int, workers: int, keep: int = 2) -> Path:
    """Write a checkpoint as so many workers, in turn."""
    tensors = whole(number)
    outline = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}
    homes = Homes(workers, {name: shape for name, (shape, _) in outline.items()})

    def job() -> Path:
        link, rows = join(), {}
        for name, tensor in tensors.items():
            start, stop = homes.rows(name, link.index)
            if start < stop:
                rows[name] = tensor[start:stop] if tensor.dim() else tensor
        snapshot = Snapshot(number, {"law": "block"}, outline, rows, kept(link.index, number))
        return drive(write(snapshot, folder, keep, link, CPU), link, Meter())

    return in_turn(job, workers)[0]


def chosen(folder: Path) -> tuple[Checkpoint, list[str]]:
    return drive(choose(folder, Alone(), CPU), Alone(), Meter())


def assert_holds(checkpoint: Checkpoint, number: int, workers: int) -> None:
    """The checkpoint is the one of this number, bit for bit, as so many workers would read it."""
    expected = whole(number)
    assert checkpoint.manifest.number == number
    homes = Homes(workers, {name: shape for name, (shape, _) in checkpoint.manifest.tensors.items()})
    assert homes.shapes == {name: tuple(tensor.shape) for name, tensor in expected.items()}
    for name, tensor in expected.items():
        parts = [checkpoint.rows(name, *homes.rows(name, worker)) for worker in range(workers if tensor.dim() else 1)]
        assert all(part.dtype == tensor.dtype for part in parts)
        assert torch.equal(torch.cat(parts) if tensor.dim() else parts[0], tensor)
    for worker in range(checkpoint.workers):
        got, mine = checkpoint.kept(worker), kept(worker, number)
        assert torch.equal(got["moments"].pop(0), mine["moments"].pop(0))
        assert got == mine


# ------------------------------------------------------------------- written and read


@pytest.mark.parametrize("readers", [4, 3, 6, 1])
def test_any_number_of_workers_reads_what_four_have_written(tmp_path: Path, readers: int) -> None:
    path = save(tmp_path, 7, workers=4)
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint-000007"]
    assert sorted(file.name for file in path.iterdir()) == [
        "checkpoint.json", *(f"shard-{worker:05d}-of-00004.safetensors" for worker in range(4))
    ]  # fmt: skip
    found, wrong = chosen(tmp_path)
    assert wrong == []
    assert_holds(found, 7, readers)
    assert chosen(path)[0].path == path
    versions = found.manifest.versions
    assert versions == {"isthmus": __version__, "torch": torch.__version__}


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
@pytest.mark.parametrize("readers", [1, 3])
def test_torch_reads_the_folder_with_shards_of_its_own(tmp_path: Path, readers: int) -> None:
    """By torch.distributed.checkpoint, into whole tensors, and into the shards of DTensors."""
    path, expected = save(tmp_path, 7, workers=4), whole(7)
    del expected["none"]
    for rank in range(readers):
        dist.init_process_group("fake", rank=rank, world_size=readers, store=FakeStore())
        try:
            mesh = init_device_mesh("cpu", (readers,))
            into = {name: torch.full_like(tensor, 9) for name, tensor in expected.items()}
            for name in ("in.weight", "in.bias", "half"):
                into[name] = DTensor.from_local(
                    _shard(into[name], rank, readers), mesh, [Shard(0)], shape=into[name].shape,
                    stride=into[name].stride(), run_check=False,
                )  # fmt: skip
            dcp.load(into, storage_reader=HuggingFaceStorageReader(str(path)), no_dist=True)
            for name, tensor in expected.items():
                got = into[name]
                mine = _shard(tensor, rank, readers) if isinstance(got, DTensor) else tensor
                assert torch.equal(got.to_local() if isinstance(got, DTensor) else got, mine)
        finally:
            dist.destroy_process_group()


def _shard(tensor: Tensor, rank: int, ranks: int) -> Tensor:
    start, stop = Homes(ranks, {"": tuple(tensor.shape)}).rows("", rank)
    return tensor[start:stop].clone()


def test_the_last_are_kept_and_a_course_that_was_given_up_is_not(tmp_path: Path) -> None:
    for number in (3, 5, 9):
        save(tmp_path, number, workers=2, keep=2)
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-000009", "checkpoint-000005"]
    save(tmp_path, 9, workers=1, keep=2)  # again
    assert_holds(chosen(tmp_path)[0], 9, 2)
    assert len(list(tmp_path.iterdir())) == 2
    save(tmp_path, 6, workers=2, keep=2)
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-000006", "checkpoint-000005"]
    save(tmp_path, 7, workers=2, keep=1)
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-000007"]


# ------------------------------------------------------------------- damage


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pair")
    for number in (4, 5):
        save(folder, number, workers=3)
    return folder


@pytest.fixture
def damaged(pair: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pair, tmp_path / "checkpoints"))


def files(folder: Path) -> list[Path]:
    return sorted((folder / "checkpoint-000005").iterdir())


def assert_named(folder: Path, path: Path, *words: str) -> None:
    """The checkpoint before is used, and the one line that says why names the file."""
    found, wrong = chosen(folder)
    assert found.manifest.number == 4
    assert len(wrong) == 1
    assert wrong[0].startswith(str(path))
    assert "\n" not in wrong[0]
    assert not words or any(word in wrong[0] for word in words)


def offsets(header: bytes) -> list[list[int]]:
    """Where every tensor of a file begins and ends."""
    return [entry["data_offsets"] for name, entry in json.loads(header).items() if name != "__metadata__"]


@pytest.mark.parametrize("which", range(4))
def test_every_cut_is_found(damaged: Path, which: int) -> None:
    path = files(damaged)[which]
    data = path.read_bytes()
    head = 8 + int.from_bytes(data[:8], "little")
    sections = [] if which == 0 else [end for *_, end in offsets(data[8:head])]
    edges = {place + by for place in (0, 8, head, len(data), *(head + end for end in sections)) for by in (-1, 0, 1)}
    for size in sorted(edges | set(range(0, len(data), 37))):
        if 0 <= size <= len(data) + 1 and size != len(data):
            path.write_bytes((data + b"\0")[:size])
            assert_named(damaged, path, "torn", "is not what was written")
    path.write_bytes(data)
    assert_holds(chosen(damaged)[0], 5, 2)


@pytest.mark.parametrize("which", range(4))
def test_every_flipped_bit_is_found(damaged: Path, which: int) -> None:
    path, random = files(damaged)[which], np.random.Generator(np.random.Philox(which))
    data = path.read_bytes()
    for place in random.choice(8 * len(data), size=200, replace=False):
        flipped = bytearray(data)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        assert_named(damaged, path, "changed")


def test_a_manifest_of_the_same_meaning_is_not_the_same(damaged: Path) -> None:
    path = damaged / "checkpoint-000005" / MANIFEST
    path.write_text(path.read_text().replace("Infinity", "infinity").replace('"law"', '"l\\u0061w"'))
    assert_named(damaged, path, "is torn or was changed")


def test_missing_and_foreign_parts_are_named(damaged: Path) -> None:
    last, before = damaged / "checkpoint-000005", damaged / "checkpoint-000004"
    shard = "shard-00001-of-00003.safetensors"
    mine = (last / shard).read_bytes()
    shutil.copy(before / shard, last / shard)
    assert_named(damaged, last / shard, "was changed")
    (last / shard).unlink()
    assert_named(damaged, last / shard, "is missing")
    (last / shard).write_bytes(mine)
    shutil.copy(last / shard, last / "shard-00003-of-00004.safetensors")
    assert_named(damaged, last / "shard-00003-of-00004.safetensors", "is no part of this checkpoint")
    (last / "shard-00003-of-00004.safetensors").unlink()
    assert_holds(chosen(damaged)[0], 5, 1)
    (last / MANIFEST).unlink()
    assert_named(damaged, last / MANIFEST, "cannot be read: No such file")
    (before / shard).unlink()
    with pytest.raises(DataError, match=f"{MANIFEST} cannot be read: .*; .*{shard} is missing"):
        chosen(damaged)
    with pytest.raises(DataError, match="nowhere holds no checkpoint"):
        chosen(damaged / "nowhere")


def test_of_several_readers_each_checks_its_share_and_all_choose_the_same(damaged: Path) -> None:
    path = files(damaged)[3]
    path.write_bytes(path.read_bytes()[:-1])

    def job() -> tuple[int, list[str]]:
        link = join()
        found, wrong = drive(choose(damaged, link, CPU), link, Meter())
        return found.manifest.number, wrong

    for readers in (2, 5):
        assert all(number == 4 and wrong[0].startswith(str(path)) for number, wrong in in_turn(job, readers))


# ------------------------------------------------------------------- killed while writing

STEPS = ("mkdir", "open", "fsync", "replace", "rename", "unlink", "rmdir", "stat")


@pytest.mark.parametrize("number", [5, 6], ids=["again", "next"])
def test_a_kill_at_any_step_leaves_a_good_one(tmp_path: Path, pair: Path, number: int) -> None:
    """A process that ends without cleaning up before its first call of the system, its second, and so on."""
    for survived in range(200):
        folder = Path(shutil.copytree(pair, tmp_path / str(survived)))
        child = os.fork()
        if child == 0:
            _die_after(survived)
            save_alone(folder, number)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        found, wrong = chosen(folder)
        assert_holds(found, found.manifest.number, 2)
        assert found.manifest.number in (5, number)
        assert wrong == []
        if survived % 4 == 0:
            save_alone(folder, number)  # what was left over is in nobody's way
            assert_holds(chosen(folder)[0], number, 2)
            assert all(path.name.removeprefix("checkpoint-").isdigit() for path in folder.iterdir())
            assert len(list(folder.iterdir())) == 2
        if status == 0:
            break
    assert 10 < survived < 199


def save_alone(folder: Path, number: int) -> None:
    tensors = whole(number)
    outline = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}
    rows = {name: tensor for name, tensor in tensors.items() if name != "none"}
    drive(write(Snapshot(number, {}, outline, rows, kept(0, number)), folder, 2, Alone(), CPU), Alone(), Meter())


def _die_after(survived: int) -> None:
    """End this process at a call of the system that changes a disk."""
    left = iter(range(survived))

    def deadly(call: Any) -> Any:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if next(left, None) is None:
                os._exit(9)
            return call(*args, **kwargs)

        return wrapped

    for name in STEPS:
        setattr(os, name, deadly(getattr(os, name)))


# ------------------------------------------------------------------- plain data

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
keys = st.integers() | st.booleans() | st.text(max_size=3) | st.just("$") | st.tuples(st.integers(), st.booleans())
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3)
    | st.tuples(inner, inner)
    | st.dictionaries(keys, inner, max_size=3)
    | st.dictionaries(st.text(max_size=3), st.integers(), max_size=3).map(Counter),
    max_leaves=8,
)


@settings(max_examples=40)
@given(trees)
def test_plain_data_come_back(tree: Any) -> None:
    said, tensors = take_apart(tree, "extra")
    back = put_together(json.loads(json.dumps(said, allow_nan=False)), tensors.__getitem__)
    assert repr(back) == repr(tree)  # -0.0, nan, 1 and True, the kinds of containers


def test_tensors_arrays_and_state_dicts_come_back() -> None:
    parameter = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    schedules = [
        torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 5]),
        torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=9),
        torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer),
    ]
    tree = {
        "schedules": schedules, "scaler": torch.amp.GradScaler("cpu"), "array": np.arange(6).reshape(2, 3).T,
        "point": np.float32(0.5), "flat": np.array(3.0), 1: torch.ones(2), "1": torch.zeros(2), "weights": [parameter],
    }  # fmt: skip
    said, tensors = take_apart(tree, "extra")
    back = put_together(said, tensors.__getitem__)
    assert [schedule.state_dict() for schedule in schedules] == back["schedules"]
    assert back["scaler"] == tree["scaler"].state_dict()
    assert back["point"] == 0.5
    for name in ("array", "flat"):
        assert np.array_equal(back[name], tree[name])
        assert back[name].shape == tree[name].shape
    assert torch.equal(back[1], torch.ones(2))
    assert torch.equal(back["1"], torch.zeros(2))
    assert back["weights"][0] is not parameter
    assert torch.equal(back["weights"][0], parameter)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"a": [1, object()]}, "`extra/a/1` must be numbers, text, tensors, lists or dictionaries of them, or have"),
        ({"a": {1, 2}}, "got set"),
        ({"a": b"x"}, "got bytes"),
        ({object(): 1}, "`a key of extra` must be"),
        ({"net": nn.Linear}, "got type"),
        (torch.ones(2).to_sparse(), "`extra` must be a tensor with all its numbers"),
        (np.array(["x"]), "`extra` must be an array of numbers, got one of <U1"),
    ],
)
def test_what_is_no_plain_data_is_refused(tree: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        take_apart(tree, "extra")


def test_what_one_worker_cannot_save_is_refused_by_all(tmp_path: Path) -> None:
    def job() -> Iterator[None] | str:
        link = join()
        mine = object() if link.index == 1 else 1
        try:
            drive(write(Snapshot(1, {}, {}, {}, {"extra": mine}), tmp_path, 2, link, CPU), link, Meter())
        except InvalidInput as error:
            return str(error)
        return "saved"

    assert {said[:25] for said in in_turn(job, 3)} == {"`worker-1/extra` must be "}
    assert checkpoints(tmp_path) == []
