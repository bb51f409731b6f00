"""Slow twins straight from the definitions: one round applied to basis vectors, every outcome in turn."""

from __future__ import annotations

import itertools
import math

import numpy as np

from isthmus.lab import IST, Quadratic
from isthmus.lab.arrays import Array


def ist_round(problem: Quadratic, method: IST, diagonals: Array, x: Array) -> Array:
    """One round of IST for drawn diagonals [n, d], by the text of Algorithm 1, at one x [d]."""
    total = np.zeros(problem.dim)
    for L, b, c in zip(problem.L, problem.b, diagonals, strict=True):
        z = c * x
        if math.isinf(method.local_steps):
            held = c > 0
            z[held] = np.linalg.solve(L[np.ix_(held, held)], b[held])
        else:
            for _ in range(int(method.local_steps)):
                z = z - method.stepsize * c * (L @ z - b)
        total += z - c * x if method.merge == "gradient" else z
    return (x if method.merge == "gradient" else 0.0) + total / problem.workers


def affine(problem: Quadratic, method: IST, diagonals: Array) -> tuple[Array, Array]:
    """(J, j) of that round."""
    j = ist_round(problem, method, diagonals, np.zeros(problem.dim))
    J = np.stack([ist_round(problem, method, diagonals, e) - j for e in np.eye(problem.dim)], axis=1)
    return J, j


def exact_gap(
    problem: Quadratic, method: IST, outcomes: list[Array], x0: Array, rounds: int
) -> tuple[Array, Array]:
    """(E x^k [K+1, d], E f(x^k) - f* [K+1]) by the recursion of E[(x,1)(x,1)'] over equally likely outcomes."""
    d = problem.dim
    lifted = np.zeros((len(outcomes), d + 1, d + 1))
    for outcome, diagonals in zip(lifted, outcomes, strict=True):
        outcome[:d, :d], outcome[:d, d] = affine(problem, method, diagonals)
        outcome[d, d] = 1.0
    # moments about x*, so that the gap is not a difference of large numbers
    shift = np.eye(d + 1)
    shift[:d, d] = problem.minimizer
    lifted = np.linalg.inv(shift) @ lifted @ shift
    start = np.append(x0 - problem.minimizer, 1.0)
    M = np.outer(start, start)
    means, gaps = [x0], [0.5 * np.vdot(problem.mean_matrix, M[:d, :d])]
    for _ in range(rounds):
        M = np.mean(lifted @ M @ np.swapaxes(lifted, 1, 2), axis=0)
        means.append(M[:d, d] + problem.minimizer)
        gaps.append(0.5 * np.vdot(problem.mean_matrix, M[:d, :d]))
    return np.stack(means), np.array(gaps)


def dense_round(problem: Quadratic, method: IST, diagonals: Array, x: Array) -> Array:
    """One round of IST for many seeds with dense masks: diagonals [seeds, n, d], x [seeds, d]."""
    return np.stack([ist_round(problem, method, c, point) for c, point in zip(diagonals, x, strict=True)])


def partition_counts(workers: int, dim: int) -> int:
    """How many different ways there are to deal units as evenly as possible, each worker's share mattering."""
    many, few = max(workers, dim), min(workers, dim)
    deals = set()
    for owners in itertools.product(range(few), repeat=many):
        sizes = [owners.count(place) for place in range(few)]
        if max(sizes) - min(sizes) <= 1:
            deals.add(owners)
    return len(deals)
