"""Mean, variance, levels and messages of every compressor, at stated error levels."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cases.compressors import ALL, EXACT_OMEGA, workers_of
from isthmus.errors import InvalidInput
from isthmus.lab import Permutation
from isthmus.lab.compressors import (
    Composition,
    Dithering,
    IdentityCompressor,
    Natural,
    Participation,
    PermK,
    RandK,
    Scaled,
    TopK,
    bernoulli_compressor,
)
from isthmus.randomness import generator

SEEDS = 40_000
SIGMAS = 5.0  # chance of a false alarm below 1e-6 a comparison


def vectors(compressor, seed=0):
    """A heterogeneous [n, d]: different scales, signs, and one exact zero."""
    x = generator(seed, "test/vectors").standard_normal((workers_of(compressor), compressor.dim))
    x *= 2.0 ** np.arange(-2, compressor.dim - 2)
    x[0, 0] = 0.0
    return x


def compress_many(compressor, x, seeds=SEEDS):
    return compressor.compress(np.broadcast_to(x, (seeds, *x.shape)), generator(1, "test/draws"))


@pytest.mark.parametrize("name", ALL)
def test_mean_and_variance(name):
    compressor = ALL[name]
    x = vectors(compressor)
    out = compress_many(compressor, x)
    spread = out.std(axis=0) / math.sqrt(SEEDS)
    if compressor.omega is not None:
        assert (np.abs(out.mean(axis=0) - x) <= SIGMAS * spread + 1e-12 * np.abs(x).max()).all()
    squares = ((out - x) ** 2).sum(axis=2)
    error = SIGMAS * squares.std(axis=0) / math.sqrt(SEEDS)
    norms = (x**2).sum(axis=1)
    if compressor.omega is not None:
        assert (squares.mean(axis=0) <= compressor.omega * norms + error + 1e-12 * norms).all()
        if name in EXACT_OMEGA:
            assert (squares.mean(axis=0) >= compressor.omega * norms - error - 1e-12 * norms).all()
    if compressor.alpha is not None:
        assert (squares.mean(axis=0) <= (1 - compressor.alpha) * norms + error + 1e-12 * norms).all()


@pytest.mark.parametrize("name", [name for name in ALL if ALL[name].omega is not None])
def test_joint_constants(name):
    """E|mean C_i(a_i) - mean a_i|^2 <= A mean|a_i|^2 - B|mean a_i|^2, with equality where the law is exact."""
    compressor = ALL[name]
    x = vectors(compressor, seed=3)
    A, B = compressor.joint_constants(len(x))
    out = compress_many(compressor, x).mean(axis=1)
    squares = ((out - x.mean(axis=0)) ** 2).sum(axis=1)
    error = SIGMAS * squares.std() / math.sqrt(SEEDS) + 1e-12 * (x**2).sum()
    bound = A * (x**2).sum(axis=1).mean() - B * (x.mean(axis=0) ** 2).sum()
    assert squares.mean() <= bound + error
    if name in EXACT_OMEGA:
        assert squares.mean() >= bound - error


@pytest.mark.parametrize(
    ("compressor", "omega"),
    [
        (IdentityCompressor(5), 0.0),
        (RandK(12, 4), 2.0),
        (PermK(3, 12), 2.0),
        (PermK(7, 3), 2.0),
        (Dithering(12, 2), math.sqrt(12) / 2),
        (Dithering(12, 5), 12 / 25),
        (Natural(5), 1 / 8),
        (bernoulli_compressor(12, 0.25), 3.0),
        (Participation(RandK(12, 4), 0.5), 5.0),  # (1 + 2)/0.5 - 1
        (Composition(RandK(12, 4), Natural(4)), 9 / 8 * 3 - 1),
        (Composition(RandK(12, 4), Dithering(4, 3)), (1 + 4 / 9) * 3 - 1),
    ],
    ids=str,
)
def test_omega_is_that_of_the_formula(compressor, omega):
    assert compressor.omega == pytest.approx(omega, rel=1e-14)
    assert Scaled(compressor).alpha == pytest.approx(1 / (1 + omega), rel=1e-14)


@pytest.mark.parametrize("make", [IdentityCompressor, lambda d: RandK(d, d), lambda d: TopK(d, d), Natural,
                                  lambda d: PermK(2, d), lambda d: PermK(d, 2), lambda d: Dithering(d, 1)])  # fmt: skip
def test_one_coordinate_or_worker_is_enough_and_none_is_not(make):
    compressor, x = make(1), np.full((workers_of(make(1)), make(1).dim), -2.0)
    assert compressor.decode(compressor.encode(x, generator(0, "t")), generator(0, "t")).shape == x.shape
    with pytest.raises(InvalidInput, match="must be at least 1, got 0"):
        make(0)


def test_natural_writes_every_exponent_that_single_precision_names_and_no_other():
    ends = np.array([[2.0**128, -(2.0**-126)]])
    back = Natural(2).decode(Natural(2).encode(ends, generator(0, "t"), 32), generator(0, "t"), 32)
    assert np.array_equal(back, ends)
    for beyond in (2.0**129, 2.0**-127):
        with pytest.raises(InvalidInput, match="out of range"):
            Natural(1).encode(np.array([[beyond]]), generator(0, "t"), 32)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("value_bits", [32, 64])
def test_messages_are_as_long_as_counted_and_decode_to_what_was_compressed(name, value_bits):
    compressor = ALL[name]
    x = vectors(compressor, seed=5)
    bits, written = 0.0, 0
    for key in range(8):
        out = compressor.compress(x[None], generator(key, "test/code"))[0]
        data = compressor.encode(x, generator(key, "test/code"), value_bits)
        raw = compressor.write(x, generator(key, "test/code"), value_bits)
        assert [len(one) for one in data] == [math.ceil(len(one) / 8) for one in raw]
        drawn = compressor.drawn_message(generator(key, "test/code"), 1, len(x), value_bits)
        bits, written = bits + float(np.sum(drawn.bits)) * len(x), written + sum(len(one) for one in raw)
        back = compressor.decode(data, generator(key, "test/code"), value_bits)
        np.testing.assert_allclose(back, out, rtol=0.0 if value_bits == 64 else 2e-7, atol=0)
    assert bits == pytest.approx(written, rel=1e-12)


@pytest.mark.parametrize("name", ALL)
def test_expected_message_is_the_mean_of_the_drawn_ones(name):
    compressor = ALL[name]
    drawn = compressor.drawn_message(generator(2, "test/bits"), SEEDS, workers_of(compressor)).bits
    drawn = np.broadcast_to(drawn, (SEEDS,))
    assert abs(drawn.mean() - compressor.message().bits) <= SIGMAS * drawn.std() / math.sqrt(SEEDS) + 1e-9


@pytest.mark.parametrize("name", ALL)
def test_a_seed_does_not_depend_on_how_many_there_are(name):
    compressor = ALL[name]
    x = vectors(compressor)
    few, many = compress_many(compressor, x, 2), compress_many(compressor, x, 9)
    assert np.array_equal(few, many[:2])


def test_dithering_has_its_levels_and_reaches_the_ends():
    """Few distinct values: an operator that returns its input unquantised would pass every test of the mean."""
    x = np.array([[3.0, 0.0, 4.0]])
    out = compress_many(Dithering(3, 4), x)[:, 0]
    assert set(np.unique(out[:, 0])) == {2.5, 3.75}  # 3/5 lies between the levels 2/4 and 3/4 of the norm 5
    assert set(np.unique(out[:, 2])) == {3.75, 5.0}
    assert (out[:, 1] == 0).all()
    one_hot = compress_many(Dithering(3, 4), np.array([[0.0, -2.0, 0.0]]))[:, 0]
    assert (one_hot == [0.0, -2.0, 0.0]).all()


def test_dithering_variance_is_the_exact_one():
    """Coordinate j errs by (norm/s)^2 p(1-p), p the fractional part of s|x_j|/norm."""
    compressor = Dithering(12, 3)
    x = vectors(compressor)[:1]
    norm = np.linalg.norm(x)
    p = 3 * np.abs(x[0]) / norm % 1
    squares = ((compress_many(compressor, x)[:, 0] - x[0]) ** 2).sum(axis=1)
    assert abs(squares.mean() - (norm / 3) ** 2 * (p * (1 - p)).sum()) <= SIGMAS * squares.std() / math.sqrt(SEEDS)


@pytest.mark.parametrize("scale", [1e-300, 1e-200, 1e-160, 1e160, 1e200, 1e300])
def test_dithering_and_natural_go_with_the_scale_of_the_vector(scale):
    x = vectors(Dithering(12, 4))
    power = 2.0 ** round(math.log2(scale))
    for compressor in (Dithering(12, 4), Dithering(12, 1), Natural(12), Composition(RandK(12, 4), Dithering(4, 3))):
        plain, large = (compress_many(compressor, one, 3) for one in (x, x * power))
        assert np.array_equal(large, plain * power)
    data = Dithering(12, 4).encode(x * power, generator(1, "test/draws"))
    assert np.array_equal(Dithering(12, 4).decode(data, generator(1, "test/draws")),
                          Dithering(12, 4).compress((x * power)[None], generator(1, "test/draws"))[0])


def test_natural_gives_the_two_neighbouring_powers_of_two():
    out = compress_many(Natural(2), np.array([[3.0, -0.3]]))[:, 0]
    assert set(np.unique(out[:, 0])) == {2.0, 4.0}
    assert set(np.unique(out[:, 1])) == {-0.5, -0.25}
    at_worst = compress_many(Natural(2), np.array([[4.0 / 3.0, -8.0 / 3.0]]))[:, 0] - [4 / 3, -8 / 3]
    assert (at_worst**2).sum(axis=1).mean() / (80 / 9) == pytest.approx(0.125, rel=0.02)


@given(st.integers(1, 9), st.data())
def test_top_k_keeps_the_largest_and_contracts(dim, data):
    size = data.draw(st.integers(1, dim))
    x = np.array(data.draw(st.lists(st.floats(-1e3, 1e3), min_size=dim, max_size=dim)))
    out = TopK(dim, size).compress(x[None, None], generator(0, "test"))[0, 0]
    assert np.count_nonzero(out) <= size
    assert set(out[out != 0]) <= set(x)
    assert np.sort(np.abs(out))[::-1][:size].tolist() == np.sort(np.abs(x))[::-1][:size].tolist()
    assert ((out - x) ** 2).sum() <= (1 - size / dim) * (x**2).sum() * (1 + 1e-12)


def test_top_k_of_many_is_that_of_sorting():
    x = generator(0, "test/many").permutation(1000.0 + np.arange(400.0))[None, None] * (-1.0) ** np.arange(400)
    for size in (1, 7, 100, 399, 400):
        out = TopK(400, size).compress(x, generator(0, "test"))[0, 0]
        assert np.sort(np.abs(out[out != 0])).tolist() == (1400.0 - np.arange(size, 0, -1)).tolist()


def test_top_k_reaches_its_worst_case():
    out = TopK(8, 3).compress(np.ones((1, 1, 8)), generator(0, "test"))
    assert ((out - 1) ** 2).sum() == 8 - 3


def test_perm_k_averages_equal_vectors_without_error():
    for compressor in (PermK(3, 12), PermK(3, 7), PermK(4, 4)):
        row = np.arange(1.0, compressor.dim + 1)
        x = np.broadcast_to(row, (5, compressor.workers, compressor.dim))
        np.testing.assert_allclose(compressor.compress(x, generator(0, "test")).mean(axis=1), x[:, 0], rtol=1e-15)


def test_perm_k_is_the_permutation_sketch():
    """Compressing ones gives the sketch's diagonals of the same draw: one law for compressed gradients and models."""
    for n, d in ((3, 7), (4, 8), (5, 2)):
        ones = np.ones((6, n, d))
        drawn = Permutation(n, d).sample_many(generator(4, "test"), 6)
        assert np.array_equal(PermK(n, d).compress(ones, generator(4, "test")), drawn)


