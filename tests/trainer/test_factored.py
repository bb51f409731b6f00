"""The last layer of low rank: the very bits of a loop by hand, as large as narrow, and loaded again."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cases.loops import WAYS, in_turn, same, sgd, state_of
from cases.many import BATCH, CLASSES, EXAMPLE, batch, network
from cases.runs import trained
from isthmus import Training
from isthmus.errors import InvalidInput, WorkerError
from isthmus.nets import trace
from isthmus.nets.models.factored import load_factored
from isthmus.randomness import generator
from isthmus.strategies import Factored
from isthmus.trainer import memory_plan


def job(strategy: Factored, folder: str | None = None) -> dict[str, Any]:
    training = Training(network(), EXAMPLE, sgd, strategy, local_steps=2)
    for step in range(5):
        x, y = batch(training.seat, step)
        functional.cross_entropy(training.module(x), training.targets(y)).backward()
        training.optimizer.step()
        training.optimizer.zero_grad()
    with training.whole() as merged, torch.no_grad():
        assert merged is not None
        found = {"state": state_of(merged), "scores": merged(batch(9, 9)[0])}
    if folder is not None:
        training.export(f"{folder}/model.safetensors")
    account = training.account()
    training.close()
    return found | {"sent": torch.tensor(account.sent_bytes), "most": torch.tensor(account.memory_bytes)}


def by_hand(rank: int, width: int, workers: int) -> dict[str, Tensor]:
    """Local SGD by hand on three layers: a body of some units, r units, and a score a class."""
    sets = trace(network(), EXAMPLE).partition(workers, 0, 0, "block").held["0"]
    units = torch.cat([torch.from_numpy(each) for each in sets])[:width].sort().values
    whole: Any = network()
    drawn = torch.from_numpy(generator(0, "init/factored").uniform(-1, 1, (CLASSES, rank)) * math.sqrt(3 / rank))

    def fresh() -> nn.Sequential:
        made = nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, rank), nn.Linear(rank, CLASSES))
        with torch.no_grad():
            made[0].weight.copy_(whole[0].weight[units])
            made[0].bias.copy_(whole[0].bias[units])
            larger = torch.tensor(width / 12, dtype=torch.float64).rsqrt().float()
            made[2].weight.copy_(whole[2].weight[:rank][:, units] * larger)
            made[2].bias.copy_(whole[2].bias[:rank])
            made[3].weight.copy_(drawn)
            made[3].bias.zero_()
        return made

    models = [fresh() for _ in range(workers)]
    optimizers = [sgd(model) for model in models]
    for steps in ((0, 1), (2, 3), (4,)):
        for seat, (model, optimizer) in enumerate(zip(models, optimizers, strict=True)):
            for step in steps:
                x, y = batch(seat, step)
                functional.cross_entropy(model(x), y).backward()
                optimizer.step()
                optimizer.zero_grad()
        for parameters in zip(*(model.parameters() for model in models), strict=True):
            mean = torch.stack([each.detach() for each in parameters]).mean(0)
            for each in parameters:
                each.data.copy_(mean)
    names = ["body.0", "body.2", "head"]
    layers = [models[0][0], models[0][2], models[0][3]]
    return {f"{n}.{kind}": getattr(layer, kind) for n, layer in zip(names, layers, strict=True)
            for kind in ("weight", "bias")}  # fmt: skip


def test_one_worker_is_the_loop_by_hand_to_the_bit_and_the_file_is_the_network(tmp_path: Path) -> None:
    def once() -> dict[str, Any]:
        training = Training(network(), EXAMPLE, sgd, Factored(3, width=0.5), local_steps=50)
        for step in range(5):
            x, y = batch(0, step)
            functional.cross_entropy(training.module(x), y).backward()
            training.optimizer.step()
            training.optimizer.zero_grad()
        training.export(tmp_path / "model.safetensors")
        with training.whole() as merged, torch.no_grad():
            assert merged is not None
            return {"state": state_of(merged), "scores": merged(batch(9, 9)[0])}

    units = 6  # the first half: one worker's block is in order
    found, whole = once(), network()
    plain = nn.Sequential(nn.Linear(6, units), nn.ReLU(), nn.Linear(units, 3), nn.Linear(3, CLASSES))
    sets = torch.from_numpy(trace(network(), EXAMPLE).partition(1, 0, 0, "block").held["0"][0])[:units]
    with torch.no_grad():
        plain[0].weight.copy_(whole[0].weight[sets])  # type: ignore[index]
        plain[0].bias.copy_(whole[0].bias[sets])  # type: ignore[index]
        larger = torch.tensor(0.5, dtype=torch.float64).rsqrt().float()
        plain[2].weight.copy_(whole[2].weight[:3][:, sets] * larger)  # type: ignore[index]
        plain[2].bias.copy_(whole[2].bias[:3])  # type: ignore[index]
        plain[3].weight.copy_(torch.from_numpy(generator(0, "init/factored").uniform(-1, 1, (CLASSES, 3))))
        plain[3].bias.zero_()
    optimizer = sgd(plain)
    for step in range(5):
        x, y = batch(0, step)
        functional.cross_entropy(plain(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
    for mine, theirs in (("body.0", plain[0]), ("body.2", plain[2]), ("head", plain[3])):
        for kind in ("weight", "bias"):
            assert torch.equal(found["state"][f"{mine}.{kind}"], getattr(theirs, kind))
    again = load_factored(tmp_path / "model.safetensors", network(), EXAMPLE)
    with torch.no_grad():
        assert torch.equal(again(batch(9, 9)[0]), found["scores"])


def test_workers_average_what_each_has_trained() -> None:
    found = in_turn(job, 3, Factored(3, width=0.5))
    assert all(same(each["state"], found[0]["state"]) for each in found)
    for name, tensor in by_hand(3, 6, 3).items():
        assert torch.allclose(found[0]["state"][name], tensor, atol=1e-6), name
    size = sum(tensor.numel() for name, tensor in found[0]["state"].items() if name.startswith(("body", "head")))
    assert found[0]["sent"].sum() == 3 * 4 * 2 * 2 * size  # three rounds; a mean of three sends 2 (n - 1)


@pytest.mark.processes
def test_processes_give_the_same_bits() -> None:
    one, other = (way(job, 2, Factored(3)) for way in WAYS.values())
    assert same(one[0]["state"], other[1]["state"])


def test_it_is_as_large_as_narrow_and_planned_as_it_is_counted() -> None:
    shown = (torch.zeros(BATCH, 6),)
    narrow = memory_plan(network(), shown, sgd, "narrow", workers=3)[0]
    limit = 4 * 6 + 4 + 4 * CLASSES + CLASSES
    for strategy, rank in ((Factored(1), 1), (Factored(2), 2), (Factored(), 2)):
        width = max(w for w in range(1, 13) if 7 * w + rank * (w + 1) + CLASSES * (rank + 1) <= limit)
        plans = memory_plan(network(), shown, sgd, strategy, workers=3)
        size = 7 * width + rank * (width + 1) + CLASSES * (rank + 1)
        assert narrow.piece == 4 * limit >= plans[0].piece == 4 * size
        assert [plan.held for plan in plans] == in_turn(job, 3, strategy)[0]["most"].tolist()
    rank = max(r for r in range(1, CLASSES) if 7 * 6 + r * 7 + CLASSES * (r + 1) <= limit)
    wide = memory_plan(network(), shown, sgd, Factored(width=0.5), workers=3)[0]
    assert wide.piece == 4 * (7 * 6 + rank * 7 + CLASSES * (rank + 1))


def test_the_command_trains_it(tmp_path: Path) -> None:
    flags: dict[str, Any] = {"strategy": "factored", "workers": 2, "widths": (16,), "rounds": 3, "local_steps": 4}
    run = trained(tmp_path / "run", **flags, rank=4)
    assert run.summary["planned"]["held_bytes"] == run.summary["worker_memory_bytes"]
    assert run.summary["planned"]["round_sent_bytes"] == [sent / 3 for sent in run.summary["sent_bytes"]]
    assert run.config["rank"] == 4
    assert run.summary["flops_per_worker"] > 0


@pytest.mark.parametrize(
    ("strategy", "said"),
    [
        (lambda: Factored(0), "`rank` must be at least 1, got 0"),
        (lambda: Factored(40), "`rank` must be less than the number of classes, 40, got 40"),
        (lambda: Factored(30), "strategy 'factored' cannot have as few parameters as narrow has here"),
    ],
)
def test_what_cannot_be_is_one_line(strategy: Any, said: str) -> None:
    with pytest.raises((InvalidInput, WorkerError), match=said):
        in_turn(lambda: Training(network(), EXAMPLE, sgd, strategy()), 3)
