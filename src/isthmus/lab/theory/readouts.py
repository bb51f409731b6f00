"""The objective IST really minimises, the ways to read its model, and what more local steps do to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isthmus.errors import InvalidInput
from isthmus.lab.arrays import Array
from isthmus.lab.definite import solve
from isthmus.lab.methods import IST
from isthmus.lab.quadratics import Quadratic
from isthmus.lab.sketches import Sketch, as_sketch
from isthmus.lab.theory.moments import Moments, same_worker
from isthmus.lab.theory.update import sketched_matrix_update


def sketched_objective(problem: Quadratic, sketch: Sketch) -> Quadratic:
    """Return f~(x) = E mean_i f_i(C_i x) as a quadratic of one worker; IST's fixed point is its minimiser.

    Matrix E[B], vector (1/n) sum_i E[C_i] b_i. For one local step merged by gradients IST is exactly SGD on f~: the
    bias is the distance between the minimisers of f~ and f, and no step size removes it.

    Raises:
        InvalidInput: the sketch's moments are not known in closed form.

    Reference:
        Demidovich et al., MAST (arXiv 2311.16086): training of sketched models.

    >>> from isthmus.lab import Permutation
    >>> problem = Quadratic([[[2.0, 1.0], [1.0, 2.0]]] * 2, [[2.0, 4.0]] * 2)
    >>> sketched_objective(problem, Permutation(2, 2)).minimizer
    array([0.5, 1. ])
    """
    update = sketched_matrix_update(problem, as_sketch(sketch))
    if update is None:
        raise InvalidInput(f"`sketch` must have known moments, got {type(sketch).__name__}, known by its samples only")
    moments = Moments(update)
    return Quadratic(moments.mean_matrix[None], moments.mean_vector[None])


@dataclass(frozen=True, eq=False)
class Readouts:
    """Three ways to read the model y that workers train without scaling.

    Attributes:
        plain: y, the merged model as it is.
        averaged: y/n, the fixed point of the unbiased method.
        searched: c y with c = bbar'y / (y' Lbar y), one line search on the merged model; never worse than the others.
        scale: that c.
        gaps: f - f* of the three, in this order.
    """

    plain: Array
    averaged: Array
    searched: Array
    scale: float
    gaps: tuple[float, float, float]


def readouts(problem: Quadratic, y: Array) -> Readouts:
    """Return y, y/n and c y with their gaps.

    >>> problem = Quadratic([[[1.0]]], [[3.0]])
    >>> readouts(problem, np.array([2.0])).searched
    array([3.])
    """
    curvature = float(y @ problem.mean_matrix @ y)
    scale = float(problem.mean_vector @ y) / curvature if curvature > 0 else 0.0
    points = (y, y / problem.workers, scale * y)
    first, second, third = (float(problem.gap(point)) for point in points)
    return Readouts(*points, scale, (first, second, third))


def first_order_fixed_point(problem: Quadratic, method: IST) -> Array:
    """Return the fixed point for T local steps to first order in s gamma (T - 1), partitions of equal size, n <= d.

    s x_inf = y_1 + (s gamma (T-1)/2) G^{-1} v + O((s gamma T)^2),  G = Diag(Lbar) + rho off(Lbar),  y_1 = G^{-1} bbar,
    v = sum_i E[P L_i P L_i P] y_1 - sum_i E[P L_i P] b_i.

    Raises:
        InvalidInput: a sketch that is not a partition with one scale.
    """
    masks = method.sketch.masks
    if masks is None or masks.between is None or masks.shared or np.ndim(method.sketch.weights):
        raise InvalidInput("`method.sketch` must be a permutation sketch with n <= d and one scale")
    s, n = float(method.sketch.weights), problem.workers
    G = n * masks.second_moment(problem.mean_matrix, 0)
    y = solve(G, problem.mean_vector)
    v = np.zeros(problem.dim)
    for L, b in zip(problem.L, problem.b, strict=True):
        v += same_worker(L, np.eye(problem.dim), masks) @ y - masks.second_moment(L, 0) @ b
    shift = 0.5 * s * method.stepsize * (method.local_steps - 1)
    return (y + shift * solve(G, v)) / s
