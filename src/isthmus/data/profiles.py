"""What the samples of a class have in common: the direction of their inputs' sum."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from isthmus.data.dataset import Dataset

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_AT_ONCE = 4096  # samples whose dense inputs are scaled at a time


def class_profiles(dataset: Dataset) -> csr_array:
    """Return [classes, p] for every class the sum of its samples' inputs, each scaled to length 1.

    Numbers on a scale are taken from their mean first, unless they are sparse; of tokens, how often each comes counts
    (in a sequence with a class at every position, that of the position); of nodes of a graph, their own features. A
    class without samples has 0.

    Reference:
        Prabhu et al., "Parabel: partitioned label trees for extreme classification" (WWW 2018), section 3.2.
    """
    from scipy.sparse import csr_array
    from sklearn.preprocessing import normalize  # loads pandas and more: not before it is needed

    inputs, targets = _inputs(dataset), dataset.targets
    if isinstance(targets, np.ndarray):
        numbers = targets.reshape(-1)
        marks = csr_array((np.ones(len(numbers)), (np.arange(len(numbers)), numbers)), (len(numbers), dataset.classes))
    else:
        marks = targets.astype(np.float64)
    if not isinstance(inputs, np.ndarray):
        return csr_array(marks.T @ normalize(inputs))
    mean, found = inputs.mean(0, dtype=np.float64), np.zeros((dataset.classes, inputs.shape[1]))
    for start in range(0, len(inputs), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        found += marks[part].T @ normalize(inputs[part] - mean)
    return csr_array(found)


def _inputs(dataset: Dataset) -> np.ndarray | csr_array:
    from scipy.sparse import csr_array

    features = dataset.features
    if dataset.graph is not None:
        return np.asarray(dataset.graph.features[features[:, 0]])
    if dataset.numeric:
        return features
    tokens = features.reshape(-1, 1) if dataset.targets_each > 1 else features
    rows = np.repeat(np.arange(len(tokens)), tokens.shape[1])
    shape = len(tokens), int(features.max()) + 1
    return csr_array((np.ones(tokens.size), (rows, tokens.reshape(-1).astype(np.int64))), shape)
