"""A graph whose nodes are samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isthmus.errors import DataError


@dataclass(frozen=True, eq=False)
class Graph:
    """Features of N nodes and how they are joined.

    Attributes:
        features: [N, F] float32, all finite.
        adjacency: [N, N] float32, all finite; of a sum over neighbours, normalised as networks take it (see
            :func:`normalized_adjacency`).

    Raises:
        DataError: wrong shapes or types, no nodes, or a value that is not finite.
    """

    features: NDArray[np.float32]
    adjacency: NDArray[np.float32]

    def __post_init__(self) -> None:
        for name in ("features", "adjacency"):
            value = getattr(self, name)
            if not isinstance(value, np.ndarray) or value.dtype != np.float32 or value.ndim != 2:
                raise DataError(f"graph: {name} must be a two-dimensional array of float32, got {_kind(value)}")
            if not np.isfinite(value).all():
                raise DataError(f"graph: {name} holds a value that is not finite")
        if self.features.size == 0 or self.adjacency.shape != (self.nodes, self.nodes):
            raise DataError(
                f"graph: features must be [N, F] and adjacency [N, N] with at least one node, "
                f"got {self.features.shape} and {self.adjacency.shape}"
            )

    @property
    def nodes(self) -> int:
        """Number of nodes N."""
        return len(self.features)


def normalized_adjacency(joined: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return D^-1/2 (A + I) D^-1/2 with D the degrees of A + I, float32.

    Args:
        joined: [N, N] symmetric; whether two nodes are joined. The diagonal does not matter.

    Raises:
        DataError: not square, or not symmetric.

    Reference:
        Kipf, Welling, "Semi-supervised classification with graph convolutional networks" (ICLR 2017), equation 2.

    >>> normalized_adjacency(np.array([[False, True], [True, False]])).tolist()
    [[0.5, 0.5], [0.5, 0.5]]
    """
    if joined.ndim != 2 or joined.shape[0] != joined.shape[1] or not np.array_equal(joined, joined.T):
        raise DataError(f"graph: joined nodes must be a symmetric square array, got shape {joined.shape}")
    with_self = joined | np.eye(len(joined), dtype=bool)
    scale = 1.0 / np.sqrt(with_self.sum(axis=1))
    result: NDArray[np.float32] = (with_self * scale[:, None] * scale).astype(np.float32)
    return result


def _kind(value: object) -> str:
    return f"{value.shape} of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
