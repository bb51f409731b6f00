"""Positive semi-definite matrices, judged in their own units.

Coordinates come in different units: a curvature of 1e-10 beside one of 1 may be as real as it. So no test of sign or
rank compares a matrix with its largest entry; each looks at D^{-1/2} M D^{-1/2}, D = Diag(M), whose diagonal is 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from isthmus.lab.arrays import Array, diagonals

RANK = 1e-13  # eigenvalues of that matrix up to RANK times its size and its largest one are rounding
_OUTSIDE = 1e-8


def own_units(matrix: Array, otherwise: Array | None = None) -> tuple[Array, Array]:
    """Return (D^{-1/2} M D^{-1/2}, D^{1/2}), the roots rounded to powers of two, so that nothing is lost.

    Args:
        matrix: M, [..., d, d].
        otherwise: [d], the unit squared of a coordinate whose diagonal entry is not positive; by default the largest
            entry of M, next to which it is a rounding error or a plain negative number.

    >>> own_units(np.array([[1e20, 1e10], [1e10, 4.0]]))[0].round(2)
    array([[1.36, 0.58],
           [0.58, 1.  ]])
    """
    diagonal = diagonals(matrix)
    spare = np.abs(matrix).max(axis=(-2, -1))[..., None] if otherwise is None else otherwise
    size = np.where(diagonal > 0, diagonal, spare)
    units = np.exp2(np.round(0.5 * np.log2(np.where(size > 0, size, 1.0))))
    return np.asarray(matrix / units[..., :, None] / units[..., None, :]), np.asarray(units)


def smallest_relative(matrix: Array, otherwise: Array | None = None) -> float:
    """Return lambda_min of D^{-1/2} M D^{-1/2}: at least -d RANK for a semi-definite M.

    >>> smallest_relative(np.diag([1e13, 1.0])) > 0.5
    True
    """
    return float(linalg.eigvalsh(own_units(matrix, otherwise)[0])[0])


def is_definite(matrix: Array) -> bool:
    """Return whether a semi-definite matrix has full rank, to working precision."""
    return _factor(own_units(matrix)[0]) is not None


def null_space(matrix: Array) -> Array:
    """Return an orthonormal basis of the directions that a symmetric matrix maps to 0, [d, k]."""
    scaled, units = own_units(matrix)
    values, vectors = linalg.eigh(scaled, check_finite=False)
    return _basis(vectors[:, ~_kept(values)], units)


def inverse(matrix: Array) -> Array:
    """Return the inverse of a definite matrix, [d, d]."""
    scaled, units = own_units(matrix)
    found = linalg.cho_solve(linalg.cho_factor(scaled), np.eye(len(matrix)))
    return np.asarray(found / units[:, None] / units)


def solve(matrix: Array, vector: Array) -> Array:
    """Return M^{-1} v for a symmetric matrix; the solution of smallest norm where it is singular.

    >>> solve(np.diag([1e13, 1.0, 0.0]), np.array([1.0, 1.0, 0.0]))
    array([1.e-13, 1.e+00, 0.e+00])
    """
    scaled, units = own_units(matrix)
    factor = _factor(scaled)
    if factor is not None:
        return np.asarray(linalg.cho_solve(factor, vector / units, check_finite=False) / units)
    values, vectors = linalg.eigh(scaled, check_finite=False)
    kept = _kept(values)
    x = vectors[:, kept] @ (vectors[:, kept].T @ (vector / units) / values[kept]) / units
    flat = _basis(vectors[:, ~kept], units)
    return np.asarray(x - flat @ (flat.T @ x))


def is_solvable(matrix: Array, vector: Array) -> bool:
    """Return whether M x = v has a solution for a symmetric M: always where it is definite."""
    scaled, units = own_units(matrix)
    if _factor(scaled) is not None:
        return True
    values, vectors = linalg.eigh(scaled, check_finite=False)
    turned = vectors.T @ (vector / units)
    missed = np.abs(turned[~_kept(values)]).max(initial=0.0)
    return bool(missed <= _OUTSIDE * np.abs(turned).max(initial=0.0))


def _kept(values: Array) -> NDArray[np.bool_]:
    size = np.abs(values)
    return np.asarray(size > RANK * len(values) * size.max(initial=0.0), dtype=np.bool_)


def _basis(directions: Array, units: Array) -> Array:
    turned = directions / units[:, None]
    return np.asarray(linalg.qr(turned / np.abs(turned).max(axis=0, initial=0.0), mode="economic")[0])


def _factor(scaled: Array) -> tuple[Array, bool] | None:
    """The Cholesky factor of a definite matrix in its own units, None of another."""
    try:
        factor = linalg.cho_factor(scaled, check_finite=False)
    except linalg.LinAlgError:
        return None
    pivots = np.diagonal(factor[0])
    return None if pivots.min() ** 2 <= RANK * len(scaled) * pivots.max() ** 2 else factor


def largest_relative(matrix: Array, base: Array) -> float:
    """Return the smallest theta with matrix <= theta base, both positive semi-definite; inf where there is none.

    >>> largest_relative(np.diag([8.0, 0.0]), np.diag([4.0, 0.0])), largest_relative(np.eye(2), np.diag([4.0, 0.0]))
    (2.0, inf)
    """
    scaled, units = own_units(base)
    values, vectors = linalg.eigh(scaled)
    kept = values > RANK * len(values) * max(values[-1], 0.0)
    rotated = vectors.T @ (matrix / units[:, None] / units) @ vectors
    outside = float(np.abs(np.diagonal(rotated)[~kept]).max(initial=0.0))
    if outside > _OUTSIDE * float(np.abs(rotated).max()):
        return np.inf
    root = 1.0 / np.sqrt(values[kept])
    inner = root[:, None] * rotated[np.ix_(kept, kept)] * root
    return float(linalg.eigvalsh(inner)[-1]) if kept.any() else 0.0
