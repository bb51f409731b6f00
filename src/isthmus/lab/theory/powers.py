"""The course of a small problem by powers of one matrix: (svec S, svec m m', m, 1) moves linearly from round to round.

With V = keep I + E[H], m m' -> E[x+] E[x+]' and S -> E[x+ x+'] - E[x+] E[x+]' are linear in that vector. Its matrix A
is built once, from E[H X H] of every symmetric unit matrix X; squaring it gives A^2, A^4, ... and with them whole
blocks of rounds by one product each. The covariance S stands beside m m': E[x x'] would lose it where it is small.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np

from isthmus.errors import InvalidInput
from isthmus.lab.arrays import Array
from isthmus.lab.theory.symmetric import basis, matrix_on_svec, smat, svec

BLOCK = 64  # rounds at a time
_MOST_DIM = 40  # A has 1,681 rows then, 23 MB
_MOST_ROWS = 700  # of a matrix that is raised to a power: a second or so
_MOST_TIMES = 1_000  # that a map is applied one by one


class RoundMoments(Protocol):
    """First and second moments of one round x+ = keep x + H x + h."""

    @property
    def keep(self) -> float: ...
    @property
    def mean_matrix(self) -> Array: ...
    @property
    def mean_vector(self) -> Array: ...
    def mean_times(self, S: Array) -> Array: ...
    def sandwich(self, X: Array) -> Array: ...
    def drift(self, m: Array) -> Array: ...
    def noise(self) -> Array: ...


def pays(dim: int, rounds: int) -> bool:
    """Whether the matrix costs less than going round by round.

    Building it takes about as long as d^2/2 rounds, squaring it about as (d/10)^6 (measured for d = 2 to 24).
    """
    return dim <= _MOST_DIM and rounds >= dim**2 + (dim / 10) ** 6


def powered(moments: RoundMoments, x0: Array, rounds: int) -> Iterator[tuple[Array, Array]]:
    """Yield (means [B, d], covariances [B, d, d]) of rounds 0..K; stops before a block that is not finite."""
    first_moments = svec(np.outer(x0, x0))
    p = len(first_moments)
    with np.errstate(over="ignore", invalid="ignore"):
        power = transition(moments, len(x0))
        states = np.concatenate([np.zeros(p), first_moments, x0, [1.0]])[:, None]
        while states.shape[1] < BLOCK:
            states = np.concatenate([states, power @ states], axis=1)
            power = power @ power
        for first in range(0, rounds + 1, BLOCK):
            if first:
                states = power @ states
            if not np.isfinite(states).all():
                return
            kept = states[:, : rounds + 1 - first]
            yield kept[2 * p : -1].T, smat(kept[:p].T)


def transition(moments: RoundMoments, dim: int) -> Array:
    """Return A, [N, N] with N = d(d+1) + d + 1, whose blocks act on svec S, svec m m', m and 1."""
    p = dim * (dim + 1) // 2
    keep, H, h = moments.keep, moments.mean_matrix, moments.mean_vector
    V = keep * np.eye(dim) + H
    A = np.zeros((2 * p + dim + 1, 2 * p + dim + 1))
    S, mm, m, one = slice(0, p), slice(p, 2 * p), slice(2 * p, 2 * p + dim), -1
    for column, X in enumerate(basis(dim)):
        moved = keep * (H @ X)
        linear = keep**2 * X + moved + moved.T
        own, means = moments.sandwich(X), H @ X @ H.T
        A[S, column] = svec(linear + own)
        A[S, p + column] = svec(own - means)
        A[mm, p + column] = svec(linear + means)
    for column, unit in enumerate(np.eye(dim)):
        drift, crossed = moments.drift(unit), np.outer(H[:, column], h)
        A[S, 2 * p + column] = svec(drift - crossed + (drift - crossed).T)
        moved = np.outer(V[:, column], h)
        A[mm, 2 * p + column] = svec(moved + moved.T)
    A[S, one] = svec(moments.noise() - np.outer(h, h))
    A[mm, one] = svec(np.outer(h, h))
    A[m, m], A[m, one], A[one, one] = V, h, 1.0
    return A


def repeated(apply: Callable[[Array], Array], dim: int, times: int, name: str) -> Callable[[Array], Array]:
    """Return ``times`` applications of a linear map of symmetric matrices [dim, dim] as one map.

    Where the matrix of ``apply`` is small it is built and squared, else the map is applied one by one.

    Raises:
        InvalidInput: too often for that; the message names the argument ``name``.

    >>> repeated(lambda S: 0.5 * S, 1, 3, "period")(np.ones((1, 1)))
    array([[0.125]])
    """
    rows = dim * (dim + 1) // 2

    def one_by_one(S: Array) -> Array:
        for _ in range(times):
            S = apply(S)
        return S

    if rows > _MOST_ROWS and times > _MOST_TIMES:
        raise InvalidInput(f"`{name}` must be at most {_MOST_TIMES} for an exact answer at this dimension, got {times}")
    if rows > _MOST_ROWS or times <= rows:
        return one_by_one
    with np.errstate(over="ignore", invalid="ignore"):
        power = np.linalg.matrix_power(matrix_on_svec(apply, dim), times)
    return lambda S: smat(power @ svec(S))
