"""Tensors that are constant on classes of indices, written down by their few different values."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isthmus.errors import InvalidInput

Labels = NDArray[np.int64]
_CHUNK = 1 << 18  # entries worked on at a time


@dataclass(frozen=True, eq=False)
class Pattern:
    """A tensor, broadcastable to another: entry (i, j, ...) is ``table[labels[0][i], labels[1][j], ...]``.

    Attributes:
        table: the values.
        labels: for each dimension the class of every index; None where the table has one entry for all, or one each.
    """

    table: Tensor
    labels: tuple[Tensor | None, ...]

    @staticmethod
    def of(value: Tensor | Pattern) -> Pattern:
        """Return a tensor as a pattern."""
        return value if isinstance(value, Pattern) else Pattern(value, (None,) * value.dim())

    @staticmethod
    def compressed(table: NDArray[np.generic], labels: Sequence[Labels]) -> Pattern:
        """Return a pattern with the fewest classes: equal slices of the table become one."""
        kept: list[Tensor | None] = []
        for dim, classes in enumerate(labels):
            first, same = distinct(np.moveaxis(table, dim, 0))
            table = table.take(first, axis=dim)
            kept.append(torch.from_numpy(same[classes]) if len(first) > 1 else None)
        if sum(each is not None for each in kept) == 1:  # a vector needs no classes
            table = table[tuple(slice(None) if each is None else each.numpy() for each in kept)]
            kept = [None] * len(kept)
        return Pattern(torch.tensor(table), tuple(kept))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape, with 1 where all indices of a dimension are alike."""
        sizes = zip(self.table.shape, self.labels, strict=True)
        return tuple(size if classes is None else len(classes) for size, classes in sizes)

    def dim(self) -> int:
        """Return the number of dimensions."""
        return self.table.dim()

    def tensor(self) -> Tensor:
        """Return all of it."""
        return self._part(self.labels)

    def rows(self, start: int, stop: int) -> Pattern:
        """Return the pattern of some rows, the first dimension's, of the tensor it broadcasts to."""
        if not self.labels or self.shape[0] == 1:
            return self
        first, *others = self.labels
        if first is None:
            return Pattern(self.table[start:stop], self.labels)
        return Pattern(self.table, (first[start:stop], *others))

    def mean(self) -> Tensor:
        """Return the mean over all entries."""
        total = self.table
        for dim, classes in enumerate(self.labels):
            if classes is not None:
                counts = torch.bincount(classes, minlength=total.shape[dim]).to(total)
                share = counts * (total.shape[dim] / len(classes))
                total = total * share.reshape([-1 if d == dim else 1 for d in range(total.dim())])
        return total.mean()

    def is_all(self, value: float) -> bool:
        """Whether every entry is ``value``."""
        return bool((self.table == value).all())

    def to(self, dtype: torch.dtype) -> Pattern:
        """Return it in another type."""
        return Pattern(self.table.to(dtype), self.labels)

    def double(self) -> Pattern:
        """Return it in float64."""
        return self.to(torch.float64)

    def __mul__(self, other: float | Pattern) -> Pattern:
        """Return the product with a number or with another pattern, entry by entry."""
        if not isinstance(other, Pattern):
            return Pattern(self.table * other, self.labels)
        tables, labels = [self.table, other.table], []
        for dim in range(self.table.dim()):
            classes, chosen = _common([self, other], dim)
            tables = [table.index_select(dim, index) for table, index in zip(tables, chosen, strict=True)]
            labels.append(classes)
        return Pattern(tables[0] * tables[1], tuple(labels))

    def __pow__(self, power: float) -> Pattern:
        """Return a power of every entry."""
        return Pattern(self.table**power, self.labels)

    def multiply(self, whole: Tensor) -> None:
        """Multiply a tensor, in place, piece by piece.

        Raises:
            InvalidInput: it does not fit.
        """
        for part, values in self.over(whole):
            part.mul_(values.to(part))

    def over(self, whole: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield views of a tensor that together are all of it, each with its values, broadcastable to it.

        Raises:
            InvalidInput: a tensor of another shape.
        """
        sizes = tuple(whole.shape)
        if len(self.shape) != len(sizes) or any(s not in (1, t) for s, t in zip(self.shape, sizes, strict=True)):
            raise InvalidInput(f"a factor must fit shape {sizes}, got {self.shape}")
        dim = next((dim for dim, classes in enumerate(self.labels) if classes is not None), None)
        if dim is None:
            yield whole, self.table
            return
        rows = max(1, _CHUNK * sizes[dim] // math.prod(self.shape))
        for start in range(0, sizes[dim], rows):
            part = whole.narrow(dim, start, min(rows, sizes[dim] - start))
            some = [c[start : start + rows] if d == dim and c is not None else c for d, c in enumerate(self.labels)]
            yield part, self._part(some)

    def _part(self, labels: Sequence[Tensor | None]) -> Tensor:
        values = self.table
        for dim, classes in enumerate(labels):
            if classes is not None:
                values = values.index_select(dim, classes)
        return values


def distinct(rows: NDArray[np.generic]) -> tuple[Labels, Labels]:
    """Return the first of every kind of equal rows, and for every row its kind.

    >>> [found.tolist() for found in distinct(np.array([[1, 2], [0, 0], [1, 2]]))]
    [[1, 0], [1, 0, 1]]
    """
    plain = np.ascontiguousarray(rows).reshape(len(rows), math.prod(rows.shape[1:]))
    if not plain.size:  # nothing to tell rows apart by
        return np.arange(min(len(rows), 1)), np.zeros(len(rows), np.int64)
    keys = plain.view(np.dtype((np.void, plain.dtype.itemsize * plain.shape[1]))).ravel()
    _, first, same = np.unique(keys, return_index=True, return_inverse=True)
    return first, same.reshape(-1)


def _common(patterns: Sequence[Pattern], dim: int) -> tuple[Tensor | None, list[Tensor]]:
    """Return classes fine enough for all patterns along a dimension, and which entry of each table a class takes."""
    full = max(pattern.shape[dim] for pattern in patterns)
    found = [pattern.labels[dim] for pattern in patterns]
    each = [
        torch.arange(full) % pattern.shape[dim] if classes is None else classes  # one entry for all, or one each
        for pattern, classes in zip(patterns, found, strict=True)
    ]
    if found == [None] * len(found):
        return None, each
    first, same = distinct(torch.stack(each, 1).numpy())
    return torch.from_numpy(same), [classes[torch.from_numpy(first)] for classes in each]
