"""Writing a checkpoint: every worker its own file, hashed and forced to the disk; then worker 0 gives it its name.

At every moment the folder holds the last checkpoint or the new one, whole. All workers must see the same folder.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from isthmus.errors import IsthmusError
from isthmus.trainer.checkpoint.manifest import (
    MANIFEST,
    Manifest,
    ShardFile,
    checkpoints,
    folder_name,
    number_of,
    shard_name,
)
from isthmus.trainer.checkpoint.plain import take_apart
from isthmus.trainer.store.homes import Homes
from isthmus.trainer.store.tensorfile import TensorWriter, sync_folder
from isthmus.trainer.wire.exchange import Link, Program
from isthmus.trainer.wire.tell import tell, together
from isthmus.version import __version__

# The words of torch/distributed/checkpoint/_hf_utils.py.
_SHARDING, _OFFSETS = "DCP_SHARDING_INFO", "saved_offsets"


@dataclass(frozen=True)
class Snapshot:
    """What one worker puts into a checkpoint; tensors by reference.

    Attributes:
        number: of the round that comes next.
        identity: of the training, the same on all workers.
        tensors: shape and type of every tensor that is cut into shards, by name, the same on all workers.
        rows: this worker's shards of them; those without rows are left out.
        kept: what it keeps for itself: plain data, tensors in it.
        homes: who saves which rows; None: each an even share.
    """

    number: int
    identity: Mapping[str, Any]
    tensors: Mapping[str, tuple[tuple[int, ...], torch.dtype]]
    rows: Mapping[str, Tensor]
    kept: Any
    homes: Homes | None = None


def write(
    snapshot: Snapshot, folder: Path, keep: int, link: Link, device: torch.device, parents: bool = True
) -> Program[Path]:
    """Write a checkpoint into a folder of checkpoints; every worker enters. Return its own folder.

    Checkpoints of later rounds are of a course that was given up, and are removed; of earlier ones, all but the last.

    Args:
        snapshot: of this worker.
        folder: where; made if it is not there.
        keep: how many to leave there, this one included.
        link, device: to the others, and where the numbers that travel are.
        parents: whether to make the folders above it too.

    Raises:
        InvalidInput: something that cannot be saved.
        NotDone: a worker could not write; nothing is left of it, and the checkpoints before are as they were.
    """
    aside = folder / f"{folder_name(snapshot.number)}.partial"
    first = link.index == 0
    try:
        yield from together("save", lambda: _prepare(folder, aside, parents) if first else None, link, device)
        return (yield from _write(snapshot, aside, keep, link, device))
    except IsthmusError:
        if first:
            shutil.rmtree(aside, ignore_errors=True)
        raise


def _write(snapshot: Snapshot, aside: Path, keep: int, link: Link, device: torch.device) -> Program[Path]:
    final = aside.with_name(folder_name(snapshot.number))
    first = link.index == 0
    kept: list[Any] = []

    def shard() -> Any:
        said, tensors = take_apart(snapshot.kept, f"worker-{link.index}")
        kept.append(said)
        return _write_shard(snapshot, tensors, aside / shard_name(link.index, link.workers), link)

    files = yield from together("save", shard, link, device)
    everyones = yield from tell(kept[0], link, device, root=True)
    manifest = Manifest(
        snapshot.number,
        snapshot.identity,
        {"isthmus": __version__, "torch": torch.__version__},
        plain_outline(snapshot.tensors),
        [ShardFile(**file) for file in files],
        everyones,
    )
    yield from together("save", lambda: _finish(manifest, aside, final, keep) if first else None, link, device)
    return final


def plain_outline(tensors: Mapping[str, tuple[tuple[int, ...], torch.dtype]]) -> dict[str, tuple[tuple[int, ...], str]]:
    """Return shapes and types of tensors as the manifest says them."""
    return {name: (tuple(shape), str(dtype).removeprefix("torch.")) for name, (shape, dtype) in tensors.items()}


def _prepare(folder: Path, aside: Path, parents: bool) -> None:
    folder.mkdir(parents=parents, exist_ok=True)
    for left in folder.glob("checkpoint-*.partial"):  # by a run that was killed while it wrote
        shutil.rmtree(left)
    aside.mkdir()


def _write_shard(snapshot: Snapshot, own: Mapping[str, Tensor], path: Path, link: Link) -> dict[str, Any]:
    homes = snapshot.homes or Homes(link.workers, {name: shape for name, (shape, _) in snapshot.tensors.items()})
    rows = {name: homes.rows(name, link.index) for name in snapshot.rows}
    tensors = {**snapshot.rows, **own}
    offsets = {
        name: {_OFFSETS: [rows[name][0] if name in rows and not dim else 0 for dim in range(tensor.dim())]}
        for name, tensor in tensors.items()
    }
    outline = {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
    metadata = {"format": "pt", _SHARDING: json.dumps(offsets)}
    if not path.parent.is_dir():
        raise OSError(f"{path.parent}, which worker 0 has made, is not there: all workers must see the same folder")
    with TensorWriter(path, outline, metadata) as file:
        for name in file.names:
            file.write(name, tensors[name])
    return {"size": file.size, "sha256": file.sha256, "rows": rows}


def _finish(manifest: Manifest, aside: Path, final: Path, keep: int) -> None:
    """Write the manifest, give the checkpoint its name, and remove those that are not kept."""
    for worker, file in enumerate(manifest.files):
        path = aside / shard_name(worker, len(manifest.files))
        if not path.is_file() or path.stat().st_size != file.size:
            raise OSError(f"{path.name} of worker {worker} is not in {aside}: all workers must see the same folder")
    with (aside / MANIFEST).open("w", encoding="utf-8") as written:
        written.write(manifest.text())
        written.flush()
        os.fsync(written.fileno())
    sync_folder(aside)
    if final.exists():  # a folder cannot be put in another's place: the old one is still found while it steps aside
        before = final.with_name(f"{final.name}.old")
        shutil.rmtree(before, ignore_errors=True)
        os.replace(final, before)
    os.replace(aside, final)
    sync_folder(final.parent)
    _remove_old(final, keep)


def _remove_old(final: Path, keep: int) -> None:
    others = [path for path in checkpoints(final.parent) if path != final]
    earlier = [path for path in others if number_of(path) < number_of(final)]
    for path in others:
        if path not in earlier[: keep - 1]:
            shutil.rmtree(path)
