"""What travels in a round, counted entry by entry: who holds it, and who is its home."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import torch

from isthmus.nets import Coupling, NetPartition


def round_bytes(
    coupling: Coupling, partition: NetPartition, back: Collection[str], still: Collection[str] = ()
) -> tuple[list[int], list[int]]:
    """Return the bytes that every worker sends and receives in a round in which nothing stays.

    Args:
        coupling, partition: what is cut, and how.
        back: names of the tensors that come home again.
        still: of those that do not travel at all.
    """
    workers = partition.workers
    table = np.zeros((workers, workers), np.int64)  # from, to
    maps = [coupling.index_map(partition.of(worker)) for worker in range(workers)]
    for name, entry in coupling.entries.items():
        if name in still:
            continue
        homes = [len(chunk) for chunk in torch.arange(entry.shape[0] if entry.shape else 1).chunk(workers)]
        owner = np.repeat(np.arange(len(homes)), homes)
        for worker, held in enumerate(maps):
            if name not in held:
                continue
            mask = np.zeros(entry.shape or (1,), bool)
            index = np.ix_(*(np.arange(n) if h is None else h for n, h in zip(entry.shape, held[name], strict=True)))
            mask[index] = True
            for home in range(workers):
                size = int(mask[owner == home].sum()) * entry.dtype.itemsize
                table[home, worker] += size
                table[worker, home] += size if name in back else 0
    np.fill_diagonal(table, 0)
    return table.sum(1).tolist(), table.sum(0).tolist()
