"""The spectral radius of a linear map, and how far it can be trusted.

Powers of a map do not give it: where the largest eigenvalues are complex, growth oscillates for ever.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import linalg
from scipy.sparse.linalg import ArpackError, ArpackNoConvergence, LinearOperator, eigs

from isthmus.lab.arrays import Array
from isthmus.lab.theory.symmetric import on_svec, svec
from isthmus.randomness import generator

DENSE_UP_TO = 300  # length of the vectors a map takes, up to which its matrix is built
_EPS = float(np.finfo(np.float64).eps)
_KRYLOV = (40, 120)  # dimensions of ARPACK's subspace, the next one tried where the last does not converge
_GOOD = 1e-10
_SAFETY = 10.0
_POWERS = 2000


class Radius(float):
    """A spectral radius, a number like any other, that knows its accuracy.

    Attributes:
        error: relative error reached. Dense: ten times what the value moves by when the matrix is changed in its last
            digit (a double root costs half of the digits). ARPACK: the residual |A v - lambda v| / |lambda|, which
            bounds the error where the map is self-adjoint (elsewhere a map that close has this radius), and at least
            the map's own rounding. Powers: how far they have settled.
        how: "dense", "ARPACK", or "powers" where neither gives an eigenvector.
    """

    error: float
    how: str

    def __new__(cls, value: float, error: float = 0.0, how: str = "dense") -> Radius:
        """Keep the number and what is known of it."""
        made = super().__new__(cls, value)
        made.error, made.how = float(error), how
        return made

    def root(self, rounds: float) -> Radius:
        """Return the factor per round of a map that is ``rounds`` rounds."""
        return Radius(float(self) ** (1.0 / rounds), self.error / rounds, self.how)

    @property
    def squared(self) -> Radius:
        """Its square: that of S -> J S J', where this is J's."""
        return Radius(float(self) * float(self), 2.0 * self.error, self.how)


def operator_radius(apply: Callable[[Array], Array], size: int) -> Radius:
    """Return the spectral radius of a linear map of vectors [size] to vectors [size].

    Its matrix is built up to size 300; beyond that ARPACK finds the six largest eigenvalues in absolute value.

    >>> operator_radius(lambda x: np.array([[0.0, -0.5], [0.5, 0.0]]) @ x, 2)
    0.5
    """
    start = generator(0, "spectrum/start").standard_normal(size)
    return _radius(apply, size, start, "LM", 6)


def positive_radius(apply: Callable[[Array], Array], dim: int) -> Radius:
    """Return the spectral radius of a linear map of symmetric matrices [dim, dim] that keeps them semi-definite.

    By Perron and Frobenius it is an eigenvalue itself, so no other has a larger real part, and the identity, inside
    the cone, is never orthogonal to its eigenvector: ARPACK has one eigenvalue to find, from a start that sees it.

    >>> positive_radius(lambda S: 0.25 * S, 3)
    0.25
    """
    start = svec(np.eye(dim))
    return _radius(on_svec(apply), len(start), start, "LR", 1)


def _radius(apply: Callable[[Array], Array], size: int, start: Array, which: str, count: int) -> Radius:
    if size <= DENSE_UP_TO:
        return matrix_radius(np.stack([apply(unit) for unit in np.eye(size)], axis=1))
    if not np.isfinite(apply(start)).all():
        return Radius(np.inf, 0.0, "ARPACK")
    operator = LinearOperator((size, size), matvec=apply, dtype=np.float64)
    best = Radius(np.nan, np.inf, "ARPACK")
    for krylov in _KRYLOV:
        try:
            values, vectors = eigs(operator, k=count, which=which, v0=start, ncv=krylov, tol=1e-12, maxiter=20)
        except ArpackNoConvergence as error:
            values, vectors = error.eigenvalues, error.eigenvectors
        except ArpackError:  # the start is mapped to 0
            break
        if len(values):
            found = _checked(apply, values, vectors)
            best = found if found.error < best.error else best
        if best.error <= _GOOD:
            return best
    other = _by_powers(apply, start)
    return other if other.error < best.error else best


def matrix_radius(matrix: Array) -> Radius:
    """Return the spectral radius of a matrix, by all its eigenvalues; infinite where an entry is not finite.

    >>> matrix_radius(np.array([[0.0, -0.5], [0.5, 0.0]]))
    0.5
    """
    if not np.isfinite(matrix).all():
        return Radius(np.inf)
    unit = float(np.abs(matrix).max(initial=0.0))
    if unit == 0.0:
        return Radius(0.0)
    matrix = matrix / unit  # LAPACK's own scaling goes wrong beyond 1e138
    shaken = matrix + _EPS * generator(0, "spectrum/last_digits").standard_normal(matrix.shape)
    value, other = (float(np.abs(np.linalg.eigvals(one)).max()) for one in (matrix, shaken))
    return Radius(value * unit, max(_SAFETY * abs(value - other) / value, _EPS) if value > 0 else np.inf)


def _checked(apply: Callable[[Array], Array], values: Array, vectors: Array) -> Radius:
    at = int(np.abs(values).argmax())
    value, vector = values[at], vectors[:, at]
    moved = apply(vector.real) + 1j * apply(vector.imag)
    size = float(np.abs(value))
    left = float(linalg.norm(moved - value * vector) / linalg.norm(vector))
    rounding = 2.0 * _EPS * np.sqrt(len(vector))  # of the map itself, which its own residual does not see
    return Radius(size, max(left / size, rounding) if size > 0 else np.inf, "ARPACK")


def _by_powers(apply: Callable[[Array], Array], start: Array) -> Radius:
    """Gelfand's limit |A^k|^(1/k), for maps that leave nothing to find an eigenvector in: 0 where a power is 0."""
    vector, logs = start / linalg.norm(start), []
    for _ in range(_POWERS):
        vector = apply(vector)
        size = float(linalg.norm(vector))
        if size == 0.0:
            return Radius(0.0, 0.0, "powers")
        if not np.isfinite(size):
            return Radius(np.inf, 0.0, "powers")
        logs.append(np.log(size))
        vector = vector / size
    late, before = np.mean(logs[_POWERS // 2 :]), np.mean(logs[_POWERS // 4 : _POWERS // 2])
    return Radius(float(np.exp(late)), float(abs(np.expm1(late - before))), "powers")
