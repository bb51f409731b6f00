"""Groups of classes: of equal size, by seed, and like with like where there is a likeness."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array

from isthmus.errors import InvalidInput
from isthmus.partitions import Clusters, block_sizes
from isthmus.partitions.classes import Other
from isthmus.partitions.groups import GROUPS, AtRandom
from isthmus.strategies import ClassCut


def profiles(classes: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(classes, 5))


@given(classes=st.integers(1, 30), groups=st.integers(1, 9), seed=st.integers(0, 99))
def test_all_ways_give_groups_of_equal_size_by_seed(classes: int, groups: int, seed: int) -> None:
    groups = min(groups, classes)
    likes = profiles(classes, seed)
    ways = {AtRandom.name: AtRandom(), Clusters.name: Clusters.of(likes, groups, seed)}
    assert ways.keys() == GROUPS.keys()
    for name, way in ways.items():
        found = way.group(classes, groups, seed)
        assert sorted(np.bincount(found, minlength=groups).tolist()) == sorted(block_sizes(classes, groups))
        assert (way.name, way.ready) == (name, True)
    again = Clusters.of(csr_array(likes), groups, seed).group(classes, groups, seed)
    assert np.array_equal(again, ways["cluster"].group(classes, groups, seed))


@pytest.mark.parametrize("groups", [2, 3, 5, 8])
def test_families_stay_together(groups: int) -> None:
    """Classes of a family point into one direction, at any length; some have no sample at all."""
    random = np.random.default_rng(groups)
    family = random.permutation(np.repeat(np.arange(groups), 12))
    noise = 0.1 * random.normal(size=(len(family), 40))
    likes = (10.0 * np.eye(groups, 40)[family] + noise) * random.lognormal(size=(len(family), 1))
    found = Clusters.of(likes, groups, seed=3).group(len(family), groups, seed=0)
    assert len(set(zip(family.tolist(), found.tolist(), strict=True))) == groups


def test_a_half_is_never_worse_than_where_it_began() -> None:
    """Two balanced means ascend: what is within halves is more alike than in random ones, on any data."""
    for seed in range(20):
        likes = profiles(24, seed)
        likes /= np.linalg.norm(likes, axis=1, keepdims=True)

        def alike(found: np.ndarray, likes: np.ndarray = likes) -> float:
            return sum(float(np.linalg.norm(likes[found == group].sum(0))) for group in (0, 1))

        clusters = alike(Clusters.of(likes, 2, seed).group(24, 2, seed))
        assert clusters > np.mean([alike(AtRandom().group(24, 2, other)) for other in range(50)])


def test_lengths_of_profiles_do_not_matter() -> None:
    likes = profiles(20, 1)
    scaled = likes * np.random.default_rng(2).lognormal(size=(20, 1))
    assert np.array_equal(Clusters.of(likes, 3, 0).found, Clusters.of(scaled, 3, 0).found)
    assert np.array_equal(Clusters.of(likes, 3, 0).found, Clusters.of(likes * 1e-150, 3, 0).found)


def test_classes_without_samples_fill_up() -> None:
    found = Clusters.of(np.zeros((7, 3)), 3, 0).group(7, 3, 0)
    assert sorted(np.bincount(found).tolist()) == [2, 2, 3]


def test_other_groups_are_another_word() -> None:
    words = {repr(Clusters.of(profiles(10, seed), 2, 0)) for seed in (0, 0, 1, 2)} | {repr(Clusters())}
    assert len(words) == 4


def test_what_is_refused() -> None:
    with pytest.raises(InvalidInput, match="`groups` 'cluster' needs data: in a loop of one's own give"):
        ClassCut(groups="cluster").deal(10, 2, 0)
    with pytest.raises(InvalidInput, match="`workers` must be at most the number of classes, 3, got 4 that own some"):
        Clusters.of(profiles(3, 0), 4, 0)
    learned = ClassCut(groups=Clusters.of(profiles(10, 0), 2, 0))
    with pytest.raises(InvalidInput, match="is of 10 classes in 2 groups, but there are 12 classes and 3 workers"):
        learned.deal(12, 3, 0)
    with pytest.raises(InvalidInput, match="`groups` must be one of"):
        ClassCut(groups="likes")
    assert learned.record()["groups"] == "cluster"
    assert (learned.slug, learned.title) == ("class-cut-cluster", "class-cut (other, clusters)")
    assert learned.deal(10, 2, 0).gate == Other(1)
