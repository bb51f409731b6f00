"""Quadratics with a chosen spectrum and a dial for how much the workers differ."""

from __future__ import annotations

import numpy as np

from isthmus.errors import check_integer, check_number
from isthmus.lab.arrays import Array
from isthmus.lab.quadratics import Quadratic
from isthmus.randomness import generator


def random_quadratic(
    workers: int, dim: int, condition_number: float, heterogeneity: float, seed: int, shared_minimizer: bool = False
) -> Quadratic:
    """Return a quadratic whose L_i go from one matrix to independent ones as ``heterogeneity`` goes from 0 to 1.

    L_i = (1 - h) M_0 + h M_i with independent M of eigenvalues spread geometrically over [1, condition_number] in
    random directions, so every L_i, and Lbar, has its spectrum within these ends; b_i likewise, (1 - h) c_0 + h c_i of
    standard normal c.

    Args:
        workers: n.
        dim: d.
        condition_number: at least 1.
        heterogeneity: h in [0, 1].
        seed: of the draws.
        shared_minimizer: b_i = L_i x for one standard normal x instead: all grad f_i(x*) are 0.

    Raises:
        InvalidInput: a value breaks its rule.

    >>> from isthmus.lab.problems import constants
    >>> constants(random_quadratic(3, 4, 10.0, 0.0, seed=0)).L_pm < 1e-6
    True
    """
    check_integer("workers", workers, at_least=1)
    check_integer("dim", dim, at_least=1)
    check_number("condition_number", condition_number, at_least=1.0)
    h = check_number("heterogeneity", heterogeneity, at_least=0.0, at_most=1.0)
    L0, b0 = _part(dim, condition_number, seed, 0)
    parts = [_part(dim, condition_number, seed, 1 + worker) for worker in range(workers)]
    L = np.stack([(1.0 - h) * L0 + h * Li for Li, _ in parts])
    b = np.stack([(1.0 - h) * b0 + h * bi for _, bi in parts])
    return Quadratic(L, L @ b0 if shared_minimizer else b)


def _part(dim: int, condition_number: float, seed: int, worker: int) -> tuple[Array, Array]:
    random = generator(seed, "quadratic/random", worker=worker)
    directions = np.linalg.qr(random.standard_normal((dim, dim)))[0]
    values = np.geomspace(1.0, condition_number, dim)
    matrix = (directions * values) @ directions.T
    return 0.5 * (matrix + matrix.T), random.standard_normal(dim)
