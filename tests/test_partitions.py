"""Partitions: disjoint covers, fair to every worker, the same from the same key."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.errors import InvalidInput
from isthmus.partitions import LAWS, Partition, block_sizes, partition_at, random_partition
from isthmus.randomness import generator

SHAPES = st.integers(1, 40).flatmap(lambda units: st.tuples(st.just(units), st.integers(1, units)))


@given(SHAPES, st.integers(0, 2**32), st.sampled_from(LAWS), st.integers(0, 5))
def test_blocks_are_a_disjoint_cover_with_even_sizes(shape: tuple[int, int], seed: int, law: str, round: int) -> None:
    units, workers = shape
    partition = partition_at(law, units, workers, seed, "axis", round)
    assert sorted(np.concatenate(partition.blocks).tolist()) == list(range(units))
    assert max(partition.sizes) - min(partition.sizes) <= 1
    assert all(np.all(np.diff(block) > 0) for block in partition.blocks)
    assert partition.core.size == 0


@given(SHAPES, st.integers(0, 2**32), st.sampled_from(LAWS), st.floats(0, 1), st.integers(0, 5))
def test_core_is_held_by_all_and_the_rest_by_one(
    shape: tuple[int, int], seed: int, law: str, core: float, round: int
) -> None:
    units, workers = shape
    shared = np.round(core * units)
    if 0 < units - shared < workers:
        with pytest.raises(InvalidInput, match="workers"):
            partition_at(law, units, workers, seed, "axis", round, core)
        return
    partition = partition_at(law, units, workers, seed, "axis", round, core)
    holders = Counter(itertools.chain.from_iterable(partition.held(worker).tolist() for worker in range(workers)))
    assert len(partition.core) == shared
    assert all(holders[unit] == workers for unit in partition.core)
    assert all(holders[unit] == 1 for unit in set(range(units)) - set(partition.core.tolist()))


def test_laws_over_rounds() -> None:
    def blocks(law: str, round: int) -> list[list[int]]:
        return [block.tolist() for block in partition_at(law, 12, 3, 5, "axis", round).blocks]

    assert blocks("fixed", 0) == blocks("fixed", 7)
    assert blocks("uniform", 0) == blocks("fixed", 0)
    assert blocks("uniform", 1) != blocks("uniform", 0)
    assert blocks("rotated", 1) == [blocks("fixed", 0)[i] for i in (1, 2, 0)]
    assert blocks("rotated", 3) == blocks("fixed", 0)
    assert blocks("block", 4) == blocks("rotated", 4)
    assert blocks("fixed", 0) != [b.tolist() for b in partition_at("fixed", 12, 3, 5, "another axis").blocks]


def test_every_assignment_is_equally_likely_when_n_does_not_divide_d() -> None:
    """d = 3, n = 2: the law has 6 outcomes (which unit is alone, which worker has it), each of probability 1/6.

    With a fixed block-to-worker assignment worker 0 would hold a unit with probability 2/3, not 1/2.
    """
    draws = 12_000
    seen = Counter(
        tuple(tuple(block.tolist()) for block in random_partition(3, 2, generator(0, "law", draw)).blocks)
        for draw in range(draws)
    )
    assert len(seen) == 6
    error = 5 * np.sqrt(draws / 6 * 5 / 6)
    assert all(abs(count - draws / 6) < error for count in seen.values())


def test_every_unit_is_as_likely_with_every_worker() -> None:
    draws, units, workers = 8_000, 7, 3
    held = np.zeros((workers, units))
    for draw in range(draws):
        for worker, block in enumerate(random_partition(units, workers, generator(1, "fair", draw)).blocks):
            held[worker, block] += 1
    assert np.abs(held / draws - 1 / workers).max() < 5 * np.sqrt(2 / 9 / draws)


@pytest.mark.parametrize(
    ("units", "workers", "message"),
    [
        (5, 0, "`workers` must be at least 1, got 0"),
        (0, 1, "`units` must be at least 1, got 0"),
        (3, 4, "`workers` must be at most the number of units, got 4 workers for 3 units"),
    ],
)
def test_bad_shapes_are_refused(units: int, workers: int, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        block_sizes(units, workers)
    with pytest.raises(InvalidInput, match=message):
        partition_at("uniform", units, workers, 0, "axis")


def test_bad_partitions_are_refused() -> None:
    def indices(*values: int) -> np.ndarray:
        return np.array(values, dtype=np.int64)

    with pytest.raises(InvalidInput, match="exactly once"):
        Partition(3, [indices(0, 1), indices(1, 2)])
    with pytest.raises(InvalidInput, match="exactly once"):
        Partition(4, [indices(0, 1), indices(2)])
    with pytest.raises(InvalidInput, match="exactly once"):
        Partition(3, [indices(0, 1), indices(2)], core=indices(2))
    with pytest.raises(InvalidInput, match="1-d array of integers"):
        Partition(2, [np.array([0.5, 1.0])])
    with pytest.raises(InvalidInput, match="at least one worker"):
        Partition(2, [])
    with pytest.raises(InvalidInput, match="did you mean 'uniform'"):
        partition_at("unifrom", 4, 2, 0, "axis")


def test_blocks_cannot_be_written_to() -> None:
    block = partition_at("fixed", 6, 2, 0, "axis").blocks[0]
    with pytest.raises(ValueError, match="read-only"):
        block[0] = 5
