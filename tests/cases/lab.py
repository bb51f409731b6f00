"""Problems, sketches and exact bounds that the lab's tests run through."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

from cases.laws import Window
from isthmus.lab import (
    IST,
    Bernoulli,
    Dealt,
    Grouped,
    Identity,
    ImportanceSampling,
    Permutation,
    Quadratic,
    RandomSparsification,
    ScaledPermutation,
    Sketch,
    theory,
)
from isthmus.lab.arrays import Array
from isthmus.lab.theory import ExactBound
from isthmus.partitions import Core, Rotated

GRID = [(5, 5), (4, 2), (6, 3), (6, 2), (8, 4)]  # (d, n)


def random_quadratic(workers: int, dim: int, seed: int = 0, biased: bool = True) -> Quadratic:
    """Heterogeneous, well-conditioned on purpose: errors then show rounding, not conditioning."""
    random = np.random.default_rng([seed, workers, dim])
    A = random.standard_normal((workers, dim, dim))
    b = random.standard_normal((workers, dim)) * float(biased)
    return Quadratic(np.einsum("nka,nkb->nab", A, A) + 0.1 * np.eye(dim), b)


def partitions(workers: int, dim: int) -> list[Array]:
    """Every ordered partition of ``dim`` units into ``workers`` equal blocks as 0/1 masks [n, d], from the definition:
    all orders of the units, cut into blocks, each partition kept once."""
    size = dim // workers
    seen: dict[tuple[tuple[int, ...], ...], Array] = {}
    for order in itertools.permutations(range(dim)):
        blocks = tuple(tuple(sorted(order[i * size : (i + 1) * size])) for i in range(workers))
        if blocks not in seen:
            masks = np.zeros((workers, dim))
            for worker, block in enumerate(blocks):
                masks[worker, list(block)] = 1.0
            seen[blocks] = masks
    return list(seen.values())


SCALES: dict[str, Callable[[int], float | None]] = {"n": lambda n: None, "sqrt n": lambda n: n**0.5, "1": lambda n: 1.0}


def permutation(workers: int, dim: int, scale: str) -> Permutation:
    return Permutation(workers, dim, SCALES[scale](workers))


# name: (workers, dim, sketch of a problem); small enough for their whole support
SKETCHES: dict[str, tuple[int, int, Callable[[Quadratic], Sketch]]] = {
    "identity": (3, 4, lambda problem: Identity(3, 4)),
    "perm 5 of 5": (5, 5, lambda problem: Permutation(5, 5)),
    "perm 2 of 4": (2, 4, lambda problem: Permutation(2, 4)),
    "perm 2 of 6, scale 1": (2, 6, lambda problem: Permutation(2, 6, 1.0)),
    "perm 2 of 5": (2, 5, lambda problem: Permutation(2, 5)),
    "perm 3 of 7, sqrt n": (3, 7, lambda problem: Permutation(3, 7, 3**0.5)),
    "perm 1 of 4": (1, 4, lambda problem: Permutation(1, 4)),
    "perm 3 of 2": (3, 2, lambda problem: Permutation(3, 2)),
    "perm 6 of 3": (6, 3, lambda problem: Permutation(6, 3)),
    "scaled": (4, 4, lambda problem: ScaledPermutation(problem)),
    "scaled, homogeneous": (2, 5, lambda problem: ScaledPermutation(problem, homogeneous=True)),
    "grouped": (2, 5, lambda problem: Grouped(Permutation(2, 3), [0, 1, 1, 2, 0])),
    "rand 2 of 3": (3, 3, lambda problem: RandomSparsification(3, 3, 2)),
    "rand 2 of 5": (2, 5, lambda problem: RandomSparsification(2, 5, 2)),
    "rand 1 of 3": (3, 3, lambda problem: RandomSparsification(3, 3, 1)),
    "rand 4 of 4": (2, 4, lambda problem: RandomSparsification(2, 4, 4)),
    "bernoulli": (2, 4, lambda problem: Bernoulli(2, 4, 0.3)),
    "bernoulli, scale 1": (3, 2, lambda problem: Bernoulli(3, 2, 0.7, scale=1.0)),
    "rotated, dealt": (3, 7, lambda problem: Dealt(Rotated(), 3, 7)),
    "rotated, core, dealt": (2, 5, lambda problem: Dealt(Core(Rotated(), 0.4), 2, 5)),
    "window, dealt": (3, 5, lambda problem: Dealt(Window(), 3, 5, seed=1, scale=1.5)),
    "importance": (2, 4, lambda problem: ImportanceSampling(2, [[0.2, 0.9, 0.5, 1.0], [0.7, 0.3, 0.4, 0.6]])),
}


def _gradient_descent(problem: Quadratic, x0: Array, rounds: int, share: float) -> ExactBound:
    return theory.gradient_descent_rate(problem, share * 2 / float(problem.spectrum[-1]), x0, rounds)


def _theorem1(bound: Callable[..., ExactBound]) -> Callable[..., ExactBound]:
    def at(problem: Quadratic, x0: Array, rounds: int, share: float) -> ExactBound:
        n, d = problem.workers, problem.dim
        theta = theory.theorem1(problem, Permutation(n, d)).theta
        return bound(problem, IST(Permutation(n, d), share / theta if np.isfinite(theta) else share), x0, rounds)

    return at


def _sgd(problem: Quadratic, x0: Array, rounds: int, share: float) -> ExactBound:
    sketch = Permutation(problem.workers, problem.dim)
    limit = theory.sgd_rate(problem, IST(sketch, 1e-9), x0, 1).assumptions[0].number
    return theory.sgd_rate(problem, IST(sketch, share * limit), x0, rounds)


def _theorem2(form: str) -> Callable[..., ExactBound]:
    return lambda problem, x0, rounds, share: theory.theorem2(problem, share, x0, rounds, form)


# name: (the theorem, whether it is for b = 0, a bound for (problem, x0, rounds, share of the step size it admits))
BOUNDS: dict[str, tuple[Callable[..., ExactBound], bool, Callable[..., ExactBound]]] = {
    "gradient descent": (theory.gradient_descent_rate, False, _gradient_descent),
    "theorem 1, contraction": (theory.theorem1_contraction, True, _theorem1(theory.theorem1_contraction)),
    "theorem 1, average": (theory.theorem1_average, True, _theorem1(theory.theorem1_average)),
    "SGD on f~": (theory.sgd_rate, False, _sgd),
    "theorem 2, printed": (theory.theorem2, False, _theorem2("printed")),
    "theorem 2, tight": (theory.theorem2, False, _theorem2("tight")),
    "theorem 2, beta-free": (theory.theorem2, False, _theorem2("beta-free")),
}
