"""One round of a linear method as a random affine map, the form every exact result starts from.

x+ = keep * x + H x + h,   H = (1/n) sum_i P_i G_i P_i,   h = (1/n) sum_i P_i g_i

with random 0/1 masks P_i and fixed symmetric G_i. Method (2) has keep = 1, G_i = -gamma W_i L_i W_i; Algorithm 1 has
keep = 0, G_i = W_i - gamma W_i L_i W_i; both g_i = gamma W_i b_i, where C_i = W_i P_i.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isthmus.lab.arrays import Array
from isthmus.lab.methods import IST, GradientDescent, Method
from isthmus.lab.methods.ist import check_fits
from isthmus.lab.methods.local_steps import local_gains
from isthmus.lab.quadratics import Quadratic
from isthmus.lab.sketches import Identity, Masks, Sketch


@dataclass(frozen=True, eq=False)
class AffineUpdate:
    """x+ = keep x + mean_i P_i (G_i x + g_i), G_i = Diag(shift_i) + factor Diag(w_i) L_i Diag(w_i), P_i on both sides.

    Where a worker never holds two units only the diagonals of the G_i act, and ``shift`` alone holds them.

    Attributes:
        masks: joint law of the P_i.
        keep: share of x that stays whatever is drawn.
        shift: [n, d].
        factor: 0 where ``shift`` holds everything.
        weights: w, a number, [d] or [n, d].
        matrices: L, [n, d, d].
        mean_matrix: Lbar, for means that need no pass over L.
        vectors: g, [n, d].
    """

    masks: Masks
    keep: float
    shift: Array
    factor: float
    weights: Array | float
    matrices: Array
    mean_matrix: Array
    vectors: Array

    @property
    def workers(self) -> int:
        """Number of workers n."""
        return len(self.vectors)

    @property
    def dim(self) -> int:
        """Number of coordinates d."""
        return int(self.vectors.shape[1])

    @property
    def equal(self) -> bool:
        """Whether all workers have the same G_i, so that one pass serves for all."""
        rows = (self.shift, self.vectors, np.atleast_1d(self.weights))
        one = [array.ndim < 2 or array.strides[0] == 0 or len(array) == 1 for array in rows[::2]]
        return all(one) and (self.matrices.strides[0] == 0 or self.workers == 1 or self.factor == 0)

    def matrix(self, worker: int, out: Array | None = None) -> Array:
        """Return G_i, [d, d], in ``out`` if given."""
        w = self.weights[worker] if np.ndim(self.weights) == 2 else self.weights  # type: ignore[index]
        if np.ndim(w) == 0:
            result = np.multiply(self.matrices[worker], self.factor * np.square(w), out=out)
        else:
            result = np.multiply(self.matrices[worker], self.factor * np.asarray(w), out=out)
            result *= np.asarray(w)[:, None]
        result[np.diag_indices(self.dim)] += self.shift[worker]
        return result

    def total(self, out: Array | None = None) -> Array:
        """Return sum_i G_i, [d, d]; without a pass over L where the weights are one number or one vector."""
        if np.ndim(self.weights) == 2 and self.factor:
            result = self.matrix(0, out=out)
            for worker in range(1, self.workers):
                result += self.matrix(worker)
            return result
        w = np.asarray(self.weights)
        factor = self.workers * self.factor
        result = np.multiply(self.mean_matrix, factor * w**2 if w.ndim == 0 else factor * w, out=out)
        if w.ndim:
            result *= w[:, None]
        result[np.diag_indices(self.dim)] += self.shift.sum(axis=0)
        return np.asarray(result)


def affine_update(problem: Quadratic, method: Method) -> AffineUpdate | None:
    """Return one round as an :class:`AffineUpdate`, or None where it is not one.

    None means: a sketch whose masks' law is not known, a method the theory does not cover, or several local steps on
    blocks of more than one unit (the local map is then not P G P with one G).
    """
    if isinstance(method, GradientDescent):
        method = IST(Identity(problem.workers, problem.dim), method.stepsize)
    if not isinstance(method, IST):
        return None
    check_fits(problem, method.sketch)
    masks = method.sketch.masks
    if masks is None or (method.local_steps != 1 and not masks.single_unit):
        return None
    return _of_ist(problem, method, masks)


def sketched_matrix_update(problem: Quadratic, sketch: Sketch) -> AffineUpdate | None:
    """Return the update whose H is B = (1/n) sum_i C_i L_i C_i, or None where the masks' law is not known."""
    check_fits(problem, sketch)
    if sketch.masks is None:
        return None
    zeros = np.broadcast_to(0.0, problem.b.shape)
    vectors = np.asarray(sketch.weights * problem.b)
    return AffineUpdate(sketch.masks, 0.0, zeros, 1.0, sketch.weights, problem.L, problem.mean_matrix, vectors)


def _of_ist(problem: Quadratic, method: IST, masks: Masks) -> AffineUpdate:
    w = method.sketch.weights
    whole = np.broadcast_to(w, problem.b.shape)
    keep = 1.0 if method.merge == "gradient" else 0.0
    if masks.single_unit:
        curvature = whole * problem.diagonals
        decay, gain = local_gains(curvature, method.stepsize, method.local_steps)
        shift = whole * (-curvature * gain if keep else decay)  # decay - 1 = -k gain, without losing small steps
        return AffineUpdate(masks, keep, shift, 0.0, 1.0, problem.L, problem.mean_matrix, gain * whole * problem.b)
    shift = np.broadcast_to(0.0, whole.shape) if keep else whole
    vectors = method.stepsize * whole * problem.b
    return AffineUpdate(masks, keep, shift, -method.stepsize, w, problem.L, problem.mean_matrix, vectors)