def test_rand_k_draws_without_replacement():
    out = RandK(6, 4).compress(np.ones((500, 2, 6)), generator(0, "test"))
    assert (np.count_nonzero(out, axis=2) == 4).all()


@pytest.mark.parametrize("size", [1, 3, 100, 399])
def test_rand_k_of_many_sends_what_it_keeps(size):
    compressor, x = RandK(400, size, shared_seed=False), generator(0, "test/many").standard_normal((2, 400))
    kept = compressor.compress(x[None], generator(1, "test/draws"))[0]
    data = compressor.encode(x, generator(1, "test/draws"))
    assert np.array_equal(compressor.decode(data, generator(1, "test/draws")), kept)


@settings(max_examples=30)
@given(st.integers(1, 40), st.data())
def test_rand_k_counts_the_smaller_index_code(dim, data):
    size = data.draw(st.integers(1, dim))
    index = RandK(dim, size, shared_seed=False).message().indices
    assert index == min(size * math.ceil(math.log2(dim)) if dim > 1 else 0, dim)
    assert RandK(dim, size).message().indices == 0


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: RandK(5, 6), "`size` must be at most 5, got 6"),
        (lambda: TopK(5, 0), "`size` must be at least 1, got 0"),
        (lambda: Dithering(5, 0), "`levels` must be at least 1, got 0"),
        (lambda: bernoulli_compressor(5, 0.0), "`probability` must be greater than 0.0, got 0.0"),
        (lambda: bernoulli_compressor(5, 1.5), "`probability` must be at most 1.0, got 1.5"),
        (lambda: Scaled(TopK(5, 2)), "`compressor` must be unbiased"),
        (lambda: Composition(RandK(5, 2), Natural(5)), "must be for the 2 kept coordinates, got 5"),
        (lambda: PermK(3, 6).joint_constants(4), "`compressor` must be for 4 workers like the problem, got 3"),
        (lambda: IdentityCompressor(0), "`dim` must be at least 1, got 0"),
        (lambda: RandK(5, 2).encode(np.ones((1, 5)), generator(0, "t"), 16), "`value_bits` must be one of 32, 64"),
        (lambda: RandK(5, 2).compress(np.ones((1, 1, 4)), generator(0, "t")), "must be for 4 coordinates"),
        (lambda: Natural(1).encode(np.full((1, 1), 1e-300), generator(0, "t"), 32), "out of range"),
        (lambda: Dithering(1, 2).encode(np.full((1, 1), 1e200), generator(0, "t"), 32), "of 32 bits, got 1e+200"),
        (lambda: IdentityCompressor(2).decode([b"123"], generator(0, "t")), "`data` must hold 128 bits, got 24"),
    ],
)
def test_bad_input_is_one_line(make, said):
    with pytest.raises(InvalidInput) as caught:
        make()
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ALL)
def test_multipliers_are_the_moments_of_what_a_linear_compressor_multiplies_by(name):
    compressor = ALL[name]
    n, d = workers_of(compressor), compressor.dim
    law = compressor.multipliers(n)
    linear = not any(word in name for word in ("top-k", "dithering", "natural"))
    assert (law is not None) == linear
    if law is None:
        return
    seeds = 20_000
    c = compressor.compress(np.ones((seeds, n, d)), np.random.default_rng(0)).reshape(seeds, n * d)
    mean, second = c.mean(axis=0), c.T @ c / seeds
    deviations = np.sqrt(np.maximum((c**2).T @ c**2 / seeds - second**2, 0.0) / seeds)
    np.testing.assert_allclose(mean, law.mean.ravel(), atol=5 * c.std() / np.sqrt(seeds) + 1e-12)
    assert (np.abs(second - law.second.reshape(n * d, n * d)) <= 5.5 * deviations + 1e-9).all()
    assert np.linalg.eigvalsh(law.covariance)[0] >= -1e-9
