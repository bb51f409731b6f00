"""Sampled softmax: without bias in what it sums, the softmax itself where all are drawn, and the loop's own bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from cases.loops import WAYS, in_turn, same, sgd, state_of
from cases.many import BATCH, CLASSES, EXAMPLE, batch, network
from cases.runs import trained
from isthmus import Training
from isthmus.errors import InvalidInput, WorkerError
from isthmus.nets.models.sampled import Sampled, chances_of
from isthmus.strategies import Narrow, SampledSoftmax


def job(strategy: Narrow) -> dict[str, Any]:
    training = Training(network(), EXAMPLE, sgd, strategy, local_steps=2)
    torch.manual_seed(training.seat)
    for step in range(5):
        x, y = batch(training.seat, step)
        wanted = training.targets(y)
        functional.cross_entropy(training.module(x), wanted).backward()
        training.optimizer.step()
        training.optimizer.zero_grad()
    with training.whole() as merged, torch.no_grad():
        assert merged is not None
        found = {"state": state_of(merged), "scores": merged(batch(9, 9)[0])}
    account = training.account()
    training.close()
    return found | {"sent": torch.tensor(account.sent_bytes)}


def test_with_all_classes_drawn_it_is_the_narrow_network_with_the_whole_softmax() -> None:
    full, narrow = in_turn(job, 3, SampledSoftmax(negatives=CLASSES)), in_turn(job, 3, Narrow())
    assert full[0]["state"].keys() == narrow[0]["state"].keys()
    assert all(torch.allclose(full[0]["state"][n], t, atol=1e-6) for n, t in narrow[0]["state"].items())
    few = in_turn(job, 3, SampledSoftmax(negatives=5))
    assert torch.equal(few[0]["sent"], narrow[0]["sent"])
    assert not torch.allclose(few[0]["scores"], narrow[0]["scores"], atol=1e-3)


@pytest.mark.processes
def test_processes_give_the_same_bits() -> None:
    one, other = (way(job, 2, SampledSoftmax(negatives=5)) for way in WAYS.values())
    assert same(one[0]["state"], other[1]["state"])


@pytest.mark.parametrize("frequencies", [np.ones(12), 1 / np.arange(1, 13)], ids=["even", "zipf"])
def test_every_class_is_drawn_with_its_chance_and_the_sum_has_no_bias(frequencies: np.ndarray) -> None:
    chances = chances_of(frequencies, 5)
    assert chances.sum() == pytest.approx(5)
    assert chances.max() <= 1
    torch.manual_seed(0)
    scores = torch.randn(12, dtype=torch.float64)
    body = nn.Linear(1, 12, dtype=torch.float64)
    with torch.no_grad():
        body.weight[:, 0].copy_(scores)
        body.bias.zero_()
    module = Sampled(body, ["weight", "bias"], torch.from_numpy(chances), 5)
    counts, sums, draws = np.zeros(12), [], 4000
    for _ in range(draws):
        drawn = module._draw()
        assert len(set(drawn.tolist())) == 5
        counts[drawn.numpy()] += 1
        module.tell(torch.tensor([7]))
        sums.append(module(torch.ones(1, 1, dtype=torch.float64)).detach().exp().sum().item())
    assert (np.abs(counts / draws - chances) < 4.5 * np.sqrt(chances * (1 - chances) / draws) + 1e-12).all()
    error = np.std(sums) / np.sqrt(draws)
    assert abs(np.mean(sums) - scores.exp().sum().item()) < 4.5 * error


def test_a_step_by_hand_and_what_a_step_costs() -> None:
    """The right class as it is, drawn ones corrected, the right one never twice; rows that are not scored stay."""
    body = network()
    chances = torch.from_numpy(chances_of(np.ones(CLASSES), 6))
    module, (x, y) = Sampled(body, ["2.weight", "2.bias"], chances, 6), batch(0, 0)
    y[3] = -100
    torch.manual_seed(4)
    wanted = module.tell(y)
    assert wanted.tolist() == [0, 0, 0, -100, 0, 0, 0, 0]
    found = module(x)
    torch.manual_seed(4)
    drawn, whole = module._draw(), body(x)
    for row in range(BATCH):
        right = max(0, int(y[row]))
        assert torch.isclose(found[row, 0], whole[row, right])
        for place, each in enumerate(drawn.tolist(), start=1):
            expected = whole[row, each] - torch.log(torch.tensor(6 / CLASSES))
            assert found[row, place] == -torch.inf if each == right else torch.isclose(found[row, place], expected)
    functional.cross_entropy(found, wanted).backward()
    touched = {*y.clamp(min=0).tolist(), *drawn.tolist()}
    gradient = body[2].weight.grad  # type: ignore[index]
    assert {row for row in range(CLASSES) if gradient[row].any()} <= touched
    assert torch.isfinite(gradient).all()
    assert module.eval()(x).shape == (BATCH, CLASSES)


def test_the_command_trains_it_for_fewer_operations_than_narrow(tmp_path: Path) -> None:
    common: dict[str, Any] = {"workers": 2, "widths": (16,), "rounds": 3, "local_steps": 4, "batch_size": 4,
                              "data": "many:200:8"}  # fmt: skip
    run = trained(tmp_path / "run", **common, strategy="sampled-softmax", negatives=10, frequencies="zipf")
    again = trained(tmp_path / "again", **common, strategy="sampled-softmax", negatives=10, frequencies="zipf")
    narrow = trained(tmp_path / "narrow", **common, strategy="narrow")
    assert run.summary["weights_sha256"] == again.summary["weights_sha256"]
    assert run.summary["planned"]["held_bytes"] == run.summary["worker_memory_bytes"]
    assert run.summary["sent_bytes"] == narrow.summary["sent_bytes"]
    assert run.summary["flops_per_worker"] < 0.8 * narrow.summary["flops_per_worker"]
    assert run.summary["model_parameters"] == narrow.summary["model_parameters"]


def test_what_cannot_be_is_one_line() -> None:
    training = Training(network(), EXAMPLE, sgd, "sampled-softmax")
    x, y = batch(0, 0)
    with pytest.raises(InvalidInput, match=r"y = training\.targets\(y\) first, then training\.module\(x\)"):
        training.module(x)
    training.targets(y[:4])
    with pytest.raises(InvalidInput, match=r"got shape \(8, 8\) where \(4, 8\) is needed"):
        training.module(x)
    with pytest.raises(InvalidInput, match="strategy 'sampled-softmax' needs one class number a target"):
        training.targets(x)
    with pytest.raises((InvalidInput, WorkerError), match="`negatives` must be at most the number of classes, 40"):
        Training(network(), EXAMPLE, sgd, SampledSoftmax(negatives=41))
    with pytest.raises(InvalidInput, match="`frequencies` must be one of"):
        SampledSoftmax(frequencies="odd")
