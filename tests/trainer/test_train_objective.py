"""Data, losses and metrics of one's own, from Python; and what is wrong with them in one line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_model
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, SequentialSampler, WeightedRandomSampler

import isthmus
from cases.groups import run_group
from cases.objectives import Items, Named, Plain, balanced, blobs, several, sums
from cases.runs import trained
from cases.strategies import ON_ANY
from isthmus.data import load, train_test
from isthmus.errors import InvalidInput
from isthmus.nets.models.mlp import MLP, MLPSpec
from isthmus.records import RunWriter
from isthmus.trainer import TrainConfig, configure
from isthmus.trainer.executors.processes import run_worker

BLOBS = (Items(*blobs()), Items(*blobs(200, 1)))
SMALL: dict[str, Any] = {"workers": 2, "batch_size": 16, "local_steps": 4, "rounds": 8, "lr": 0.1}
POINTS = torch.zeros(2, 6)
LABELS = torch.zeros(2, dtype=torch.int64)


def own(**changes: Any) -> dict[str, Any]:
    return {**SMALL, "data": BLOBS, "model": Plain, "example": (POINTS,), **changes}


def scored(folder: Path, network: nn.Module, data: Items) -> Tensor:
    """What the saved network says of some items."""
    load_model(network, str(folder / "run" / "model.safetensors"))
    with torch.no_grad():
        return network.eval()(data.inputs)


@pytest.mark.parametrize("strategy", ON_ANY)
def test_datasets_of_ones_own(tmp_path: Path, strategy: str) -> None:
    run = trained(tmp_path / "run", **own(strategy=strategy))
    assert run.summary["test_accuracy"] > 0.85
    if strategy != "narrow":  # whose network is narrower
        right = scored(tmp_path, Plain(), BLOBS[1]).argmax(1) == BLOBS[1].targets
        assert right.double().mean().item() == run.summary["test_accuracy"]
    assert (run.config["data"], run.command) == ("own data", None)
    assert run.summary["samples"] == 2 * 16 * 4 * 8


def test_loaders_are_their_dataset_and_their_way_to_make_batches(tmp_path: Path) -> None:
    """The order is isthmus' own: shuffled or not, the same bits as the datasets; what is collated is collated."""
    plain = trained(tmp_path / "plain", **own()).summary
    loaders = tuple(DataLoader(part, batch_size=7, shuffle=True) for part in BLOBS)
    assert trained(tmp_path / "loaders", **own(data=loaders)).summary["weights_sha256"] == plain["weights_sha256"]
    doubled = tuple(DataLoader(part, batch_size=7, collate_fn=twice) for part in BLOBS)
    assert trained(tmp_path / "twice", **own(data=doubled)).summary["weights_sha256"] != plain["weights_sha256"]


