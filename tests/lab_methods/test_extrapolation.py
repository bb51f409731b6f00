"""Extrapolating fixed points over the block size: exact weights, and less bias with every point."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.errors import InvalidInput
from isthmus.lab import Quadratic
from isthmus.lab.rates import extrapolated_fixed_point, extrapolation_weights


@given(st.lists(st.integers(1, 40), min_size=1, max_size=5, unique=True), st.data())
def test_weights_are_exact_for_polynomials(places, data):
    coefficients = data.draw(st.lists(st.integers(-5, 5), min_size=len(places), max_size=len(places)))
    t = np.array(places, dtype=float) / 10
    weights = extrapolation_weights(t)
    values = np.polynomial.polynomial.polyval(t, coefficients)
    rounding = 1e-7 * np.abs(weights).sum() * np.abs(values).max() + 1e-9
    assert weights @ values == pytest.approx(coefficients[0], abs=rounding)


def correlated(seed):
    random = np.random.default_rng(seed)
    factor = random.standard_normal((12, 30))
    gram = factor @ factor.T
    scale = 1 / np.sqrt(np.diagonal(gram))
    return Quadratic(np.broadcast_to(scale[:, None] * gram * scale, (3, 12, 12)), random.standard_normal((3, 12)))


@pytest.mark.parametrize("seed", range(5))
def test_more_points_leave_less_bias(seed):
    problem = correlated(seed)
    gaps = [float(problem.gap(extrapolated_fixed_point(problem, sizes))) for sizes in ([6], [6, 4], [6, 4, 3])]
    assert gaps[2] < gaps[1] < gaps[0]


def test_the_whole_model_has_no_bias():
    problem = correlated(0)
    np.testing.assert_allclose(extrapolated_fixed_point(problem, [12]), problem.minimizer, rtol=1e-9)
    np.testing.assert_allclose(extrapolated_fixed_point(problem, [12, 3]), problem.minimizer, rtol=1e-9)


def test_bad_sizes_are_refused():
    with pytest.raises(InvalidInput, match="`sizes` must be at most 12, got 13"):
        extrapolated_fixed_point(correlated(0), [13])
    with pytest.raises(InvalidInput, match="`places` must be different numbers"):
        extrapolated_fixed_point(correlated(0), [4, 4])
