"""A disjoint cover of units by workers, and the uniformly random one.

The one idea both halves of isthmus share: the lab's permutation sketch and the trainer's cut of a hidden layer are the
same :class:`Partition`, drawn from the same key. A partition carries no scale: the factor n belongs to the sketch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isthmus.errors import InvalidInput, check_integer

Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Partition:
    """A disjoint cover of ``units`` units: one block a worker, and a core (maybe empty) that every worker holds.

    Attributes:
        units: number of units d.
        blocks: one sorted int64 array per worker.
        core: sorted int64 array of the units all workers hold.

    Raises:
        InvalidInput: no workers, a block that is not a 1-d integer array, or units held twice or never.
    """

    units: int
    blocks: tuple[Indices, ...]
    core: Indices

    def __init__(self, units: int, blocks: tuple[Indices, ...] | list[Indices], core: Indices | None = None) -> None:
        check_integer("units", units, at_least=1)
        if len(blocks) == 0:
            raise InvalidInput("`blocks` must hold at least one worker's block, got none")
        parts = [_sorted_indices(f"blocks[{i}]", block) for i, block in enumerate(blocks)]
        shared = _sorted_indices("core", np.empty(0, np.int64) if core is None else core)
        held = np.sort(np.concatenate([*parts, shared]))
        if not np.array_equal(held, np.arange(units)):
            raise InvalidInput(f"`blocks` and `core` must hold each of 0..{units - 1} exactly once")
        object.__setattr__(self, "units", units)
        object.__setattr__(self, "blocks", tuple(parts))
        object.__setattr__(self, "core", shared)

    @property
    def workers(self) -> int:
        """Number of workers n."""
        return len(self.blocks)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Units each worker trains, its block and the core together."""
        return tuple(len(block) + len(self.core) for block in self.blocks)

    def held(self, worker: int) -> Indices:
        """Return the sorted units of ``worker``: its block and the core."""
        return np.sort(np.concatenate([self.blocks[worker], self.core]))

    def rotated(self, steps: int) -> Partition:
        """Return the same pieces, each passed on ``steps`` workers (worker i gets the block of worker i + steps)."""
        n = self.workers
        return Partition(self.units, [self.blocks[(i + steps) % n] for i in range(n)], self.core)


def block_sizes(units: int, workers: int) -> Indices:
    """Return the sizes of ``workers`` blocks over ``units`` units; they differ by at most one, the larger first.

    Raises:
        InvalidInput: fewer than one worker, or more workers than units (a worker would hold nothing).

    >>> block_sizes(7, 3).tolist()
    [3, 2, 2]
    """
    check_integer("units", units, at_least=1)
    check_integer("workers", workers, at_least=1)
    if workers > units:
        raise InvalidInput(
            f"`workers` must be at most the number of units, got {workers} workers for {units} units: "
            "a worker would hold nothing"
        )
    small, larger = divmod(units, workers)
    return np.array([small + 1] * larger + [small] * (workers - larger), dtype=np.int64)


def random_partition(units: int, workers: int, random: np.random.Generator) -> Partition:
    """Draw a uniformly random partition: units permuted, cut into blocks, blocks dealt to workers at random.

    Where n does not divide d the larger blocks go to random workers, so that every unit is held by every worker with
    probability exactly 1/n. (With fixed sizes E[n P_i] is not the identity.)

    Args:
        units: d.
        workers: n.
        random: where the draw comes from.

    Raises:
        InvalidInput: n > d.
    """
    sizes = block_sizes(units, workers)
    order = random.permutation(units)
    sizes = sizes[random.permutation(workers)]
    return Partition(units, np.split(order, np.cumsum(sizes)[:-1]))


def random_blocks(units: int, workers: int, random: np.random.Generator, count: int) -> Indices:
    """Draw many random partitions at once: [count, n, q] the units of every block, d in unused places.

    The first is the one :func:`random_partition` draws from the same generator; no draw depends on ``count``.

    Raises:
        InvalidInput: n > d, or no draw.
    """
    check_integer("count", count, at_least=1)
    sizes = block_sizes(units, workers)
    orders, seats = np.empty((count, units), np.int64), np.empty((count, workers), np.int64)
    orders[0], seats[0] = random.permutation(units), random.permutation(workers)
    even = units % workers == 0
    keys = random.random((count - 1, units if even else units + workers))
    orders[1:] = np.argsort(keys[:, :units], axis=1)
    if even:  # who gets which block is random already
        return np.sort(orders.reshape(count, workers, units // workers), axis=2)
    seats[1:] = np.argsort(keys[:, units:], axis=1)
    own = sizes[seats]
    ends = np.cumsum(own, axis=1)
    places = (ends - own)[:, :, None] + np.arange(sizes[0])
    places[own < sizes[0], -1] = units  # sizes differ by one
    padded = np.concatenate([orders, np.full((count, 1), units)], axis=1)
    return padded[np.arange(count)[:, None, None], places]


def _sorted_indices(name: str, values: object) -> Indices:
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
        raise InvalidInput(f"`{name}` must be a 1-d array of integers, got shape {array.shape} of {array.dtype}")
    ordered = np.sort(array.astype(np.int64))
    ordered.flags.writeable = False
    return ordered
