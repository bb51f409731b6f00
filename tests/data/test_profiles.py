"""Profiles of classes against a naive twin, for every form that data have."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_array

from isthmus.data import Dataset, class_profiles, load


def naive(inputs: np.ndarray, marks: np.ndarray) -> np.ndarray:
    found = np.zeros((marks.shape[1], inputs.shape[1]))
    for row, owned in zip(inputs, marks, strict=True):
        for label in np.flatnonzero(owned):
            found[label] += row / (np.linalg.norm(row) or 1.0)
    return found


def test_numbers_are_taken_from_their_mean_and_sparse_ones_are_not() -> None:
    random = np.random.default_rng(0)
    dense, targets = random.normal(3.0, 1.0, (20, 4)), random.integers(0, 3, 20)
    dense[5] = dense.mean(0)
    marks = np.eye(3, dtype=bool)[targets]
    found = class_profiles(Dataset("x", dense, targets, 3, (4,)))
    assert found.toarray() == pytest.approx(naive(dense - dense.mean(0), marks), abs=1e-12)
    rows = dense * (random.random((20, 4)) < 0.4)
    several = random.random((20, 3)) < 0.5
    found = class_profiles(Dataset("x", csr_array(rows), csr_array(several), 3, (4,)))
    assert found.toarray() == pytest.approx(naive(rows, several), abs=1e-12)


def test_tokens_count_and_in_a_sequence_those_of_the_position() -> None:
    tokens, targets = np.array([[0, 2, 2], [1, 1, 0]]), np.array([1, 0])
    found = class_profiles(Dataset("x", tokens, targets, 2, (3,))).toarray()
    assert found == pytest.approx(np.array([[1, 2, 0], [1, 0, 2]]) / np.sqrt(5))
    each = class_profiles(Dataset("x", tokens, np.array([[0, 1, 1], [1, 0, 0]]), 2, (3,))).toarray()
    assert each.tolist() == [[2, 1, 0], [0, 1, 2]]


def test_nodes_have_the_features_of_the_graph() -> None:
    data = load("sbm:80")
    assert data.graph is not None
    assert not isinstance(data.targets, csr_array)
    inputs = np.asarray(data.graph.features[data.features[:, 0]], dtype=np.float64)
    marks = np.eye(data.classes, dtype=bool)[data.targets]
    assert class_profiles(data).toarray() == pytest.approx(naive(inputs - inputs.mean(0), marks), abs=1e-9)
