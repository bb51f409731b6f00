"""A data set in memory, checked once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from isthmus.data.graph import Graph
from isthmus.errors import DataError

if TYPE_CHECKING:  # a part of SciPy that takes a while to load: for those who have such data
    from scipy.sparse import csr_array

Features: TypeAlias = "NDArray[np.floating] | NDArray[np.integer] | csr_array"
Targets: TypeAlias = "NDArray[np.int64] | NDArray[np.float64] | csr_array"


@dataclass(frozen=True, eq=False)
class Dataset:
    """Features and targets of m samples.

    A sample is p numbers (a table's row, an image), p tokens (a window of text), or one node of a graph; then
    ``features`` holds its number, and networks take ``graph`` as a whole. Where most of the p numbers are 0, features
    are sparse rows, which nothing makes dense; so are the labels of samples that may have several.

    Attributes:
        name: where it came from, as given to :func:`isthmus.data.load`.
        features: [m, p] float64 or float32, all finite; or whole numbers from 0 (any integer type), which are tokens,
            or with a graph the node numbers [m, 1]. Sparse rows are a ``scipy.sparse.csr_array`` of float64 or
            float32.
        targets: [m] class numbers 0..classes-1, kept as int64, or float64 values when ``classes`` is 0; or [m, p]
            class numbers, one for every position; or a ``scipy.sparse.csr_array`` [m, classes] of bool: which labels
            each sample has.
        classes: number of classes; 0 for regression.
        shape: shape of one sample before it was flattened to p numbers ((28, 28) for an image).
        test: the test part where the source comes with one; same features, classes and graph.
        graph: what the nodes are nodes of.

    Raises:
        DataError: wrong shapes or types, no samples, a value that is not finite (sample and feature named), or a number
            that is no class, token or node.
    """

    name: str
    features: Features
    targets: Targets
    classes: int
    shape: tuple[int, ...]
    test: Dataset | None = None
    graph: Graph | None = None

    def __post_init__(self) -> None:
        self._check_shapes()
        self._check_features()
        self._check_targets()
        if self.graph is not None:
            self._check_nodes(self.graph)
        if self.test is not None and (self.test.dim, self.test.classes) != (self.dim, self.classes):
            raise DataError(
                f"{self.name}: the test part must have {self.dim} features and {self.classes} classes like the rest, "
                f"got {self.test.dim} and {self.test.classes}"
            )

    @property
    def samples(self) -> int:
        """Number of samples m."""
        return int(self.targets.shape[0])

    @property
    def dim(self) -> int:
        """Number of features p."""
        return int(self.features.shape[1])

    @property
    def numeric(self) -> bool:
        """Whether features are numbers on a scale, and not tokens or nodes."""
        return bool(np.issubdtype(self.features.dtype, np.floating))

    @property
    def sparse(self) -> bool:
        """Whether features are sparse rows."""
        return not isinstance(self.features, np.ndarray)

    @property
    def longest(self) -> int:
        """The most numbers of a sample that are kept: p, or of sparse rows those that are not 0."""
        return self.dim if isinstance(self.features, np.ndarray) else int(np.diff(self.features.indptr).max())

    @property
    def labelled(self) -> bool:
        """Whether a sample may have several labels, or none."""
        return not isinstance(self.targets, np.ndarray)

    @property
    def targets_each(self) -> int:
        """Number of targets of a sample: 1, or the length of a sequence."""
        return 1 if self.labelled or self.targets.ndim == 1 else int(self.targets.shape[1])

    def take(self, indices: NDArray[np.integer]) -> Dataset:
        """Return the samples at ``indices``, without the test part; a graph stays whole."""
        return replace(self, features=self.features[indices], targets=self.targets[indices], test=None)

    def _check_shapes(self) -> None:
        for name in ("features", "targets"):
            value: Any = getattr(self, name)
            if not isinstance(value, np.ndarray) and not _is_rows(value):
                raise DataError(
                    f"{self.name}: {name} must be a NumPy array or a scipy.sparse.csr_array, got {type(value).__name__}"
                )
        if self.labelled:
            self._check_labels()
        elif self.features.ndim != 2 or self.targets.shape not in (self.features.shape[:1], self.features.shape):
            raise DataError(
                f"{self.name}: features must be [m, p] and targets [m], or [m, p] for one at every position, "
                f"got {self.features.shape} and {self.targets.shape}"
            )
        if 0 in self.features.shape:
            raise DataError(f"{self.name}: holds no samples")
        if self.sparse and (self.graph is not None or not self.numeric):
            raise DataError(f"{self.name}: sparse features must be float32 or float64, got {self.features.dtype}")
        if self.targets.ndim == 2 and not self.classes:
            raise DataError(f"{self.name}: targets of a regression must be [m], got {self.targets.shape}")

    def _check_features(self) -> None:
        kind = self.features.dtype
        if kind not in (np.float32, np.float64) and not np.issubdtype(kind, np.integer):
            raise DataError(f"{self.name}: features must be float32, float64 or whole numbers (tokens), got {kind}")
        values: NDArray[Any] = self.features if isinstance(self.features, np.ndarray) else self.features.data
        bad = ~np.isfinite(values) if self.numeric else values < 0
        if bad.any():
            sample, feature = self._place(np.argwhere(bad)[0])
            value = self.features[sample, feature]
            rule = "not a finite number: clean the data first" if self.numeric else "and tokens are numbered from 0"
            raise DataError(f"{self.name}: feature {feature} of sample {sample} is {value}, {rule}")

    def _place(self, index: NDArray[np.integer]) -> tuple[int, int]:
        """Return (sample, feature) of a number among those that are kept."""
        if isinstance(self.features, np.ndarray):
            return int(index[0]), int(index[1])
        sample = np.searchsorted(self.features.indptr, index[0], side="right") - 1
        return int(sample), int(self.features.indices[index[0]])

    def _check_labels(self) -> None:
        samples = self.features.shape[0]
        if self.targets.dtype != np.bool_ or self.targets.shape != (samples, self.classes) or self.classes < 2:
            raise DataError(
                f"{self.name}: labels must be bool [{samples}, classes] for {max(2, self.classes)} classes, got "
                f"{self.targets.dtype} {tuple(self.targets.shape)}"
            )

    def _check_targets(self) -> None:
        if self.labelled:
            return
        bad = ~np.isfinite(self.targets)
        if bad.any():
            raise DataError(f"{self.name}: the target of sample {np.argwhere(bad)[0, 0]} is not a finite number")
        if not self.classes:
            return
        if not np.issubdtype(self.targets.dtype, np.integer):
            raise DataError(f"{self.name}: class numbers must be whole numbers, got {self.targets.dtype}")
        outside = np.argwhere((self.targets < 0) | (self.targets >= self.classes))
        if len(outside):
            sample, value = outside[0, 0], self.targets[tuple(outside[0])]
            raise DataError(
                f"{self.name}: the target of sample {sample} is {value}: class numbers must be 0..{self.classes - 1}"
            )
        object.__setattr__(self, "targets", self.targets.astype(np.int64, copy=False))

    def _check_nodes(self, graph: Graph) -> None:
        if self.numeric or self.dim != 1:
            raise DataError(
                f"{self.name}: with a graph, features must be node numbers [m, 1], "
                f"got {self.features.shape} of {self.features.dtype}"
            )
        if self.features.max() >= graph.nodes:
            raise DataError(f"{self.name}: node numbers must be 0..{graph.nodes - 1}, got {self.features.max()}")


def _is_rows(value: Any) -> bool:
    from scipy.sparse import csr_array

    return isinstance(value, csr_array)
