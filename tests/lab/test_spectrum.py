"""The spectral radius of a linear map, and the accuracy it says."""

import numpy as np
import pytest

from isthmus.lab.theory.spectrum import Radius, operator_radius, positive_radius

MOMENTA = [0.0, 0.5, 0.7, 0.8, 0.9]  # 0.5194... is critical at step 0.1: above it the two eigenvalues are complex
CRITICAL = (1 - np.sqrt(0.1)) / (1 + np.sqrt(0.1))


def nesterov(beta):
    """(x+, x) for f = x^2/2 with step 0.1."""
    return np.array([[0.9 * (1 + beta), -0.9 * beta], [1.0, 0.0]])


@pytest.mark.parametrize("copies", [1, 15], ids=["dense", "ARPACK"])
@pytest.mark.parametrize("beta", [*MOMENTA, CRITICAL])
def test_radius_of_a_positive_map_is_that_of_its_matrix_squared_and_errs_by_what_it_says(beta, copies):
    J = np.kron(np.diag(np.linspace(0.5, 1.0, copies) if copies > 1 else [1.0]), nesterov(beta))
    found = positive_radius(lambda S: J @ S @ J.T, len(J))
    true = 0.9 * beta if beta >= CRITICAL else max(np.abs(np.linalg.eigvals(nesterov(beta)))) ** 2
    assert found.how == ("dense" if copies == 1 else "ARPACK")
    if beta != CRITICAL:
        assert abs(found / true - 1) <= 1e-12
        assert found.error <= 1e-11
    else:  # a triple root: a third of the digits is left, whoever counts
        assert abs(found / true - 1) <= (found.error if copies == 1 else 1e-4)


@pytest.mark.parametrize("size", [40, 320])
def test_radius_of_any_map_is_that_of_its_matrix(size):
    matrix = np.random.default_rng(size).standard_normal((size, size))
    found = operator_radius(lambda x: matrix @ x, size)
    true = np.abs(np.linalg.eigvals(matrix)).max()
    assert found == pytest.approx(true, rel=1e-12)
    assert np.finfo(float).eps <= found.error <= 1e-11


@pytest.mark.parametrize("dim", [3, 30])
@pytest.mark.parametrize("scale", [1e-140, 1.0, 1e140])
def test_radius_scales_with_the_map(dim, scale):
    assert positive_radius(lambda S: scale * S, dim) / scale == pytest.approx(1.0, rel=1e-14)


@pytest.mark.parametrize("dim", [4, 30])
def test_radius_of_maps_without_a_lasting_direction_is_zero(dim):
    shift = np.eye(dim, k=dim // 2)  # its square is 0
    assert positive_radius(lambda S: 0.0 * S, dim) == 0.0
    assert positive_radius(lambda S: shift @ S @ shift.T, dim) == pytest.approx(0.0, abs=1e-7)


@pytest.mark.parametrize("dim", [3, 30])
def test_radius_of_a_map_that_is_not_finite_is_infinite(dim):
    assert positive_radius(lambda S: np.full((dim, dim), np.inf), dim) == np.inf


def test_radius_is_a_number_that_keeps_its_accuracy():
    found = Radius(0.25, 1e-6, "ARPACK").root(2)
    assert (found, found.error, found.how) == (0.5, 5e-7, "ARPACK")