def twice(items: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    return 2 * torch.stack([each for each, _ in items]), torch.stack([target for _, target in items])


@pytest.mark.parametrize("strategy", ON_ANY)
def test_dictionaries_of_arguments_for_a_network_with_a_loss_of_its_own(tmp_path: Path, strategy: str) -> None:
    """The loss it returns is the one that is trained and tested by; the accuracy is that of its logits."""
    data = (Named(*blobs()), Named(*blobs(200, 1)))
    example = {"x": POINTS, "labels": LABELS}
    run = trained(tmp_path / "run", **own(data=data, example=example, strategy=strategy))
    assert run.summary["test_accuracy"] > 0.8
    if strategy != "narrow":
        load_model(network := Plain(), str(tmp_path / "run" / "model.safetensors"))
        with torch.no_grad():
            expected = network.eval()(*blobs(200, 1))["loss"].item()
        assert run.summary["test_loss"] == pytest.approx(expected, rel=1e-5)


def test_a_regression(tmp_path: Path) -> None:
    data = (Items(*sums()), Items(*sums(200, 1)))
    run = trained(tmp_path / "run", **own(data=data, model=one_number, loss=nn.MSELoss(), metric=explained))
    predicted = scored(tmp_path, Plain(1), data[1])
    assert run.summary["test_loss"] == pytest.approx(
        nn.functional.mse_loss(predicted, data[1].targets).item(), rel=1e-5
    )
    assert run.summary["test_metric"] == pytest.approx(explained(predicted, data[1].targets), rel=1e-4)
    assert run.summary["test_metric"] > 0.5
    assert run.summary["test_accuracy"] is None
    assert run.rows[-1]["test_metric"] == run.summary["test_metric"]


def one_number() -> nn.Module:
    return Plain(1)


def four_labels() -> nn.Module:
    return Plain(4)


def explained(outputs: Tensor, targets: Tensor) -> float:
    return 1 - ((outputs - targets) ** 2).mean().item() / targets.var().item()


def test_several_labels_a_sample(tmp_path: Path) -> None:
    data = (Items(*several()), Items(*several(200, 1)))
    run = trained(tmp_path / "run", **own(data=data, model=four_labels, loss=nn.BCEWithLogitsLoss(), rounds=20))
    predicted = scored(tmp_path, Plain(4), data[1])
    expected = nn.functional.binary_cross_entropy_with_logits(predicted, data[1].targets).item()
    assert run.summary["test_loss"] == pytest.approx(expected, rel=1e-5)
    assert run.summary["test_loss"] < 0.7 * run.rows[0]["test_loss"]


def test_the_metric_is_of_the_whole_test_part(tmp_path: Path) -> None:
    flags = {"widths": (16,), "workers": 2, "rounds": 2, "loss": "cases.objectives:smoothed"}
    run = trained(tmp_path / "run", **flags, metric="cases.objectives:balanced")
    test = train_test(load("digits"), 0)[1]
    load_model(network := MLP(MLPSpec(64, (16,), 10)), str(tmp_path / "run" / "model.safetensors"))
    with torch.no_grad():
        outputs = network.eval()(torch.from_numpy(test.features).float())
    targets = torch.from_numpy(test.targets)
    assert run.summary["test_metric"] == pytest.approx(balanced()(outputs, targets).item())
    smoothed = nn.functional.cross_entropy(outputs, targets, label_smoothing=0.1).item()
    assert run.summary["test_loss"] == pytest.approx(smoothed, rel=1e-5)
    assert run.config["loss"] == "cases.objectives:smoothed"


@pytest.mark.processes
@pytest.mark.parametrize("strategy", ON_ANY)
def test_own_data_and_loss_over_processes_equal_serial(tmp_path: Path, strategy: str) -> None:
    data = (Items(*several()), Items(*several(200, 1)))
    flags = own(data=data, model=four_labels, loss=nn.BCEWithLogitsLoss(), strategy=strategy)
    serial = trained(tmp_path / "serial", **flags).summary
    with RunWriter(tmp_path / "processes", "train", {}):
        found = run_group(_worker, 2, configure(**flags, out=tmp_path / "processes"))
    assert found[0]["weights_sha256"] == serial["weights_sha256"]
    assert found[0]["test_loss"] == serial["test_loss"]


def _worker(config: TrainConfig) -> dict[str, Any] | None:
    return run_worker(config, config.out)


# What is wrong, in one line.

OTHER_TARGETS = Items(blobs()[0], several()[1])
LATE = blobs()[1].clone()
LATE[250] = -3


class Mean(Plain):
    """Returns its loss alone."""

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Any:
        return super().forward(x).mean()


class Stream(IterableDataset[Any]):
    """Has no length."""

    def __iter__(self) -> Iterator[Any]:
        yield from zip(*blobs(), strict=True)


def on_cuda() -> nn.Module:
    return Plain().cuda()


def tripled(items: list[Any]) -> tuple[Any, ...]:
    return (*twice(items), None)


def sampled(sampler: Any) -> tuple[DataLoader[Any], Items]:
    return DataLoader(BLOBS[0], sampler=sampler), BLOBS[1]


BAD: list[tuple[dict[str, Any], str]] = [
    ({"model": Mean}, r"`model` must return logits of every sample, \[samples, classes\], got shape \(\)"),
    ({"data": (OTHER_TARGETS, BLOBS[1])}, r"needs one class number for each of \(2,\) outputs.*give a `loss`"),
    ({"data": (Items(*sums()), BLOBS[1])}, "needs one class number for each of"),
    (
        {"data": (Items(blobs()[0], torch.full((400,), 7)), BLOBS[1])},
        r"is 7, but the network returns 3 classes, 0\.\.2",
    ),
    ({"model": on_cuda}, "CUDA"),
    ({"data": BLOBS[0]}, r"must be a name, a Dataset, or two datasets or loaders \(train, test\), got Items"),
    ({"data": (Stream(), BLOBS[1])}, "the train part of `data` must have a length and items by number, got Stream"),
    ({"data": (BLOBS[0], Items(*blobs(0)))}, "the test part of `data` must hold at least one sample"),
    ({"data": (DataLoader(BLOBS[0], collate_fn=tripled), BLOBS[1])}, "got tuple of 3"),
    (
        {"data": sampled(WeightedRandomSampler([1.0] * 400, 400))},
        "has a sampler of its own, which would have no effect",
    ),
    ({"features": "standardized"}, "`features` has no effect on datasets of one's own"),
    ({"batch_size": 200}, "`batch_size` must be at most a worker's share of the training data"),
    ({"model": None, "example": None}, "`model` must name or be a network to train on datasets of one's own"),
    ({"model": Plain(), "example": None}, "`example` must be a call of the network"),
    ({"example": (torch.zeros(6),)}, "batch dimension"),
    ({"example": (torch.zeros(2, 7),)}, "cannot be"),
    ({"loss": nn.MSELoss}, "`loss` must be a function of"),
    ({"loss": nn.CrossEntropyLoss(reduction="none")}, r"`loss` must return one number, .*, got \(2,\)"),
    ({"optimizer": "adam"}, "did you mean 'adamw'"),
    ({"optimizer": lambda module: None}, "`optimizer` must return a torch optimizer, got NoneType"),
    ({"loss": "cases.objectives:no_loss"}, "`loss` must return a function of"),
    ({"loss": "cases.objectives:breaks"}, "`loss` 'cases.objectives:breaks' fails: RuntimeError: no such file"),
    ({"metric": "cases.objectives:balance"}, "did you mean 'balanced'"),
]


@pytest.mark.parametrize(("changes", "message"), BAD, ids=[message[:50] for _, message in BAD])
def test_a_mistake_is_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    flags = own(**changes)
    if "optimizer" in changes:
        flags["lr"] = None
    with pytest.raises(InvalidInput, match=message) as error:
        trained(tmp_path / "run", **flags)
    assert "\n" not in str(error.value)


def test_a_batch_sampler_of_ones_own_is_refused_too(tmp_path: Path) -> None:
    class Pairs(BatchSampler):
        """Some rule of its own."""

    loader = DataLoader(BLOBS[0], batch_sampler=Pairs(SequentialSampler(BLOBS[0]), 2, False))
    with pytest.raises(InvalidInput, match="has a sampler of its own"):
        trained(tmp_path / "run", **own(data=(loader, BLOBS[1])))


@pytest.mark.parametrize(("sample", "value"), [(250, -3), (251, 3), (399, 70)])
def test_a_label_out_of_range_found_while_training_is_named(tmp_path: Path, sample: int, value: int) -> None:
    """The number is that of the sample in the data set, not of its place in a worker's share."""
    inputs, targets = blobs()
    targets[sample] = value
    said = f"the target of sample {sample} is {value}, but the network returns 3 classes"
    with pytest.raises(InvalidInput, match=said) as error:
        trained(tmp_path / "run", **own(data=(Items(inputs, targets), BLOBS[1]), rounds=20))
    assert "\n" not in str(error.value)


def test_a_label_out_of_range_in_the_test_part_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="the target of sample 250 is -3, but the network returns 3 classes"):
        trained(tmp_path / "run", **own(data=(BLOBS[0], Items(blobs()[0], LATE))))


