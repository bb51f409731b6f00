"""Sparse features and several labels, trained: the numbers that dense data give, and each label by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array, random_array
from torch import Tensor, nn
from torch.nn import functional

from cases.runs import trained
from isthmus.data import Dataset, over_workers, train_test
from isthmus.errors import InvalidInput
from isthmus.nets.models.block_softmax import load_block_softmax
from isthmus.trainer import configure
from isthmus.trainer.task.examples import ArrayExamples
from isthmus.trainer.task.setup import set_up
from isthmus.trainer.task.shares import batch_at, split_held_out
from isthmus.trainer.task.sparse import bags, labels

INPUTS, CLASSES, ACTIVE = 100_000, 12, 5
FLAGS: dict[str, Any] = {"workers": 2, "batch_size": 16, "local_steps": 5, "rounds": 4, "lr": 1.0}


class Bags(nn.Module):
    """One hidden layer on the weighted sum of the rows of a sample's features."""

    def __init__(self, units: int = 6, inputs: int = INPUTS, classes: int = CLASSES) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(inputs + 1, units, mode="sum", padding_idx=inputs)
        self.out = nn.Linear(units, classes)

    def forward(self, numbers: Tensor, values: Tensor) -> Tensor:
        return self.out(self.bag(numbers, per_sample_weights=values).relu())


CALL = (torch.zeros(2, ACTIVE, dtype=torch.long), torch.zeros(2, ACTIVE))


def labelled(samples: int = 400, barren: bool = True) -> Dataset:
    """Samples of 0 (or 1) to 3 labels; a label brings a feature of its own, somewhere among the 100,000."""
    random = np.random.default_rng(1)
    marks = np.zeros((samples, CLASSES), bool)
    for row in marks:
        row[random.integers(0, CLASSES, random.integers(0 if barren else 1, 4))] = True
    rows, owned = np.nonzero(marks)
    noise = np.arange(samples), 90_000 + random.integers(0, 10_000, samples)
    at = np.concatenate([rows, noise[0]]), np.concatenate([owned * 7_001, noise[1]])
    values = np.concatenate([np.ones(len(rows)), random.normal(size=samples)])
    return Dataset("labelled", csr_array((values, at), (samples, INPUTS)), csr_array(marks), CLASSES, (INPUTS,))


@pytest.mark.parametrize("flags", [{"strategy": "narrow"}, {"strategy": "class-cut", "gate": "none"}])
def test_a_run_on_several_labels_is_planned_whole(
    flags: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = trained(tmp_path / "run", data=labelled(), model=Bags, example=CALL, **FLAGS, **flags)
    assert "the plan" not in caplog.text
    assert run.summary["planned_memory_bytes"][0] >= run.summary["worker_memory_bytes"][0]


@given(seed=st.integers(0, 99), density=st.floats(0, 1), more=st.integers(0, 3))
def test_bags_and_labels_are_the_rows(seed: int, density: float, more: int) -> None:
    rows = csr_array(random_array((6, 5), density=density, rng=seed))
    marks = csr_array(np.random.default_rng(seed).random((6, 4)) < density)
    index = torch.from_numpy(np.random.default_rng(seed).integers(0, 6, 4))
    held = bags(rows, int(np.diff(rows.indptr).max()) + more, torch.float64, torch.device("cpu"))
    numbers, values = held[index]
    table = torch.cat([torch.eye(5, dtype=torch.float64), torch.full((1, 5), torch.nan)])
    table[5] = 0.0 if (numbers == 5).any() else torch.nan  # what no entry points at
    assert torch.equal((table[numbers] * values[..., None]).sum(1), torch.from_numpy(rows.toarray())[index])
    assert bool((values[numbers == 5] == 0).all())
    assert held.nbytes == 8 * 7 + (4 + 8) * (rows.nnz + 1)
    there = labels(marks, torch.device("cpu"))
    assert torch.equal(there[index], torch.from_numpy(marks.toarray())[index].float())
    assert (len(held), len(there)) == (6, 6)


def test_one_worker_is_the_plain_loop_on_dense_data(tmp_path: Path) -> None:
    data = labelled()
    flags = {**FLAGS, "workers": 1, "local_steps": 6, "rounds": 1, "schedule": "constant"}
    config = configure(data=data, model=lambda: Bags(inputs=INPUTS), example=CALL, strategy="local-sgd", **flags)
    setup = set_up(config, torch.device("cpu"))
    network = setup.network.make()
    train, _ = train_test(data, config.seed)
    _, rest = split_held_out(train.samples, config.seed)
    kept = train.take(rest)
    part = over_workers(np.arange(kept.samples), 1, config.seed)[0]
    assert not isinstance(kept.features, np.ndarray)
    assert not isinstance(kept.targets, np.ndarray)
    dense, marks = kept.features.toarray()[part], kept.targets.toarray()[part]
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0, momentum=0.9, nesterov=True)
    losses = []
    for step in range(6):
        at = batch_at(config.seed, 16, 0, len(part), step)
        x, y = torch.from_numpy(dense[at]).float(), torch.from_numpy(marks[at]).float()
        scores = network.out((x @ network.bag.weight[:INPUTS]).relu())
        loss = functional.binary_cross_entropy_with_logits(scores, y, reduction="none").sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    with torch.no_grad():
        test = setup.shares.test(torch.device("cpu")).batch(np.arange(20))
        numbers, values = test.args
        scores = network(numbers, values)
        right = [bool(row[score.argmax()]) for row, score in zip(test.targets, scores, strict=True)]
        total, count, found = setup.objective.tested(scores, test)
        expected = functional.binary_cross_entropy_with_logits(scores.double(), test.targets.double(), reduction="sum")
    assert (count, found, total) == (20, sum(right), pytest.approx(float(expected), rel=1e-12))

    run = trained(tmp_path / "run", data=data, model=Bags, example=CALL, strategy="local-sgd", **flags)
    assert run.rows[-1]["train_loss"] == pytest.approx(np.mean(losses), rel=1e-5)


