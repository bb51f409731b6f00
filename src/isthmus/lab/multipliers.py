"""The law of a linear compressor or sketch as the exact theory sees it: C_i(x) = c_i * x entrywise, c random."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isthmus.lab.arrays import Array


@dataclass(frozen=True, eq=False)
class Multipliers:
    """First and second moments of the multipliers c of n workers' coordinates.

    Every compressor that is linear given its draws multiplies entrywise. The second moments of what it makes of random
    vectors u_i then follow from theirs: E[(c_i * u_i)(c_j * u_j)'] = E[c_i c_j'] * E[u_i u_j'], entrywise.

    Attributes:
        mean: E c, [n, d].
        second: E[c_i c_j'], [n, d, n, d].
    """

    mean: Array
    second: Array

    @classmethod
    def exchangeable(
        cls, workers: int, dim: int, mean: float, own: tuple[float, float], other: tuple[float, float]
    ) -> Multipliers:
        """Return a law in which all workers and all coordinates are alike.

        Args:
            workers: n.
            dim: d.
            mean: E c_ia.
            own: E c_ia c_ib of one worker, for a = b and for a != b.
            other: E c_ia c_jb of two workers, for a = b and for a != b.
        """
        eye = np.eye(dim)
        same, across = (at * eye + off * (1.0 - eye) for at, off in (own, other))
        second = np.empty((workers, dim, workers, dim))
        second[:] = across[:, None, :]
        for worker in range(workers):
            second[worker, :, worker, :] = same
        return cls(np.full((workers, dim), mean), second)

    @classmethod
    def certain(cls, workers: int, dim: int) -> Multipliers:
        """Return multipliers that are always 1."""
        return cls.exchangeable(workers, dim, 1.0, (1.0, 1.0), (1.0, 1.0))

    @property
    def covariance(self) -> Array:
        """Cov c, [n d, n d]."""
        flat = self.mean.ravel()
        return np.asarray(self.second.reshape(len(flat), len(flat)) - np.outer(flat, flat))

    def scaled(self, factor: float) -> Multipliers:
        """Return the law of ``factor`` c."""
        return Multipliers(factor * self.mean, factor**2 * self.second)

    def sent_by_chance(self, probability: float) -> Multipliers:
        """Return the law of c_i/p with probability p, else 0, every worker on its own.

        >>> Multipliers.certain(2, 1).sent_by_chance(0.5).second[:, 0, :, 0]
        array([[2., 1.],
               [1., 2.]])
        """
        second = self.second.copy()
        for worker in range(len(second)):
            second[worker, :, worker, :] /= probability
        return Multipliers(self.mean, second)


def random_subset(workers: int, dim: int, size: int) -> Multipliers:
    """Return d/K on a uniformly random K-subset of the coordinates, else 0, every worker on its own.

    >>> random_subset(1, 3, 1).second[0, :, 0, :].round(12)
    array([[3., 0., 0.],
           [0., 3., 0.],
           [0., 0., 3.]])
    """
    together = dim * (size - 1) / (size * (dim - 1)) if dim > 1 else 1.0
    return Multipliers.exchangeable(workers, dim, 1.0, (dim / size, together), (1.0, 1.0))
