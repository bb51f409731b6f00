"""Classes put together by a run itself: like with like, recorded by name, and the same as given from Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.utils.data import TensorDataset

from cases.loops import processes
from cases.runs import trained, without_times
from isthmus import Training
from isthmus.data import Dataset, class_profiles
from isthmus.errors import InvalidInput
from isthmus.partitions import Clusters
from isthmus.strategies import ClassCut
from isthmus.trainer import configure
from isthmus.trainer.task.setup import set_up
from isthmus.trainer.task.tables import read_tables

FLAGS: dict[str, Any] = {
    "workers": 3, "widths": (6,), "batch_size": 16, "local_steps": 5, "rounds": 4, "own_share": 0.5, "lr": 0.1,
}  # fmt: skip
FAMILIES, EACH = 3, 4


def families() -> Dataset:
    """Twelve classes of three families, numbered in turn: a family is told by one input, a class by a small one."""
    random = np.random.default_rng(0)
    targets = random.integers(0, FAMILIES * EACH, 900)
    features = 3.0 * np.eye(FAMILIES)[targets % FAMILIES]
    features = np.concatenate([features, np.eye(EACH)[targets // FAMILIES]], 1) + 0.2 * random.normal(size=(900, 7))
    return Dataset("families", features, targets, FAMILIES * EACH, (7,))


def test_a_run_learns_its_groups_and_records_how(tmp_path: Path) -> None:
    data, flags = families(), {**FLAGS, "strategy": "class-cut", "groups": "cluster"}
    setup = set_up(configure(data=data, **flags), torch.device("cpu"))
    cut = setup.config.strategy
    assert isinstance(cut, ClassCut)
    group = cut.deal(FAMILIES * EACH, 3, 0).group
    assert len({(number % FAMILIES, int(group[number])) for number in range(FAMILIES * EACH)}) == FAMILIES
    run = trained(tmp_path / "named", data=data, **flags)
    assert run.config["groups"] == "cluster"
    assert run.config["strategy"] == "class-cut"
    train = read_tables(configure(data=data, **flags)).train
    given = ClassCut(own_share=0.5, groups=Clusters.of(class_profiles(train), 3, 0))
    other = trained(tmp_path / "given", data=data, **{k: v for k, v in FLAGS.items() if k != "own_share"},
                    strategy=given)  # fmt: skip
    assert without_times(run) == without_times(other)
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("named", "given"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    owned = sorted(tuple(one[name].tolist()) for name in one if name.endswith("owned"))
    assert owned == [tuple(range(family, FAMILIES * EACH, FAMILIES)) for family in range(FAMILIES)]


@pytest.mark.processes
def test_over_processes_every_worker_learns_the_same(tmp_path: Path) -> None:
    flags = {**FLAGS, "strategy": "class-cut", "groups": "cluster", "data": "digits", "workers": 2}
    runs = [trained(tmp_path / executor, **flags, executor=executor) for executor in ("serial", "processes")]
    assert without_times(runs[0]) == without_times(runs[1])


def test_of_data_that_is_not_read_here_groups_are_given(tmp_path: Path) -> None:
    items = TensorDataset(torch.zeros(100, 7), torch.zeros(100, dtype=torch.long))
    with pytest.raises(InvalidInput, match="`groups` 'cluster' needs data that isthmus reads itself"):
        trained(tmp_path / "run", data=(items, items), model=lambda: torch.nn.Linear(7, 12),
                example=(torch.zeros(2, 7),), workers=3, rounds=1, batch_size=8, strategy="class-cut",
                groups="cluster")  # fmt: skip


def groups_of_ones_own() -> None:
    likes = np.random.default_rng(torch.distributed.get_rank()).normal(size=(12, 3))
    alone(ClassCut(groups=Clusters.of(likes, 2, 0)))


def alone(strategy: ClassCut) -> Training:
    network = torch.nn.Sequential(torch.nn.Linear(7, 6), torch.nn.ReLU(), torch.nn.Linear(6, 12))
    return Training(network, (torch.zeros(2, 7),), lambda module: torch.optim.SGD(module.parameters(), 0.1), strategy)


def test_what_was_saved_with_other_groups_is_refused() -> None:
    likes = (np.random.default_rng(seed).normal(size=(12, 3)) for seed in (0, 1))
    one, other = (ClassCut(groups=Clusters.of(each, 2, 0)) for each in likes)
    assert one.record() == other.record()
    assert one.identity != other.identity
    whole = Clusters.of(np.zeros((12, 3)), 1, 0)
    saved = alone(ClassCut(groups=whole)).state_dict()
    alone(ClassCut(groups=whole)).load_state_dict(saved)
    with pytest.raises(InvalidInput, match=r"was saved with strategy .*checksum"):
        alone(ClassCut()).load_state_dict(saved)


@pytest.mark.processes
def test_workers_that_learned_other_groups_are_refused() -> None:
    """As each would of its own share of the data: then nobody would know whose a class is."""
    with pytest.raises(RuntimeError, match=r"`strategy` .as a whole. must be the same on all workers: .*checksum"):
        processes(groups_of_ones_own, 2)
