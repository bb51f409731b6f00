"""Compressors at their edges: what is said when nothing is said, ones and zeros, one coordinate more or less."""

from __future__ import annotations

import numpy as np
import pytest

from cases.compressors import ALL, workers_of
from isthmus.errors import InvalidInput
from isthmus.lab.compressors import Composition, Dithering, IdentityCompressor, Natural, PermK, RandK, Scaled, TopK
from isthmus.lab.compressors.coding import Reader, check_value_bits, float_bits, integer_bits, pack
from isthmus.randomness import generator


def same(one, other):
    for name in ("values", "indices", "extras"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("name", ALL)
def test_numbers_have_64_bits_unless_said_otherwise(name):
    compressor, n = ALL[name], workers_of(ALL[name])
    same(compressor.message(), compressor.message(64))
    for draw in (compressor.drawn_messages, compressor.drawn_message):
        same(draw(generator(0, "t"), 3, n), draw(generator(0, "t"), 3, n, 64))
    x = np.arange(1.0, n * compressor.dim + 1).reshape(n, -1) / 7
    data = compressor.encode(x, generator(0, "t"))
    assert data == compressor.encode(x, generator(0, "t"), 64)
    np.testing.assert_array_equal(
        compressor.decode(data, generator(0, "t")), compressor.decode(data, generator(0, "t"), 64)
    )


@pytest.mark.parametrize("value_bits", [32, 64])
def test_natural_keeps_powers_of_two_and_zero(value_bits):
    x = np.array([[1.0, -1.0, 0.0, 2.0, -0.5, 0.0]])
    for key in range(4):
        np.testing.assert_array_equal(Natural(6).compress(x[None], generator(key, "t"))[0], x)
        data = Natural(6).encode(x, generator(key, "t"), value_bits)
        np.testing.assert_array_equal(Natural(6).decode(data, generator(key, "t"), value_bits), x)


def test_dithering_of_zeros_is_zeros():
    for zeros in (np.zeros((1, 3)), -np.zeros((1, 3))):
        out = Dithering(3, 2).compress(zeros[None], generator(0, "t"))
        np.testing.assert_array_equal(out, zeros[None])


@pytest.mark.parametrize(("levels", "bits"), [(1, 1), (2, 2), (3, 2), (4, 3), (7, 3), (8, 4)])
def test_levels_take_as_many_bits_as_they_need(levels, bits):
    assert Dithering(5, levels).level_bits == bits
    assert Dithering(5, levels).message(32).bits == 32 + 5 * (1 + bits)


def test_joint_constants_of_permutations_and_others():
    assert PermK(1, 3).joint_constants(1) == (0.0, 0.0)
    assert PermK(3, 3).joint_constants(3) == (1.0, 1.0)
    assert PermK(6, 3).joint_constants(6) == pytest.approx((2 / 5, 2 / 5))
    assert RandK(6, 2).joint_constants(4) == (0.5, 0.0)
    assert [PermK(n, d).omega for n, d in ((2, 6), (6, 2), (1, 4))] == [1.0, 1.0, 0.0]
    with pytest.raises(InvalidInput, match="unbiased"):
        TopK(4, 2).joint_constants(2)
    assert TopK(4, 4).joint_constants(2) == (0.0, 0.0)
    assert TopK(4, 3).omega is None
    assert Scaled(RandK(4, 2)).omega is None
    assert RandK(4, 2).alpha is None


def test_messages_of_permutations_count_their_blocks():
    assert PermK(4, 8).message(32).values == 64.0
    assert PermK(8, 4).message(32).values == 32.0  # one number each
    assert PermK(4, 8, shared_seed=False).message(32).indices == 2 * 3
    drawn = PermK(3, 7).drawn_messages(generator(0, "t"), 50, 3, 32).values / 32
    assert set(np.unique(drawn)) == {2.0, 3.0}
    assert (drawn.sum(axis=1) == 7).all()
    for other in (PermK(3, 6), PermK(3, 3), PermK(5, 3)):
        assert np.ndim(other.drawn_messages(generator(0, "t"), 5, other.workers, 32).values) == 0
    with pytest.raises(InvalidInput, match="must be for 2 workers"):
        PermK(3, 6).drawn_messages(generator(0, "t"), 5, 2)
    with pytest.raises(InvalidInput, match="must be for 2 workers"):
        PermK(3, 6).compress(np.ones((1, 2, 6)), generator(0, "t"))


def test_indices_travel_one_by_one_or_as_a_mask():
    for size, bits in ((1, 3), (2, 6), (3, 8), (7, 8)):  # of 8 coordinates, three bits each
        compressor = RandK(8, size, shared_seed=False)
        assert compressor.index_message_bits == bits
        kept = np.arange(size)
        assert len(compressor.write_indices(kept)) == bits
    assert RandK(8, 2).index_message_bits == 0
    assert len(RandK(8, 2).write_indices(np.arange(2))) == 0
    assert RandK(8, 2).write_indices(np.arange(2)).dtype == np.uint8


def test_bits_are_the_digits_of_integers_and_numbers():
    assert integer_bits(np.array([0, 6]), 3).tolist() == [0, 0, 0, 1, 1, 0]
    assert pack(integer_bits(np.array([5]), 3)) == bytes([0b10100000])
    reader = Reader(pack(np.concatenate([integer_bits(np.array([5, 2]), 3), float_bits(np.array([1.5]), 32)])))
    assert reader.remaining == 40  # with those that fill up the last byte
    assert reader.integers(2, 3).tolist() == [5, 2]
    assert reader.floats(1, 32).tolist() == [1.5]
    assert reader.remaining == 2
    assert not reader.silent
    with pytest.raises(InvalidInput, match="`data` must hold 41 bits, got 40"):
        reader.integers(3, 1)
    silent = Reader(None)
    assert (silent.silent, silent.remaining) == (True, 0)
    assert silent.integers(2, 3).tolist() == [0, 0]
    assert check_value_bits(32) == 32
    with pytest.raises(InvalidInput, match="`x` must have numbers of 32 bits"):
        float_bits(np.array([1e39]), 32)


def test_compositions_are_for_what_rand_k_keeps():
    with pytest.raises(InvalidInput, match="`sparsifier` must be a RandK"):
        Composition(TopK(4, 2), Natural(2))
    with pytest.raises(InvalidInput, match="unbiased"):
        Composition(RandK(4, 2), TopK(2, 1))
    both = Composition(RandK(4, 2, shared_seed=False), IdentityCompressor(2))
    assert (both.omega, both.message(32).bits) == (1.0, 2 * 32 + 4)
