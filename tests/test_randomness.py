"""Keyed generators: the same key gives the same bits everywhere, different keys independent ones."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.errors import InvalidInput
from isthmus.randomness import derived_seed, generator

GOLDEN_FIRST = [9392823151859982787, 15755122150672577132, 4375611311498346337]
GOLDEN_LAST = [3883313522137943978, 2850710125275116676, 6809782189978265915]
GOLDEN_PERMUTATION = [5, 6, 7, 0, 2, 9, 8, 1, 3, 4]
KEYS = st.tuples(
    st.integers(0, 2**64 - 1), st.text(min_size=1, max_size=20), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)
)


@given(KEYS)
def test_the_same_key_gives_the_same_numbers(key: tuple[int, str, int, int]) -> None:
    assert np.array_equal(generator(*key).integers(2**62, size=8), generator(*key).integers(2**62, size=8))


@given(KEYS, KEYS)
def test_different_keys_give_different_numbers(one: tuple[int, str, int, int], two: tuple[int, str, int, int]) -> None:
    same = np.array_equal(generator(*one).integers(2**62, size=8), generator(*two).integers(2**62, size=8))
    assert same == (one == two)


def test_golden_numbers() -> None:
    """The bits themselves: they must not change with the platform, the NumPy version or a refactoring."""
    assert generator(0, "golden").bit_generator.random_raw(3).tolist() == GOLDEN_FIRST
    assert generator(2**64 - 1, "golden", 5, 3).bit_generator.random_raw(3).tolist() == GOLDEN_LAST
    assert generator(1, "golden").permutation(10).tolist() == GOLDEN_PERMUTATION


def test_another_process_draws_the_same() -> None:
    draw = "generator(3, 'process', 2, 1).integers(2**62, size=4).tolist()"
    code = f"from isthmus.randomness import generator; print({draw})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(generator(3, "process", 2, 1).integers(2**62, size=4).tolist())


def test_streams_of_neighbouring_rounds_do_not_overlap() -> None:
    """Drawing a lot in one round must not run into the next round's numbers."""
    long = generator(0, "overlap", 0).bit_generator.random_raw(100_000)
    following = generator(0, "overlap", 1).bit_generator.random_raw(1_000)
    assert not np.isin(following, long).any()


def test_streams_are_uncorrelated() -> None:
    """64 workers' normals: the correlation matrix is the identity up to sampling error (5 standard errors)."""
    draws = np.stack([generator(0, "correlation", 0, worker).standard_normal(10_000) for worker in range(64)])
    off = np.corrcoef(draws) - np.eye(64)
    assert np.abs(off).max() < 5 / np.sqrt(10_000)


def test_derived_seed_fits_63_bits_and_follows_the_key() -> None:
    seeds = {derived_seed(1, "torch", round, worker) for round in range(20) for worker in range(20)}
    assert len(seeds) == 400
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1, "a"), "`seed` must be at least 0, got -1"),
        ((2**64, "a"), "`seed` must be at most"),
        ((1.5, "a"), "`seed` must be an integer, got 1.5"),
        ((True, "a"), "`seed` must be an integer, got True"),
        ((0, ""), "`purpose` must be a non-empty string"),
        ((0, "a", -1), "`round` must be at least 0, got -1"),
        ((0, "a", 0, -1), "`worker` must be at least 0, got -1"),
    ],
)
def test_bad_keys_are_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        generator(*arguments)