class Unlabeled(Named):
    """Named arguments under another name than `labels`, which a metric cannot know."""

    def __getitem__(self, number: int) -> Any:
        return {"x": self.inputs[number], "wanted": self.targets[number]}


class Wanting(Plain):
    """Takes its labels under another name."""

    def forward(self, x: Tensor, wanted: Tensor) -> Any:
        return super().forward(x, wanted)


def test_a_metric_without_targets_is_one_line(tmp_path: Path) -> None:
    data = (Unlabeled(*blobs()), Unlabeled(*blobs(200, 1)))
    flags = own(data=data, model=Wanting, example={"x": POINTS, "wanted": LABELS})
    assert trained(tmp_path / "without", **flags).summary["test_accuracy"] is None
    with pytest.raises(InvalidInput, match=r"^`metric` needs targets that are a tensor, got NoneType$"):
        trained(tmp_path / "run", **flags, metric=balanced())


@pytest.mark.skipif(torch.cuda.is_available(), reason="has CUDA")
def test_a_cuda_device_without_cuda_is_one_line() -> None:
    with pytest.raises(InvalidInput, match="`device` is cuda, but this machine has no CUDA") as error:
        isthmus.Training(Plain, example=(POINTS,), optimizer=torch.optim.SGD, device="cuda")
    assert "\n" not in str(error.value)
