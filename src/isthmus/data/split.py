"""Train and test; shares of the workers. All by seed."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from isthmus.data.dataset import Dataset
from isthmus.errors import InvalidInput, check_integer, check_number
from isthmus.randomness import generator


def train_test(dataset: Dataset, seed: int, test_fraction: float = 0.2) -> tuple[Dataset, Dataset]:
    """Return (train, test): the source's own split where it has one, otherwise a random one.

    Args:
        dataset: what :func:`isthmus.data.load` gave.
        seed: of the random split.
        test_fraction: in (0, 1); not used where the source has its own test part.

    Raises:
        InvalidInput: a fraction that leaves either part empty.
    """
    if dataset.test is not None:
        return dataclasses.replace(dataset, test=None), dataset.test
    check_number("test_fraction", test_fraction, above=0.0, below=1.0)
    size = round(test_fraction * dataset.samples)
    if not 0 < size < dataset.samples:
        raise InvalidInput(
            f"`test_fraction` must leave both parts some of the {dataset.samples} samples, got {test_fraction}"
        )
    order = generator(seed, "data/split").permutation(dataset.samples)
    return dataset.take(np.sort(order[size:])), dataset.take(np.sort(order[:size]))


def standardize(train: Dataset, *others: Dataset) -> tuple[Dataset, ...]:
    """Return the data sets with the training part's mean 0 and variance 1 per feature; constant features become 0.

    Tokens and nodes of a graph have no scale and stay as they are.
    """
    if not train.numeric:
        return train, *others
    mean = train.features.mean(axis=0)
    scale = train.features.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0).astype(train.features.dtype)
    return tuple(dataclasses.replace(part, features=(part.features - mean) / scale) for part in (train, *others))


def over_workers(
    targets: NDArray[np.int64] | NDArray[np.float64], workers: int, seed: int, alpha: float | None = None
) -> list[NDArray[np.int64]]:
    """Return each worker's sample indices, sorted: a disjoint cover of all samples.

    Args:
        targets: [m] class numbers, values of a regression, or [m, p] class numbers of sequences.
        workers: n, at most m.
        seed: of the split.
        alpha: None for an i.i.d. split into equal shares (sizes differ by at most one). Otherwise each class is dealt
            by proportions drawn from Dirichlet(alpha, ..., alpha): the smaller, the fewer classes a worker sees.
            Workers left without a sample take one from the largest share.

    Raises:
        InvalidInput: more workers than samples, alpha not positive, or alpha where a sample has not one class.
    """
    samples = len(targets)
    check_integer("workers", workers, at_least=1)
    if workers > samples:
        raise InvalidInput(f"`workers` must be at most the number of samples, got {workers} workers for {samples}")
    random = generator(seed, "data/over_workers")
    if alpha is None:
        return [np.sort(share) for share in np.array_split(random.permutation(samples), workers)]
    check_number("alpha", alpha, above=0.0)
    if not np.issubdtype(targets.dtype, np.integer):
        raise InvalidInput("`alpha` must be None for a regression: a split by label needs classes")
    if targets.ndim != 1:
        raise InvalidInput("`alpha` must be None for sequences: a split by label needs one class a sample")
    shares: list[list[int]] = [[] for _ in range(workers)]
    for label in np.unique(targets):
        members = random.permutation(np.flatnonzero(targets == label))
        ends = np.round(np.cumsum(random.dirichlet(np.full(workers, alpha)))[:-1] * len(members)).astype(int)
        for share, part in zip(shares, np.split(members, ends), strict=True):
            share.extend(part.tolist())
    for share in shares:
        if not share:
            share.append(max(shares, key=len).pop())
    return [np.sort(np.array(share, dtype=np.int64)) for share in shares]
