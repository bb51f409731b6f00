"""The lab's problem: n quadratics over d coordinates, one a worker."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike
from scipy import linalg

from isthmus.data import over_workers
from isthmus.errors import InvalidInput, check_integer, check_number
from isthmus.lab.arrays import Array, check_array, diagonals, or_infinite
from isthmus.lab.definite import is_definite, is_solvable, own_units, solve
from isthmus.randomness import generator

_SYMMETRY = 1e-10
_INDEFINITE = 1e-9
_EXTREME = 100  # binary orders of magnitude of f beyond which products of three matrices leave the numbers' range


@dataclass(frozen=True, eq=False)
class Quadratic:
    """n quadratics, one a worker, and their mean f.

    f(x) = (1/n) sum_i f_i(x),  f_i(x) = x' L_i x / 2 - b_i' x.

    Attributes:
        L: [n, d, d] symmetric positive semi-definite. Equal workers may share memory (``np.broadcast_to``); the lab
            then works once for all of them.
        b: [n, d].

    Raises:
        InvalidInput: wrong shapes, values that are not finite, an L_i that is not symmetric or not positive
            semi-definite (its smallest eigenvalue is named), or an f that is unbounded below.

    >>> problem = Quadratic([[[2.0]], [[6.0]]], [[3.0], [5.0]])
    >>> problem.minimizer, problem.optimal_value
    (array([1.]), -2.0)
    """

    L: Array
    b: Array

    def __init__(self, L: ArrayLike, b: ArrayLike) -> None:
        matrices = check_array("L", L, "n", "d", "d")
        if matrices.shape[1] != matrices.shape[2] or matrices.size == 0:
            raise InvalidInput(f"`L` must have shape [n, d, d] with n and d at least 1, got {list(matrices.shape)}")
        object.__setattr__(self, "L", matrices)
        object.__setattr__(self, "b", check_array("b", b, *matrices.shape[:2]))
        for worker in range(1 if self.homogeneous_matrices else self.workers):
            _check_symmetric(worker, matrices[worker])
            _check_semidefinite(worker, matrices[worker])
        self._check_bounded_below()

    @classmethod
    def gaussian(cls, workers: int, dim: int, seed: int, homogeneous: bool = False) -> Quadratic:
        """Return L_i = A_i' A_i with standard normal A_i [d, d] and b_i [d]; ``homogeneous`` gives all workers one.

        Raises:
            InvalidInput: fewer than one worker or coordinate.
        """
        check_integer("workers", workers, at_least=1)
        check_integer("dim", dim, at_least=1)
        L, b = [], []
        for worker in range(1 if homogeneous else workers):
            random = generator(seed, "quadratic/gaussian", worker=worker)
            factor = random.standard_normal((dim, dim))
            L.append(factor.T @ factor)
            b.append(random.standard_normal(dim))
        if homogeneous:
            return cls._trusted(np.broadcast_to(L[0], (workers, dim, dim)), np.broadcast_to(b[0], (workers, dim)))
        return cls._trusted(np.stack(L), np.stack(b))

    @classmethod
    def least_squares(
        cls, features: ArrayLike, targets: ArrayLike, workers: int, seed: int = 0, ridge: float = 0.0
    ) -> Quadratic:
        """Return least squares on real data, its samples dealt to the workers at random in equal shares.

        f_i(x) = |A_i x - y_i|^2 / (2 m_i) + (ridge/2) |x|^2:  L_i = A_i' A_i / m_i + ridge I,  b_i = A_i' y_i / m_i.
        Nothing is centred or scaled here.

        Args:
            features: [m, d].
            targets: [m].
            workers: n, at most m.
            seed: of the deal.
            ridge: at least 0.

        Raises:
            InvalidInput: shapes that do not match, more workers than samples, or a negative ridge.
        """
        A = check_array("features", features, "m", "d")
        y = check_array("targets", targets, len(A))
        check_number("ridge", ridge, at_least=0.0)
        L, b = [], []
        for share in over_workers(np.asarray(y), workers, seed):
            part = A[share]
            L.append(part.T @ part / len(share) + ridge * np.eye(A.shape[1]))
            b.append(part.T @ y[share] / len(share))
        return cls._trusted(np.stack(L), np.stack(b))

    @classmethod
    def multi_output(cls, features: ArrayLike, targets: ArrayLike, workers: int, ridge: float = 0.0) -> Quadratic:
        """Return least squares with several outputs on data that all workers have.

        f_i(W) = |A W - Y|^2 / (2 m) + (ridge/2) |W|^2:  L_i = G x I, G = A' A / m + ridge I,  b_i = A' Y / m. The
        coordinate of input a and output v is the number a V + v.

        Args:
            features: A, [m, p].
            targets: Y, [m, V].
            workers: n.
            ridge: at least 0.

        Raises:
            InvalidInput: shapes that do not match, fewer than one worker, or a negative ridge.
        """
        A = check_array("features", features, "m", "p")
        Y = check_array("targets", targets, len(A), "V")
        check_integer("workers", workers, at_least=1)
        check_number("ridge", ridge, at_least=0.0)
        L = np.kron(A.T @ A / len(A) + ridge * np.eye(A.shape[1]), np.eye(Y.shape[1]))
        b = (A.T @ Y / len(A)).ravel()
        return cls._trusted(np.broadcast_to(L, (workers, *L.shape)), np.broadcast_to(b, (workers, len(b))))

    @classmethod
    def _trusted(cls, L: Array, b: Array) -> Quadratic:
        """Build without the checks, for matrices that are Gram matrices by construction."""
        problem = object.__new__(cls)
        for name, array in (("L", L), ("b", b)):
            view = array.view()
            view.flags.writeable = False
            object.__setattr__(problem, name, view)
        return problem

    @property
    def workers(self) -> int:
        """Number of workers n."""
        return int(self.b.shape[0])

    @property
    def dim(self) -> int:
        """Number of coordinates d."""
        return int(self.b.shape[1])

    @property
    def homogeneous_matrices(self) -> bool:
        """Whether all L_i are one and the same array (or there is one worker)."""
        return self.workers == 1 or self.L.strides[0] == 0

    @cached_property
    def mean_matrix(self) -> Array:
        """Lbar = (1/n) sum_i L_i, [d, d]."""
        return np.array(self.L[0]) if self.homogeneous_matrices else self.L.mean(axis=0)

    @cached_property
    def mean_vector(self) -> Array:
        """bbar = (1/n) sum_i b_i, [d]."""
        return np.asarray(self.b.mean(axis=0))

    @cached_property
    def diagonals(self) -> Array:
        """The diagonals of the L_i, [n, d]."""
        if self.homogeneous_matrices:
            return np.broadcast_to(diagonals(self.L[0]).copy(), self.b.shape)
        return diagonals(self.L).copy()

    @cached_property
    def spectrum(self) -> Array:
        """Eigenvalues of Lbar, ascending, [d]."""
        return np.asarray(linalg.eigvalsh(self.mean_matrix))

    @cached_property
    def singular(self) -> bool:
        """Whether Lbar is singular to working precision: f then has many minimisers, ``minimizer`` the shortest."""
        return not is_definite(self.mean_matrix)

    @cached_property
    def in_unit_scale(self) -> tuple[Quadratic, float]:
        """(f/c, c) with a power of two c: 1 for usual f, the scale of f where powers of it would over- or underflow."""
        order = np.log2(max(float(self.diagonals.max()), np.finfo(np.float64).tiny))
        if abs(order) < _EXTREME:
            return self, 1.0
        c = float(np.exp2(np.round(order)))
        shared = self.homogeneous_matrices
        L = np.broadcast_to(self.L[0] / c, self.L.shape) if shared else self.L / c
        return Quadratic._trusted(L, self.b / c), c

    @cached_property
    def minimizer(self) -> Array:
        """x* = Lbar^{-1} bbar, [d]; the one of smallest norm where Lbar is singular."""
        return solve(self.mean_matrix, self.mean_vector)

    @cached_property
    def optimal_value(self) -> float:
        """f* = f(x*) = -bbar' x* / 2."""
        return -0.5 * float(self.mean_vector @ self.minimizer)

    def value(self, x: ArrayLike) -> Array | float:
        """Return f at one point [d] (a float) or at many [..., d]."""
        points = np.asarray(x, dtype=np.float64)
        values = 0.5 * np.sum(points * (points @ self.mean_matrix), axis=-1) - points @ self.mean_vector
        return float(values) if points.ndim == 1 else np.asarray(values)

    def gradient(self, x: ArrayLike) -> Array:
        """Return Lbar x - bbar at one point [d] or at many [..., d]."""
        return np.asarray(np.asarray(x, dtype=np.float64) @ self.mean_matrix - self.mean_vector)

    def worker_gradients(self, x: Array) -> Array:
        """Return L_i x_i - b_i, [seeds, n, d], at one point a seed [seeds, d] or one a worker [seeds, n, d]."""
        if x.ndim == 2 and self.homogeneous_matrices:
            return np.asarray((x @ self.L[0])[:, None] - self.b)
        products = np.matmul(x[None] if x.ndim == 2 else x.transpose(1, 0, 2), self.L)
        products -= self.b[:, None]
        return products.transpose(1, 0, 2)

    def gap(self, x: ArrayLike) -> Array:
        """Return f(x) - f* = |x - x*|^2_Lbar / 2 at [..., d]; free of the cancellation of f(x) - f*."""
        error = np.asarray(x, dtype=np.float64) - self.minimizer
        found = np.asarray(0.5 * np.sum(error * (error @ self.mean_matrix), axis=-1))
        if np.isnan(found).any():  # of finite errors: infinities of both signs
            found = np.where(np.isfinite(error).all(axis=-1), or_infinite(found), found)
        return found

    def _check_bounded_below(self) -> None:
        if not is_solvable(self.mean_matrix, self.mean_vector):
            raise InvalidInput(
                "`b` must have its mean in the range of the mean of `L`, got a mean matrix that is singular "
                "along it: f is unbounded below"
            )


def _check_symmetric(worker: int, matrix: Array) -> None:
    size = np.sqrt(np.abs(np.diagonal(matrix)))
    gap = np.abs(matrix - matrix.T)
    if (gap > _SYMMETRY * np.maximum(size[:, None] * size, np.abs(matrix))).any():
        a, b = np.unravel_index(int(gap.argmax()), gap.shape)
        raise InvalidInput(
            f"`L[{worker}]` must be symmetric, got {matrix[a, b]:g} at [{a}, {b}] and {matrix[b, a]:g} at [{b}, {a}]"
        )


def _check_semidefinite(worker: int, matrix: Array) -> None:
    scaled = own_units(matrix)[0]
    try:
        linalg.cholesky(scaled + 0.1 * _INDEFINITE * np.eye(len(matrix)), check_finite=False)
    except linalg.LinAlgError:
        if float(linalg.eigvalsh(scaled)[0]) < -_INDEFINITE:
            smallest = float(linalg.eigvalsh(matrix)[0])
            raise InvalidInput(
                f"`L[{worker}]` must be positive semi-definite, got smallest eigenvalue {smallest:.3g}"
            ) from None
