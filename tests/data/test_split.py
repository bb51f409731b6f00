"""Names, splits and shares."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.data import BUNDLED, Dataset, load, over_workers, standardize, train_test
from isthmus.errors import DataError, InvalidInput


@pytest.mark.parametrize(
    ("name", "samples", "dim", "classes"),
    [("digits", 1797, 64, 10), ("diabetes", 442, 10, 0), ("breast-cancer", 569, 30, 2)],
)
def test_bundled(name: str, samples: int, dim: int, classes: int) -> None:
    data = load(name)
    assert (data.samples, data.dim, data.classes) == (samples, dim, classes)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digit", "did you mean 'digits'"),
        ("breast_cancer", "did you mean 'breast-cancer'"),
        ("idx:", "must name a place after 'idx'"),
        ("isx:/tmp", "`data` must be one of"),
    ],
)
def test_an_unknown_name_is_refused(name: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        load(name)


@pytest.mark.parametrize("name", sorted(BUNDLED))
def test_train_and_test_cover_all_by_seed(name: str) -> None:
    data = load(name)
    train, test = train_test(data, seed=3)
    again, other = train_test(data, seed=3)[0], train_test(data, seed=4)[0]
    assert train.samples + test.samples == data.samples
    assert test.samples == round(0.2 * data.samples)
    assert np.array_equal(train.features, again.features)
    assert not np.array_equal(train.features, other.features)
    rows = np.concatenate([train.features, test.features])
    assert np.array_equal(np.sort(rows, axis=0), np.sort(data.features, axis=0))


def test_standardize_uses_the_training_part_only() -> None:
    train, test = train_test(load("breast-cancer"), seed=0)
    whole, other = standardize(train, test)
    assert np.abs(whole.features.mean(axis=0)).max() < 1e-12
    assert np.abs(whole.features.std(axis=0) - 1).max() < 1e-12
    expected = (test.features - train.features.mean(axis=0)) / train.features.std(axis=0)
    assert np.array_equal(other.features, expected)


def test_a_constant_feature_becomes_zero() -> None:
    data = Dataset("constant", np.array([[3.0, 1.0], [3.0, 2.0]]), np.array([0, 1]), 2, (2,))
    assert standardize(data)[0].features[:, 0].tolist() == [0.0, 0.0]


@given(st.integers(1, 60), st.integers(1, 10), st.integers(0, 2**32), st.sampled_from([None, 0.05, 1.0, 100.0]))
def test_shares_are_a_disjoint_cover_and_nobody_is_left_out(
    samples: int, workers: int, seed: int, alpha: float | None
) -> None:
    targets = np.arange(samples) % 4
    if workers > samples:
        with pytest.raises(InvalidInput, match="at most the number of samples"):
            over_workers(targets, workers, seed, alpha)
        return
    shares = over_workers(targets, workers, seed, alpha)
    assert sorted(np.concatenate(shares).tolist()) == list(range(samples))
    assert min(len(share) for share in shares) >= 1
    if alpha is None:
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_small_alpha_separates_the_labels_and_a_large_one_mixes_them() -> None:
    targets = np.repeat(np.arange(10), 200)

    def spread(alpha: float) -> float:
        """Mean over workers of the largest share one label has in a worker's data."""
        shares = over_workers(targets, 4, 0, alpha)
        return float(np.mean([np.bincount(targets[share]).max() / len(share) for share in shares]))

    assert spread(0.05) > 0.3
    assert spread(1e6) == pytest.approx(0.1, abs=0.01)


def test_bad_splits_are_refused() -> None:
    data = load("diabetes")
    with pytest.raises(InvalidInput, match="`workers` must be at least 1, got 0"):
        over_workers(data.targets, 0, 0)
    with pytest.raises(InvalidInput, match="split by label needs classes"):
        over_workers(data.targets, 2, 0, alpha=0.5)
    with pytest.raises(InvalidInput, match="`alpha` must be greater than 0"):
        over_workers(load("digits").targets, 2, 0, alpha=0.0)
    with pytest.raises(InvalidInput, match="`test_fraction` must"):
        train_test(data, 0, test_fraction=1.0)
    with pytest.raises(InvalidInput, match="leave both parts some"):
        train_test(data, 0, test_fraction=0.001)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_data_that_is_not_finite_is_named(bad: float) -> None:
    features = np.zeros((3, 2))
    features[2, 1] = bad
    with pytest.raises(DataError, match=f"sensors: feature 1 of sample 2 is {bad}"):
        Dataset("sensors", features, np.zeros(3), 0, (2,))
    with pytest.raises(DataError, match="sensors: the target of sample 1"):
        Dataset("sensors", np.zeros((2, 1)), np.array([0.0, bad]), 0, (1,))
    with pytest.raises(DataError, match=r"class numbers must be 0\.\.1"):
        Dataset("sensors", np.zeros((2, 1)), np.array([0, 2]), 2, (1,))
    with pytest.raises(DataError, match=r"features must be \[m, p\]"):
        Dataset("sensors", np.zeros(2), np.array([0, 2]), 2, (1,))
