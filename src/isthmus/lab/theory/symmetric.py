"""Symmetric matrices as vectors that have the same inner products, and linear maps of the ones as maps of the others.

svec S lists the upper entries of S row by row, those off the diagonal times sqrt 2: <S, T> = svec S . svec T, so a map
that is self-adjoint stays so.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from isthmus.lab.arrays import Array

Places = NDArray[np.intp]


@lru_cache(maxsize=32)
def _entries(dim: int) -> tuple[Places, Places, Array, Places]:
    """Rows and columns of the upper entries, their weights, and for every entry its place in svec."""
    rows, columns = np.triu_indices(dim)
    place = np.empty((dim, dim), dtype=np.intp)
    place[rows, columns] = place[columns, rows] = np.arange(len(rows))
    return rows, columns, np.where(rows == columns, 1.0, math.sqrt(2.0)), place


def svec(S: Array) -> Array:
    """Return svec of symmetric matrices, [..., d, d] to [..., d(d+1)/2].

    >>> svec(np.array([[1.0, 2.0], [2.0, 3.0]])) ** 2
    array([1., 8., 9.])
    """
    rows, columns, weights, _ = _entries(S.shape[-1])
    return np.asarray(S[..., rows, columns] * weights)


def smat(vector: Array) -> Array:
    """Return the matrices that :func:`svec` makes the vectors of, [..., d(d+1)/2] to [..., d, d].

    >>> smat(np.array([1.0, 0.0, 3.0]))
    array([[1., 0.],
           [0., 3.]])
    """
    *_, weights, place = _entries((math.isqrt(8 * vector.shape[-1] + 1) - 1) // 2)
    return np.asarray((vector / weights)[..., place])


def on_svec(apply: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """Return the map of vectors that a linear map of symmetric matrices is."""
    return lambda vector: svec(apply(smat(vector)))


def basis(dim: int) -> Array:
    """Return the symmetric matrices whose svec are the unit vectors, [d(d+1)/2, d, d]."""
    return smat(np.eye(dim * (dim + 1) // 2))


def matrix_on_svec(apply: Callable[[Array], Array], dim: int) -> Array:
    """Return the matrix of that map, [d(d+1)/2, d(d+1)/2].

    >>> matrix_on_svec(lambda S: 0.5 * S, 2)
    array([[0.5, 0. , 0. ],
           [0. , 0.5, 0. ],
           [0. , 0. , 0.5]])
    """
    return np.stack([svec(apply(S)) for S in basis(dim)], axis=1)
