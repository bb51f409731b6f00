"""Logistic regression on data split over workers, with a convex or a non-convex regulariser."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike
from scipy import linalg

from isthmus.errors import check_choice, check_number
from isthmus.lab.arrays import Array
from isthmus.lab.problems.samples import Samples

REGULARIZERS = ("l2", "nonconvex")
_NEWTON_STEPS = 100


@dataclass(frozen=True, eq=False)
class Logistic:
    """f_i(x) = (1/m_i) sum_j log(1 + exp(-y_ij a_ij'x)) + r(x).

    r(x) = (ridge/2)|x|^2 ("l2"), or ridge sum_j x_j^2/(1 + x_j^2) ("nonconvex", smooth with constant 2 ridge).

    Args:
        samples: data on the workers, targets -1 or 1.
        ridge: above 0, so that "l2" has one minimiser.
        regularizer: "l2" or "nonconvex".

    Raises:
        InvalidInput: targets that are not -1 or 1, a ridge that is not positive, or an unknown regulariser.
    """

    samples: Samples
    ridge: float
    regularizer: str = "l2"

    def __post_init__(self) -> None:
        self.samples.check_signs()
        check_number("ridge", self.ridge, above=0.0)
        check_choice("regularizer", self.regularizer, REGULARIZERS)

    @property
    def workers(self) -> int:
        """Number of workers n."""
        return self.samples.workers

    @property
    def dim(self) -> int:
        """Number of coordinates d."""
        return self.samples.dim

    @property
    def rows(self) -> float:
        """Samples a worker has, on average."""
        return float(self.samples.counts.mean())

    @property
    def convex(self) -> bool:
        """Whether f is convex (and then strongly)."""
        return self.regularizer == "l2"

    def loss_slope(self, predictions: Array, targets: Array) -> Array:
        """Derivative of log(1 + exp(-y p)) in p."""
        return -targets * _expit(-targets * predictions)

    def regularizer_gradient(self, x: Array) -> Array:
        """Gradient of r."""
        return self.ridge * x if self.convex else 2.0 * self.ridge * x / (1.0 + x * x) ** 2

    def value(self, x: ArrayLike) -> Array:
        """Return f at [..., d]."""
        points = np.asarray(x, dtype=np.float64)
        flat = points.reshape(-1, self.dim)
        margins = self._predictions(flat) * self.samples.targets[:, None, :]
        losses = np.einsum("nm,nsm->s", self.samples.weights, np.logaddexp(0.0, -margins)) / self.workers
        squares = flat * flat
        penalty = 0.5 * squares if self.convex else squares / (1.0 + squares)
        return np.asarray(losses + self.ridge * penalty.sum(axis=1)).reshape(points.shape[:-1])

    def gap(self, x: ArrayLike) -> Array:
        """Return f - f*; for the non-convex regulariser f itself, 0 being the lower bound that is known."""
        return self.value(x) - self.optimal_value

    def gradient(self, x: ArrayLike) -> Array:
        """Return grad f at [..., d]."""
        points = np.asarray(x, dtype=np.float64)
        flat = points.reshape(-1, self.dim)
        return np.asarray(self.worker_gradients(flat).mean(axis=1)).reshape(points.shape)

    def worker_gradients(self, x: Array) -> Array:
        """Return grad f_i, [seeds, n, d], at [seeds, d] or [seeds, n, d]."""
        slopes = self.loss_slope(self._predictions(x), self.samples.targets[:, None, :])
        gradients = (slopes * self.samples.weights[:, None, :]) @ self.samples.features
        regular = self.regularizer_gradient(x)
        return np.asarray(gradients.transpose(1, 0, 2) + (regular[:, None] if x.ndim == 2 else regular))

    @cached_property
    def minimizer(self) -> Array | None:
        """x*, by Newton's method with halved steps; None for the non-convex regulariser."""
        if not self.convex:
            return None
        x = np.zeros(self.dim)
        for _ in range(_NEWTON_STEPS):
            gradient = self.gradient(x)
            direction = linalg.solve(self._hessian(x), gradient, assume_a="pos")
            if float(gradient @ direction) <= 1e-31:
                break
            step, value = 1.0, float(self.value(x))
            while step > 1e-8 and float(self.value(x - step * direction)) > value:
                step *= 0.5
            x = x - step * direction
        return x

    @cached_property
    def optimal_value(self) -> float:
        """f*; 0, a lower bound, for the non-convex regulariser."""
        return 0.0 if self.minimizer is None else float(self.value(self.minimizer))

    def _predictions(self, x: Array) -> Array:
        points = x[None] if x.ndim == 2 else x.transpose(1, 0, 2)
        return np.asarray(points @ np.swapaxes(self.samples.features, 1, 2))

    def _hessian(self, x: Array) -> Array:
        slopes = _expit(self._predictions(x[None])[:, 0])
        curvature = self.samples.weights * slopes * (1.0 - slopes)
        A = self.samples.features
        total = np.einsum("nmd,nm,nme->de", A, curvature, A, optimize=True) / self.workers
        return np.asarray(total + self.ridge * np.eye(self.dim))


def _expit(x: Array) -> Array:
    from scipy.special import expit  # a tenth of what importing the lab takes, for one of its problems

    return np.asarray(expit(x))
