"""A data set in memory, checked once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isthmus.errors import DataError


@dataclass(frozen=True, eq=False)
class Dataset:
    """Features and targets of m samples.

    Attributes:
        name: where it came from, as given to :func:`isthmus.data.load`.
        features: [m, p] float64 or float32, all finite.
        targets: [m]; int64 class numbers 0..classes-1, or float64 values when ``classes`` is 0.
        classes: number of classes; 0 for regression.
        shape: shape of one sample before it was flattened to p numbers ((28, 28) for an image).
        test: the test part where the source comes with one.

    Raises:
        DataError: wrong shapes, no samples, or a value that is not finite (sample and feature named).
    """

    name: str
    features: NDArray[np.floating]
    targets: NDArray[np.int64] | NDArray[np.float64]
    classes: int
    shape: tuple[int, ...]
    test: Dataset | None = None

    def __post_init__(self) -> None:
        if self.features.ndim != 2 or self.targets.shape != self.features.shape[:1]:
            raise DataError(
                f"{self.name}: features must be [m, p] and targets [m], "
                f"got {self.features.shape} and {self.targets.shape}"
            )
        if self.features.size == 0:
            raise DataError(f"{self.name}: holds no samples")
        bad = ~np.isfinite(self.features)
        if bad.any():
            sample, feature = np.argwhere(bad)[0]
            raise DataError(
                f"{self.name}: feature {feature} of sample {sample} is {self.features[sample, feature]}, not a finite "
                "number: clean the data first"
            )
        bad = ~np.isfinite(self.targets)
        if bad.any():
            raise DataError(f"{self.name}: the target of sample {np.flatnonzero(bad)[0]} is not a finite number")
        if self.classes and not (self.targets.min() >= 0 and self.targets.max() < self.classes):
            raise DataError(f"{self.name}: class numbers must be 0..{self.classes - 1}")

    @property
    def samples(self) -> int:
        """Number of samples m."""
        return len(self.targets)

    @property
    def dim(self) -> int:
        """Number of features p."""
        return int(self.features.shape[1])

    def take(self, indices: NDArray[np.integer]) -> Dataset:
        """Return the samples at ``indices``, without the test part."""
        return Dataset(self.name, self.features[indices], self.targets[indices], self.classes, self.shape)
