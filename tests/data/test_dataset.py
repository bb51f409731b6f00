"""What a data set may hold, and what it refuses in one line."""

import doctest
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from isthmus.data import Dataset, Graph, graph, normalized_adjacency, over_workers, standardize, train_test
from isthmus.errors import DataError, InvalidInput


def tokens(samples: int = 20, length: int = 4) -> Dataset:
    text = np.arange(samples * length + 1) % 7
    shape = (samples, length)
    return Dataset("tokens", text[:-1].reshape(shape), text[1:].reshape(shape), 7, (length,))


def ring(nodes: int = 10) -> Graph:
    joined = np.roll(np.eye(nodes, dtype=bool), 1, axis=1)
    return Graph(np.arange(2.0 * nodes, dtype=np.float32).reshape(nodes, 2), normalized_adjacency(joined | joined.T))


def nodes_of(whole: Graph) -> Dataset:
    numbers = np.arange(whole.nodes)
    return Dataset("ring", numbers[:, None], numbers % 3, 3, (1,), graph=whole)


def test_sequences_split_and_stay_whole() -> None:
    data = tokens()
    train, test = train_test(data, seed=0)
    assert (train.samples, test.samples, train.dim, train.shape) == (16, 4, 4, (4,))
    for part in (train, test):
        assert np.array_equal((part.features + 1) % 7, part.targets)  # features and targets are still of one window
    shares = over_workers(train.targets, 3, seed=0)
    assert sorted(np.concatenate(shares).tolist()) == list(range(16))
    with pytest.raises(InvalidInput, match="one class a sample"):
        over_workers(train.targets, 3, seed=0, alpha=1.0)


def test_nodes_keep_their_graph() -> None:
    whole = ring()
    train, test = train_test(nodes_of(whole), seed=0)
    assert train.graph is whole
    assert test.graph is whole
    assert sorted([*train.features[:, 0], *test.features[:, 0]]) == list(range(10))
    assert np.array_equal(test.features[:, 0] % 3, test.targets)


@pytest.mark.parametrize("data", [tokens(), nodes_of(ring())], ids=lambda data: data.name)
def test_tokens_and_nodes_have_no_scale(data: Dataset) -> None:
    assert not data.numeric
    assert standardize(data, data) == (data, data)


@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.int64])
def test_classes_are_kept_as_int64(kind: type) -> None:
    data = Dataset("bytes", np.zeros((2, 1)), np.array([1, 0], dtype=kind), 2, (1,))
    assert data.targets.dtype == np.int64
    assert data.numeric


ONE = np.zeros((2, 1))
CLASSES = np.array([0, 1])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"features": [[1.0], [2.0]]}, "x: features must be a NumPy array or a scipy.sparse.csr_array, got list"),
        ({"targets": [0, 1]}, "x: targets must be a NumPy array or a scipy.sparse.csr_array, got list"),
        ({"features": ONE.astype(np.float16)}, "x: features must be float32, float64 or whole numbers"),
        ({"features": ONE.astype(bool)}, "x: features must be float32, float64 or whole numbers"),
        ({"features": np.array([[3], [-1]])}, "x: feature 0 of sample 1 is -1, and tokens are numbered from 0"),
        ({"targets": np.zeros((2, 3), int)}, "x: features must be [m, p] and targets [m], or [m, p] for one"),
        ({"targets": np.zeros(3, int)}, "got (2, 1) and (3,)"),
        ({"targets": np.zeros((2, 1)), "classes": 0}, "x: targets of a regression must be [m], got (2, 1)"),
        ({"targets": np.array([0.0, 1.0])}, "x: class numbers must be whole numbers, got float64"),
        ({"targets": np.array([[0], [2]])}, "x: the target of sample 1 is 2: class numbers must be 0..1"),
        ({"features": ONE, "graph": ring(2)}, "x: with a graph, features must be node numbers [m, 1], got (2, 1) of f"),
        ({"features": np.zeros((2, 2), int), "graph": ring(2)}, "node numbers [m, 1], got (2, 2)"),
        ({"features": np.array([[1], [3]]), "graph": ring(3)}, "x: node numbers must be 0..2, got 3"),
        ({"test": Dataset("y", np.zeros((1, 2)), np.array([0]), 2, (2,))}, "1 features and 2 classes like the rest"),
        ({"test": Dataset("y", ONE, CLASSES, 3, (1,))}, "like the rest, got 1 and 3"),
    ],
)
def test_what_it_refuses(values: dict[str, Any], message: str) -> None:
    whole = {"name": "x", "features": ONE, "targets": CLASSES, "classes": 2, "shape": (1,), **values}
    with pytest.raises(DataError) as caught:
        Dataset(**whole)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("features", "adjacency", "message"),
    [
        (np.zeros((2, 1)), np.eye(2, dtype=np.float32), "graph: features must be a two-dimensional array of float32"),
        (np.zeros((2, 1), np.float32), [[1.0]], "adjacency must be a two-dimensional array of float32, got list"),
        (np.zeros((2, 1), np.float32), np.eye(3, dtype=np.float32), "got (2, 1) and (3, 3)"),
        (np.zeros((0, 1), np.float32), np.zeros((0, 0), np.float32), "at least one node"),
        (np.full((1, 1), np.nan, np.float32), np.eye(1, dtype=np.float32), "graph: features holds a value that is not"),
    ],
)
def test_what_a_graph_refuses(features: Any, adjacency: Any, message: str) -> None:
    with pytest.raises(DataError) as caught:
        Graph(features, adjacency)
    assert message in str(caught.value)


@given(arrays.arrays(bool, st.integers(1, 6).map(lambda n: (n, n))))
def test_the_normalised_adjacency_is_what_its_formula_says(half: np.ndarray) -> None:
    joined = half | half.T
    expected = joined | np.eye(len(joined), dtype=bool)
    root = np.diag(expected.sum(axis=1) ** -0.5)
    found = normalized_adjacency(joined)
    assert np.allclose(found, root @ expected @ root, rtol=1e-6, atol=0)
    # Degrees of A + I under square roots are its eigenvector of the largest eigenvalue, 1.
    degrees = expected.sum(axis=1)
    assert np.allclose(found @ np.sqrt(degrees), np.sqrt(degrees), rtol=1e-5)


def test_a_directed_graph_is_refused() -> None:
    with pytest.raises(DataError, match="symmetric square array"):
        normalized_adjacency(np.array([[False, True], [False, False]]))


def test_doctests() -> None:
    assert doctest.testmod(graph).attempted > 0
    assert doctest.testmod(graph).failed == 0
