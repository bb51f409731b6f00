"""Partitions: disjoint covers, fair to every worker, the same from the same key."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.errors import InvalidInput
from isthmus.partitions import Partition, block_sizes, random_blocks, random_partition
from isthmus.randomness import generator

SHAPES = st.integers(1, 40).flatmap(lambda units: st.tuples(st.just(units), st.integers(1, units)))


@given(SHAPES, st.integers(0, 2**32))
def test_blocks_are_a_disjoint_cover_with_even_sizes(shape: tuple[int, int], seed: int) -> None:
    units, workers = shape
    partition = random_partition(units, workers, generator(seed, "test"))
    assert sorted(np.concatenate(partition.blocks).tolist()) == list(range(units))
    assert max(partition.sizes) - min(partition.sizes) <= 1
    assert all(np.all(np.diff(block) > 0) for block in partition.blocks)
    assert partition.core.size == 0


@given(SHAPES, st.integers(0, 2**32), st.integers(1, 5))
def test_many_draws_start_with_the_one_draw(shape: tuple[int, int], seed: int, count: int) -> None:
    units, workers = shape
    many = random_blocks(units, workers, generator(seed, "test"), count)
    one = random_partition(units, workers, generator(seed, "test"))
    assert [np.sort(row[row < units]).tolist() for row in many[0]] == [block.tolist() for block in one.blocks]
    assert np.array_equal(many, random_blocks(units, workers, generator(seed, "test"), count + 3)[:count])
    for draw in many:
        assert sorted(draw[draw < units].tolist()) == list(range(units))
        assert np.ptp((draw < units).sum(axis=1)) <= 1


def test_pieces_are_passed_on() -> None:
    partition = random_partition(12, 3, generator(5, "test"))
    assert [b.tolist() for b in partition.rotated(1).blocks] == [partition.blocks[i].tolist() for i in (1, 2, 0)]
    assert [b.tolist() for b in partition.rotated(3).blocks] == [b.tolist() for b in partition.blocks]


def test_a_core_is_held_by_all() -> None:
    partition = Partition(5, [np.array([3]), np.array([0, 2])], core=np.array([4, 1]))
    assert [partition.held(worker).tolist() for worker in range(2)] == [[1, 3, 4], [0, 1, 2, 4]]
    assert partition.sizes == (3, 4)


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
        random_partition(units, workers, generator(0, "test"))


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


def test_blocks_cannot_be_written_to() -> None:
    block = random_partition(6, 2, generator(0, "test")).blocks[0]
    with pytest.raises(ValueError, match="read-only"):
        block[0] = 5
