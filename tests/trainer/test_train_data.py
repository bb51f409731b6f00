"""Data tells the truth: the saved network scores, on the data as supplied, what the run says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_model
from torch import Tensor, nn

from cases.runs import DIGITS, trained
from cases.trainable import Digits
from isthmus.cli import main
from isthmus.data import Dataset, load, train_test
from isthmus.errors import DataError
from isthmus.nets import Standardize
from isthmus.nets.models.mlp import MLP, MLPSpec
from isthmus.records import Run

PERCEPTRON = {"widths": (16,), "workers": 2, "rounds": 8}


def score(network: nn.Module, data: str = "digits", seed: int = 0) -> tuple[float, float]:
    """Accuracy and loss of a network on the test part of the data as anybody loads it."""
    test = train_test(load(data), seed)[1]
    features = torch.from_numpy(test.features).float().reshape(len(test.features), *input_shape(network, test))
    targets = torch.from_numpy(test.targets)
    with torch.no_grad():
        logits = network.eval()(features).double()
    right = (logits.argmax(1) == targets).double().mean().item()
    return right, nn.functional.cross_entropy(logits, targets).item()


def input_shape(network: nn.Module, test: Dataset) -> tuple[int, ...]:
    return (1, *test.shape) if any(isinstance(each, Digits) for each in network.modules()) else (test.dim,)


def saved(network: nn.Module, run: Run) -> nn.Module:
    load_model(network, str(run.path / "model.safetensors"))
    return network


@pytest.mark.parametrize(
    "changes",
    [{}, {"strategy": "local-sgd"}, {"scale": "readout"}, {"law": "uniform", "core": 0.25}, {"autocast": "bfloat16"}],
    ids=str,
)
def test_a_network_of_ones_own_scores_on_the_data_as_supplied(tmp_path: Path, changes: dict[str, Any]) -> None:
    """Features are not touched: loaded into its own class, without isthmus, it scores what the run says."""
    run = trained(tmp_path / "run", **DIGITS, **changes)
    accuracy, loss = score(saved(Digits(), run))
    exact = "autocast" not in changes  # a test under autocast rounds
    assert accuracy == pytest.approx(run.summary["test_accuracy"], abs=0.0 if exact else 0.02)
    assert loss == pytest.approx(run.summary["test_loss"], rel=1e-5 if exact else 0.05)
    assert run.config["features"] == "raw"
    assert accuracy > 0.6


def test_a_data_set_may_be_given_itself(tmp_path: Path) -> None:
    named = trained(tmp_path / "named", **PERCEPTRON)
    given = trained(tmp_path / "given", **PERCEPTRON, data=load("digits"))
    assert given.summary["weights_sha256"] == named.summary["weights_sha256"]
    assert (given.config["data"], given.command) == ("digits", None)


def test_the_perceptron_standardizes_within_itself(tmp_path: Path) -> None:
    """It takes the data as they are: the constants are buffers of its own."""
    run = trained(tmp_path / "run", **PERCEPTRON, data="breast-cancer", batch_size=16)
    data = load("breast-cancer")
    accuracy, loss = score(saved(MLP(MLPSpec(data.dim, (16,), 2)), run), "breast-cancer")
    assert accuracy == run.summary["test_accuracy"] > 0.85
    assert loss == pytest.approx(run.summary["test_loss"], rel=1e-5)
    assert run.config["features"] == "standardized"


def test_a_perceptron_can_be_told_to_take_them_raw(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", **PERCEPTRON, features="raw")
    network = saved(MLP(MLPSpec(64, (16,), 10)), run)
    assert isinstance(network, MLP)
    assert torch.equal(network.standardize.deviation, torch.ones(64))
    assert score(network)[0] == run.summary["test_accuracy"]


def test_standardized_features_come_with_their_constants(tmp_path: Path) -> None:
    """The choice is in the record, the constants in the file: a module in front takes the data as they are."""
    run = trained(tmp_path / "run", **DIGITS, features="standardized")
    assert run.config["features"] == "standardized"
    network = saved(Digits(), run)
    accuracy, loss = score(nn.Sequential(Standardize.load(run.path / "model.safetensors"), network))
    assert accuracy == run.summary["test_accuracy"] > 0.6
    assert loss == pytest.approx(run.summary["test_loss"], rel=1e-4)
    assert score(network)[1] != pytest.approx(loss, rel=0.05)  # without it, it is another network


def test_a_file_without_constants_says_that_its_network_takes_the_data_as_they_are(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", **DIGITS)
    with pytest.raises(DataError, match="its network takes the data as they are"):
        Standardize.load(run.path / "model.safetensors")


class Flat(nn.Module):
    """A linear network of images as numbers 0..255."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(64, 24), nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(self.inner(x / 255).relu())


class Embedded(nn.Module):
    """Each byte of an image is a token of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.inner, self.outer = nn.Embedding(256, 4), nn.Linear(4 * 64, 24), nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        assert x.dtype == torch.int64
        return self.outer(self.inner(self.embed(x).flatten(1)).relu())


BYTES = {"data": "python:cases.objectives:bytes_of_images", "workers": 2, "rounds": 8, "lr": 0.3}


def flat() -> tuple[nn.Module, tuple[Tensor]]:
    return Flat(), (torch.zeros(2, 64),)


def embedded() -> tuple[nn.Module, tuple[Tensor]]:
    return Embedded(), (torch.zeros(2, 64, dtype=torch.int64),)


@pytest.mark.parametrize("make", [flat, embedded])
def test_bytes_are_numbers_unless_the_network_embeds_them(tmp_path: Path, make: Any) -> None:
    run = trained(tmp_path / "run", **BYTES, model=make)
    network = saved(make()[0], run)
    test = train_test(load(BYTES["data"]), 0)[1]
    inputs = torch.from_numpy(test.features).to(make()[1][0].dtype)
    with torch.no_grad():
        right = (network.eval()(inputs).argmax(1) == torch.from_numpy(test.targets)).double().mean().item()
    assert right == run.summary["test_accuracy"] > 0.5


def test_bytes_are_standardized_as_the_numbers_they_are(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", **{**BYTES, "lr": 0.1}, model=standard, features="standardized")
    network = nn.Sequential(Standardize.load(run.path / "model.safetensors"), saved(standard()[0], run))
    assert score(network, BYTES["data"])[0] == run.summary["test_accuracy"] > 0.5


def standard() -> tuple[nn.Module, tuple[Tensor]]:
    return nn.Sequential(nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10)), (torch.zeros(2, 64),)


@pytest.mark.parametrize(
    "flags",
    [
        ["--data", "sbm", "--model", "cases.trainable:nodes"],
        ["--data", "python:cases.objectives:bytes_of_images", "--model", "cases.trainable:words"],
    ],
    ids=["nodes", "tokens"],
)
def test_what_has_no_scale_is_not_standardized(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["train", *flags, "--features", "standardized", "--out", str(tmp_path / "run")])
    assert stop.value.code == 2
    assert "tokens and nodes have no scale" in capsys.readouterr().err


@pytest.mark.parametrize(("targets", "said"), [([0, 1, 7], "sample 2 is 7"), ([0, -1, 2], "sample 1 is -1")])
def test_a_class_number_out_of_range_is_named_with_its_sample(targets: list[int], said: str) -> None:
    with pytest.raises(DataError, match=f"the target of {said}: class numbers must be 0..2") as error:
        Dataset("three", np.zeros((3, 2)), np.array(targets), 3, (2,))
    assert "\n" not in str(error.value)
