"""Least squares that keeps its samples."""

from __future__ import annotations

import numpy as np

from isthmus.errors import check_number
from isthmus.lab.arrays import Array
from isthmus.lab.problems.samples import Samples
from isthmus.lab.quadratics import Quadratic


class LeastSquares(Quadratic):
    """f_i(x) = |A_i x - y_i|^2 / (2 m_i) + (ridge/2)|x|^2: a quadratic, and its samples for minibatches.

    Args:
        samples: data on the workers.
        ridge: at least 0.

    Raises:
        InvalidInput: a negative ridge.
    """

    samples: Samples
    ridge: float

    def __init__(self, samples: Samples, ridge: float = 0.0) -> None:
        check_number("ridge", ridge, at_least=0.0)
        L = samples.grams + ridge * np.eye(samples.dim)
        weighted = samples.weights * samples.targets
        b = np.einsum("nmd,nm->nd", samples.features, weighted)
        super().__init__(0.5 * (L + np.swapaxes(L, 1, 2)), b)
        object.__setattr__(self, "samples", samples)
        object.__setattr__(self, "ridge", float(ridge))

    @property
    def rows(self) -> float:
        """Samples a worker has, on average."""
        return float(self.samples.counts.mean())

    def loss_slope(self, predictions: Array, targets: Array) -> Array:
        """Derivative of (p - y)^2 / 2 in p."""
        return predictions - targets

    def regularizer_gradient(self, x: Array) -> Array:
        """Gradient of (ridge/2)|x|^2."""
        return self.ridge * x
