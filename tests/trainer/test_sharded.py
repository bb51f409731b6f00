"""Sharded softmax: the gradients of one wide network with a block-diagonal last layer; a number a sample travels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cases.loops import WAYS, in_turn, same, sgd, state_of
from cases.runs import trained
from isthmus import Training
from isthmus.errors import InvalidInput, WorkerError
from isthmus.nets import trace
from isthmus.nets.models.block_softmax import load_block_softmax
from isthmus.partitions.groups import random_groups
from isthmus.strategies import ShardedSoftmax
from isthmus.trainer import configure, memory_plan

WORKERS, CLASSES, BATCH, STEPS = 3, 10, 8, 5
EXAMPLE = (torch.zeros(2, 6),)


def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, CLASSES))


def data() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(64, 6, generator=random)
    return x, (x @ torch.randn(6, CLASSES, generator=random)).argmax(1)


def job(strategy: ShardedSoftmax, folder: str | None = None) -> dict[str, Any]:
    training, (x, y) = Training(network(), EXAMPLE, sgd, strategy, local_steps=2), data()
    taken = []
    for _, batch in zip(range(STEPS), training.batches(y, BATCH), strict=False):
        taken.append(batch)
        functional.cross_entropy(training.module(x[batch]), training.targets(y[batch])).backward()
        training.optimizer.step()
        training.optimizer.zero_grad()
    with training.whole() as merged, torch.no_grad():
        assert merged is not None
        found = {"state": state_of(merged), "scores": merged(x)}
    if folder is not None:
        training.export(f"{folder}/model.safetensors")
    account = training.account()
    training.close()
    sent, most = torch.tensor(account.sent_bytes), torch.tensor(account.memory_bytes)
    return found | {"sent": sent, "most": most, "taken": torch.tensor(taken)}


class Wide(nn.Module):
    """Blocks side by side, the last layer block-diagonal, one softmax over all classes."""

    def __init__(self, width: int) -> None:
        super().__init__()
        whole: Any = network()
        group = random_groups(CLASSES, WORKERS, 0)
        sets = trace(network(), EXAMPLE).partition(WORKERS, 0, 0, "block").held["0"]
        self.owned = [torch.from_numpy(np.flatnonzero(group == each)) for each in range(WORKERS)]
        self.blocks = nn.ModuleList()
        larger = torch.tensor(width / 12, dtype=torch.float64).rsqrt().float()
        for seat, own in enumerate(self.owned):
            order = np.concatenate([sets[(seat + step) % WORKERS] for step in range(WORKERS)])
            units = np.sort(order[:width])
            block = nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, len(own)))
            with torch.no_grad():
                block[0].weight.copy_(whole[0].weight[units])
                block[0].bias.copy_(whole[0].bias[units])
                block[2].weight.copy_(whole[2].weight[own][:, units] * larger)
                block[2].bias.copy_(whole[2].bias[own])
            self.blocks.append(block)

    def forward(self, x: Tensor) -> Tensor:
        scores = x.new_zeros(len(x), CLASSES)
        for block, own in zip(self.blocks, self.owned, strict=True):
            scores = scores.index_copy(1, own, block(x))
        return scores


@pytest.mark.parametrize("width", [4, 6])
def test_gradients_are_those_of_the_wide_network(width: int, tmp_path: Path) -> None:
    found, (x, y) = in_turn(job, WORKERS, ShardedSoftmax(width / 12), str(tmp_path)), data()
    assert all(torch.equal(each["taken"], found[0]["taken"]) for each in found)
    wide = Wide(width)
    optimizer = sgd(wide)
    for batch in found[0]["taken"]:
        functional.cross_entropy(wide(x[batch]), y[batch]).backward()
        optimizer.step()
        optimizer.zero_grad()
    for name, parameter in wide.named_parameters():
        _, seat, rest = name.split(".", 2)
        assert torch.allclose(found[0]["state"][f"pieces.{seat}.body.{rest}"], parameter, atol=2e-6), name
    with torch.no_grad():
        assert torch.allclose(found[1]["scores"], wide(x), atol=1e-5)
    # A number a sample and step to both others, and back; nothing else.
    assert found[0]["sent"].tolist() == [STEPS * BATCH * 4 * (WORKERS - 1)] * WORKERS
    again = load_block_softmax(tmp_path / "model.safetensors", network(), EXAMPLE)
    with torch.no_grad():
        assert torch.equal(again(x), found[0]["scores"])


@pytest.mark.processes
def test_processes_give_the_same_bits() -> None:
    one, other = (way(job, 2, ShardedSoftmax()) for way in WAYS.values())
    assert same(one[0]["state"], other[1]["state"])
    assert torch.equal(one[0]["sent"], other[0]["sent"])


def test_it_is_as_large_as_narrow_at_most_and_planned_as_it_is_counted() -> None:
    shown = (torch.zeros(BATCH, 6),)
    plans = memory_plan(network(), shown, sgd, "sharded-softmax", workers=WORKERS)
    limit = 4 * 6 + 4 + 4 * CLASSES + CLASSES
    width = max(w for w in range(1, 13) if 7 * w + 4 * w + 4 <= limit)  # the first worker has 4 of 10 classes
    assert plans[0].piece <= 4 * limit
    sizes = [7 * width + rows * (width + 1) for rows in np.bincount(random_groups(CLASSES, WORKERS, 0))]
    assert [plan.piece for plan in plans] == [4 * size for size in sizes]
    assert [plan.held for plan in plans] == in_turn(job, WORKERS, ShardedSoftmax())[0]["most"].tolist()


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_command_moves_what_is_planned(tmp_path: Path, accumulate: int) -> None:
    flags: dict[str, Any] = {"strategy": "sharded-softmax", "workers": 2, "widths": (16,), "rounds": 3,
                             "local_steps": 4, "batch_size": 16, "accumulate": accumulate, "eval_every": 3}  # fmt: skip
    run = trained(tmp_path / "run", **flags)
    assert run.summary["sent_bytes"] == run.summary["received_bytes"] == [12 * 16 * 4] * 2
    planned = run.summary["planned"]["round_hops"][0]
    assert run.summary["planned"]["round_sent_bytes"] == [4 * 16 * 4] * 2
    assert run.summary["planned"]["held_bytes"] == run.summary["worker_memory_bytes"]
    assert run.summary["routed_bytes"][0] > 0
    assert "own_share" not in run.summary
    assert run.rows[-1]["test_loss"] < run.rows[0]["test_loss"]
    assert run.rows[2]["hops"] in (planned, [planned] * 2)  # a round without an evaluation


def test_one_worker_trains_as_without_isthmus() -> None:
    training, plain, (x, y) = Training(network(), EXAMPLE, sgd, "sharded-softmax"), network(), data()
    optimizer = sgd(plain)
    for _ in range(4):
        functional.cross_entropy(training.module(x), training.targets(y)).backward()
        training.optimizer.step()
        training.optimizer.zero_grad()
        functional.cross_entropy(plain(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
    for name, parameter in plain.named_parameters():
        assert torch.allclose(training.module.get_parameter(f"body.{name}"), parameter, atol=1e-6)


def uneven() -> None:
    training, (x, y) = Training(network(), EXAMPLE, sgd, "sharded-softmax"), data()
    for _ in range(3 - training.worker):
        functional.cross_entropy(training.module(x), training.targets(y)).backward()
        training.optimizer.step()
    training.close()


def other_batches(longer: int) -> None:
    training, (x, y) = Training(network(), EXAMPLE, sgd, "sharded-softmax"), data()
    for step in range(3):
        other = (step == 2) * training.worker
        taken = slice(step + other, step + other * longer + 6)
        functional.cross_entropy(training.module(x[taken]), training.targets(y[taken])).backward()
        training.optimizer.step()


@pytest.mark.processes
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("longer", [0, 1], ids=["another number of samples", "other samples"])
def test_workers_that_take_other_batches_are_told_and_nothing_hangs(way: Any, longer: int) -> None:
    with pytest.raises((WorkerError, RuntimeError), match="worker 1 has taken another batch than worker 0: with this"):
        way(other_batches, 2, longer)


def test_what_cannot_be_is_one_line() -> None:
    with pytest.raises(WorkerError, match="worker 1 has made fewer steps than the others: under strategy"):
        in_turn(uneven, 2)
    with pytest.raises(InvalidInput, match="`wire` has no effect with strategy 'sharded-softmax'"):
        configure(strategy="sharded-softmax", wire="bf16")
    with pytest.raises((InvalidInput, WorkerError), match="`workers` must be at most the number of classes, 10"):
        in_turn(lambda: Training(network(), EXAMPLE, sgd, "sharded-softmax"), 11)
