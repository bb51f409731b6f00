"""Data on the workers: every worker's share of the samples, padded to one array."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from isthmus.data import over_workers
from isthmus.errors import InvalidInput, check_integer, check_number
from isthmus.lab.arrays import Array, check_array
from isthmus.randomness import generator


@dataclass(frozen=True, eq=False)
class Samples:
    """Features and targets of n workers.

    Attributes:
        features: [n, m, d]; zero rows where a worker has fewer than m samples.
        targets: [n, m].
        counts: [n], samples of every worker; they come first in its rows.
    """

    features: Array
    targets: Array
    counts: NDArray[np.int64]

    @classmethod
    def split(cls, features: ArrayLike, targets: ArrayLike, workers: int, seed: int = 0) -> Samples:
        """Deal samples to the workers at random in equal shares.

        Raises:
            InvalidInput: shapes that do not match, or more workers than samples.
        """
        A = check_array("features", features, "m", "d")
        y = check_array("targets", targets, len(A))
        return cls.of_shares([(A[share], y[share]) for share in over_workers(np.asarray(y), workers, seed)])

    @classmethod
    def sorted_split(cls, features: ArrayLike, targets: ArrayLike, workers: int, mix: float, seed: int = 0) -> Samples:
        """Deal samples sorted by target, so that the workers differ; ``mix`` of them at random places first.

        Args:
            features: [m, d].
            targets: [m].
            workers: n, at most m.
            mix: in [0, 1]: 1 deals all at random, 0 gives every worker one stretch of the sorted targets.
            seed: of the mixing.

        Raises:
            InvalidInput: shapes that do not match, more workers than samples, or mix outside [0, 1].
        """
        A = check_array("features", features, "m", "d")
        y = check_array("targets", targets, len(A))
        check_integer("workers", workers, at_least=1, at_most=len(A))
        check_number("mix", mix, at_least=0.0, at_most=1.0)
        random = generator(seed, "samples/mix")
        order = np.argsort(y, kind="stable")
        moved = random.permutation(len(y))[: round(mix * len(y))]
        order[moved] = order[random.permutation(moved)]
        return cls.of_shares([(A[share], y[share]) for share in np.array_split(order, workers)])

    @classmethod
    def gaussian(cls, workers: int, dim: int, rows: int, seed: int, heterogeneity: float = 1.0) -> Samples:
        """Draw standard normal features, a target model for every worker, and noise.

        y = A_i (theta + heterogeneity delta_i) + e with standard normal theta and delta_i and e of deviation 0.1; the
        features of worker i are scaled coordinate by coordinate by exp(heterogeneity u_i / 2), u_i standard normal: at
        0 the workers differ by sampling only.

        Raises:
            InvalidInput: a count below one or a negative heterogeneity.
        """
        for name, value in (("workers", workers), ("dim", dim), ("rows", rows)):
            check_integer(name, value, at_least=1)
        check_number("heterogeneity", heterogeneity, at_least=0.0)
        theta = generator(seed, "samples/model").standard_normal(dim)
        shares = []
        for worker in range(workers):
            random = generator(seed, "samples/gaussian", worker=worker)
            A = random.standard_normal((rows, dim)) * np.exp(0.5 * heterogeneity * random.standard_normal(dim))
            model = theta + heterogeneity * random.standard_normal(dim)
            shares.append((A, A @ model + 0.1 * random.standard_normal(rows)))
        return cls.of_shares(shares)

    @classmethod
    def of_shares(cls, shares: list[tuple[Array, Array]]) -> Samples:
        """Pad (features, targets) of every worker to one array."""
        counts = np.array([len(y) for _, y in shares], dtype=np.int64)
        most, dim = int(counts.max()), shares[0][0].shape[1]
        features, targets = np.zeros((len(shares), most, dim)), np.zeros((len(shares), most))
        for worker, (A, y) in enumerate(shares):
            features[worker, : len(y)], targets[worker, : len(y)] = A, y
        return cls(features, targets, counts)

    @property
    def workers(self) -> int:
        """Number of workers n."""
        return len(self.counts)

    @property
    def dim(self) -> int:
        """Number of coordinates d."""
        return int(self.features.shape[2])

    @property
    def weights(self) -> Array:
        """1/m_i on worker i's samples, 0 on the padding, [n, m]."""
        there = np.arange(self.targets.shape[1]) < self.counts[:, None]
        return there / self.counts[:, None]

    @property
    def grams(self) -> Array:
        """A_i' A_i / m_i, [n, d, d]."""
        return np.asarray(np.swapaxes(self.features, 1, 2) @ (self.weights[:, :, None] * self.features))

    def check_signs(self) -> None:
        """Check that the targets are classes -1 and 1.

        Raises:
            InvalidInput: they are not (one value is named).
        """
        there = self.weights > 0
        wrong = self.targets[there & (np.abs(self.targets) != 1.0)]
        if len(wrong):
            raise InvalidInput(f"`targets` must be -1 or 1 for the logistic loss, got {wrong[0]:g}")
