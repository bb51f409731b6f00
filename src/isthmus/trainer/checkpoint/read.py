"""Reading a checkpoint: what is wrong with it is found before it is used; rows for any number of workers."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from isthmus.errors import DataError
from isthmus.nets.pieces.ownership import Held, slice_tensor
from isthmus.trainer.checkpoint.manifest import MANIFEST, Manifest, checkpoints, fault, shard_name
from isthmus.trainer.checkpoint.plain import put_together
from isthmus.trainer.store.tensorfile import TensorReader
from isthmus.trainer.wire.exchange import Link, Program
from isthmus.trainer.wire.tell import tell


class Checkpoint:
    """One checkpoint on the disk.

    Attributes:
        path: its folder.
        manifest: what is in it.
    """

    def __init__(self, path: Path) -> None:
        """Read the manifest.

        Raises:
            DataError: it is missing or damaged, or a part is missing or foreign.
        """
        self.path = path
        self.manifest = Manifest.read(path)
        self.manifest.check_parts(path)

    @property
    def workers(self) -> int:
        """Number of workers that wrote it."""
        return len(self.manifest.files)

    def check(self, workers: Iterable[int]) -> None:
        """Compare the files of some workers, byte for byte, with what was written.

        Raises:
            DataError: one is cut short, too long, or changed; it is named.
        """
        self.manifest.check(self.path, workers)

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Return rows start .. stop - 1 of a tensor that is cut into shards, of whichever workers' shards."""
        shape, dtype = self.manifest.tensors[name]
        found = torch.empty((stop - start, *shape[1:]) if shape else (), dtype=getattr(torch, dtype))
        for worker, file in enumerate(self.manifest.files):
            first, end = file.rows.get(name, (0, 0))
            begin, finish = max(start, first), min(stop, end)
            if begin < finish:
                into = found[begin - start : finish - start] if shape else found
                self._readers[worker].fill(name, begin - first, into)
        return found

    def part(self, name: str, held: Held) -> Tensor:
        """Return the entries of a tensor at some index sets."""
        rows = held[0] if held else None
        if rows is None or not len(rows):
            shape, _ = self.manifest.tensors[name]
            return slice_tensor(self.rows(name, 0, shape[0] if shape else 1), held)
        first, end = int(rows.min()), int(rows.max()) + 1
        return slice_tensor(self.rows(name, first, end), (rows - first, *held[1:]))

    def kept(self, worker: int) -> Any:
        """Return what a worker has kept for itself."""
        return put_together(self.manifest.kept[worker], self._readers[worker].read)

    @cached_property
    def _readers(self) -> list[TensorReader]:
        return [TensorReader(self._file(worker)) for worker in range(self.workers)]

    def _file(self, worker: int) -> Path:
        return self.path / shard_name(worker, self.workers)


def choose(folder: Path, link: Link, device: torch.device) -> Program[tuple[Checkpoint, list[str]]]:
    """Return the last checkpoint of a folder that is sound, and what is wrong with those after it; every worker enters.

    Each worker checks its share of the files.

    Args:
        folder: of checkpoints, or of one.
        link, device: to the others, and where the numbers that travel are.

    Raises:
        DataError: there is none.
    """
    paths = [folder] if (folder / MANIFEST).exists() else checkpoints(folder)
    names = yield from tell([path.name for path in paths], link, device)  # those that worker 0 sees
    wrong: list[str] = []
    for name in names[0]:
        path = folder if name == folder.name else folder / name
        found = yield from tell(fault(path, link.index, link.workers), link, device)
        faults = [each for each in found if each is not None]
        if not faults:
            return Checkpoint(path), wrong
        wrong.append(faults[0])
    raise DataError("; ".join(wrong) if wrong else f"{folder} holds no checkpoint")