def test_a_class_cut_learns_each_label_on_all_samples(tmp_path: Path) -> None:
    data = labelled(1200, barren=False)
    flags = {**FLAGS, "rounds": 60, "strategy": "class-cut", "gate": "none"}
    run = trained(tmp_path / "run", data=data, model=Bags, example=CALL, **flags)
    commonest = float(train_test(data, 0)[1].targets.mean(0).max())
    assert run.rows[-1]["test_accuracy"] > 0.7 > 2 * commonest
    served = load_block_softmax(tmp_path / "run" / "model.safetensors", Bags(), CALL)
    examples = set_up(configure(data=data, model=Bags, example=CALL, **flags), torch.device("cpu")).shares.test
    test = examples(torch.device("cpu"))
    batch = test.batch(np.arange(test.count))
    scores = served(*batch.args)
    top = batch.targets.gather(1, scores.argmax(1, keepdim=True)).mean()
    assert float(top) == pytest.approx(run.rows[-1]["test_accuracy"])


def test_a_forward_pass_without_gradients_takes_as_many_samples_as_fit() -> None:
    call = configure(data=labelled(), model=Bags, example=CALL, strategy="local-sgd", **FLAGS)
    shares = set_up(call, torch.device("cpu")).shares
    held = shares.train(shares.everything, torch.device("cpu"))
    assert isinstance(held, ArrayExamples)
    wide = labels(csr_array((len(shares.everything), 1 << 20), dtype=bool), torch.device("cpu"))
    many = ArrayExamples(held.call, held.features, wide)
    assert [len(piece) for piece in many.pieces(most=10)] == [3, 3, 4]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"strategy": "class-cut"}, "targets with several labels a sample need `gate` 'none'"),
        ({"strategy": "narrow", "balanced": True}, "class"),
        ({"strategy": "mach"}, "needs one class number a target"),
        ({"model": None, "example": None}, "`model` must name a network of .numbers, values. to train on the sparse"),
        ({"example": (CALL[0], torch.zeros(2, 4))}, r"must take \(numbers, values\) of the sparse features"),
        ({"example": (CALL[1], CALL[1])}, r"got \(2, 5\) of float32, \(2, 5\) of float32"),
        ({"example": (CALL[0][:, :3], CALL[1][:, :3])}, "takes 3 entries a sample in its example call, but one of"),
        ({"features": "standardized"}, "`features` would make the sparse features of 'labelled' dense"),
    ],
)
def test_what_does_not_go_with_such_data_is_one_line(tmp_path: Path, flags: dict[str, Any], message: str) -> None:
    base = {"model": Bags, "example": CALL, "strategy": "local-sgd", **FLAGS}
    given = {name: value for name, value in {**base, **flags}.items() if value is not None}
    with pytest.raises(InvalidInput, match=message) as caught:
        trained(tmp_path / "run", data=labelled(), **given)
    assert "\n" not in str(caught.value)


def test_gate_none_needs_several_labels(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="`gate` must be 'other' or 'worker' where every sample has one class"):
        trained(tmp_path / "run", data="digits", workers=2, strategy="class-cut", gate="none", rounds=1)


def test_another_value_and_another_label_are_told_apart() -> None:
    data = labelled()

    def terms(changed: Dataset) -> dict[str, str]:
        config = configure(data=changed, model=Bags, example=CALL, strategy="local-sgd", **FLAGS)
        return set_up(config, torch.device("cpu")).shares.terms()

    same = terms(data)
    assert same == terms(labelled())
    features, targets = data.features.copy(), data.targets.copy()
    features.data[:] *= 2
    assert isinstance(targets, csr_array)
    targets.data[:] = False
    for changed in (Dataset("labelled", features, data.targets, CLASSES, (INPUTS,)),
                    Dataset("labelled", data.features, targets, CLASSES, (INPUTS,))):  # fmt: skip
        assert terms(changed) != same
