"""How a network of one's own is cut is verified before its first round: a wrong cut refuses the run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from isthmus.__main__ import main
from isthmus.errors import InvalidInput
from isthmus.nets.axes.registry import RULES
from isthmus.nets.rules import rule
from isthmus.records import read_run
from isthmus.trainer import configure, train
from isthmus.trainer.task import verified
from isthmus.trainer.task.setup import set_up

SMALL: dict[str, Any] = {"workers": 2, "rounds": 2, "local_steps": 2, "executor": "serial", "lr": 0.05}


class Softmaxed(nn.Module):
    """A hidden layer under a softmax, which cannot be cut."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(64, 12), nn.Linear(12, 12), nn.Linear(12, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(self.b(self.a(x).relu()).softmax(-1))


def softmaxed() -> tuple[nn.Module, tuple[Any, ...]]:
    return Softmaxed(), (torch.zeros(2, 64),)


@pytest.fixture
def wrong_rule() -> Iterator[None]:
    right = RULES["aten::softmax"]
    rule("aten::softmax")(lambda call: call.dims(call["self"]))
    yield
    RULES["aten::softmax"] = right


@pytest.mark.usefixtures("wrong_rule")
def test_a_wrong_cut_refuses_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--workers", "2", "--rounds", "2", "--executor", "serial"]
    run = ["train", "--model", "trainer.test_verified:softmaxed", *flags, "--out", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as stop:
        main(run)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("isthmus: `model` is not cut correctly: ")
    assert error.endswith("(`verify` False trains it all the same)\n")
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()
    main([*run, "--verify", "False"])
    assert read_run(tmp_path / "run").config["verify"] is False


def test_a_right_cut_trains_to_the_same_bits(tmp_path: Path) -> None:
    """With dropout, batch norm and a shuffled order; the user's generators are left alone."""
    runs = []
    for verify in (False, True, None):
        torch.manual_seed(5)
        runs.append(train(model="cases.trainable:digits", verify=verify, out=tmp_path / str(verify), **SMALL))
        assert torch.equal(torch.get_rng_state(), torch.manual_seed(5).get_state())
    rows = [[row["test_loss"] for row in run.rows] for run in runs if run is not None]
    assert rows[0] == rows[1] == rows[2]
    files = [(tmp_path / str(verify) / "model.safetensors").read_bytes() for verify in (False, True, None)]
    assert files[0] == files[1] == files[2]


def test_what_is_large_is_not_verified_unless_asked_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(verified, "LARGEST", 1000)
    asked = []
    monkeypatch.setattr(verified, "_verdict", lambda setup: asked.append(setup) or Passed())
    for verify in (None, True):
        config = configure(model="cases.trainable:digits", verify=verify, **SMALL)
        verified.check_cut(set_up(config, torch.device("cpu")))
    assert len(asked) == 1
    (said,) = [record.message for record in caplog.records if "verified" in record.message]
    assert said.startswith("isthmus: how the network is cut is not verified: it has 0 MB, more than 0 (")


class Passed:
    passed = True


class Unsteady(nn.Module):
    """Does not give the same twice."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.calls = nn.Linear(64, 12), nn.Linear(12, 10), 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.b(self.a(x).relu()) * self.calls


def test_what_cannot_be_judged_is_said_and_trains_unless_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    flags = {"model": Unsteady(), "example": (torch.zeros(2, 64),), **SMALL}
    verified.check_cut(set_up(configure(**flags), torch.device("cpu")))
    assert (
        "isthmus: how the network is cut is not verified: `model` cannot be verified: it does not give" in caplog.text
    )
    with pytest.raises(InvalidInput, match=r"^`model` cannot be verified: it does not give the same"):
        verified.check_cut(set_up(configure(**flags, verify=True), torch.device("cpu")))


@pytest.mark.parametrize("flags", [{"strategy": "local-sgd"}, {"verify": False}, {"model": None}])
def test_what_is_not_cut_or_known_is_not_verified(flags: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verified, "_verdict", lambda setup: pytest.fail("nobody asks"))
    verified.check_cut(set_up(configure(**{"model": "cases.trainable:digits", **SMALL, **flags}), torch.device("cpu")))
