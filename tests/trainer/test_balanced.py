"""Class-balanced sampling: every class as often, every sample of a class in its turn, and the twin's very bits."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from cases.loops import in_turn, sgd
from cases.runs import trained
from isthmus import Training
from isthmus.errors import InvalidInput
from isthmus.strategies import Narrow
from isthmus.trainer import configure
from isthmus.trainer.task.balanced import Balanced, balanced_of
from isthmus.trainer.task.setup import set_up


def test_every_class_comes_as_often_and_every_sample_of_it_in_its_turn() -> None:
    targets = np.array([7] * 5 + [2] * 40 + [4] * 13)
    order = Balanced(targets, 6, 0, 1)
    taken = np.concatenate([order.at(step) for step in range(65)])  # 130 turns of three classes: 26, 3.25, 10 rounds
    counts = Counter(targets[taken].tolist())
    assert counts == {7: 130, 2: 130, 4: 130}
    for number, size in ((7, 5), (2, 40), (4, 13)):
        each = np.unique(taken[targets[taken] == number], return_counts=True)[1]
        assert len(each) == size
        assert each.max() - each.min() <= 1
    assert not np.array_equal(Balanced(targets, 6, 0, 2).at(0), order.at(0))
    assert all(len(set(targets[order.at(step)])) == 3 for step in range(9))  # two of each in every batch of six


def test_the_command_takes_balanced_batches(tmp_path: Path) -> None:
    """Narrow with one worker is the network itself: a loop by hand over balanced batches gives its bits."""
    flags: dict[str, Any] = {
        "strategy": "narrow", "balanced": True, "workers": 1, "widths": (8,), "norm": "none", "rounds": 2,
        "local_steps": 4, "batch_size": 16, "keep_state": True,
    }  # fmt: skip
    run = trained(tmp_path / "run", **flags)
    setup = set_up(configure(**flags), torch.device("cpu"))
    network, order = setup.network.make(), balanced_of(setup.shares, 0, 16, 0)
    optimizer, share = setup.config.optimizer.make(network), setup.shares.of(0, torch.device("cpu"))
    for step in range(8):
        batch = share.batch(order.at(step))
        functional.cross_entropy(network(*batch.args), batch.targets).backward()
        for group in optimizer.param_groups:
            group["lr"] = setup.config.lr_at(step)
        optimizer.step()
        optimizer.zero_grad()
    from safetensors.torch import load_file

    saved = load_file(run.path / "model.safetensors")
    assert torch.equal(saved["output.weight"], network.output.weight)
    assert run.config["balanced"] is True


def test_a_loop_of_ones_own_takes_them_of_its_share() -> None:
    y = torch.tensor([0] * 90 + [1] * 6)

    def draws() -> tuple[list[int], list[int]]:
        training = Training(torch.nn.Linear(2, 2), (torch.zeros(2, 2),), sgd, "local-sgd")
        with pytest.raises(InvalidInput, match=r"batches\(\) has no effect with strategy 'local-sgd'"):
            training.batches(y, 4)
        training = Training(
            torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2)), (torch.zeros(2, 2),),
            sgd, Narrow(balanced=True),
        )  # fmt: skip
        with pytest.raises(InvalidInput, match="`own_share` has no effect with strategy 'narrow'"):
            training.batches(y, 4, 0.5)
        taken = [place for batch in training.batches(y, 4) for place in batch]
        return taken, list(training.share(y).indices)

    for taken, share in in_turn(draws, 2):
        assert set(taken) <= set(share)
        assert y[taken].float().mean() == 0.5


def test_several_targets_a_sample_are_one_line() -> None:
    with pytest.raises(InvalidInput, match="`balanced` needs one class number a sample"):
        Balanced(np.zeros((4, 2), np.int64), 2, 0, 0)
