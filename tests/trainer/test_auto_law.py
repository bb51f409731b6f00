"""The law that a network's structure chooses: what a run does, records, shows and goes on with."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import isthmus
from cases.records import without_end
from isthmus.cli import main
from isthmus.cli.train import table
from isthmus.errors import InvalidInput
from isthmus.partitions import Fixed, Mixed, Overlapping
from isthmus.strategies import IST
from isthmus.trainer.config.again import go_on
from isthmus.trainer.plan.show import remarks
from isthmus.trainer.task.setup import set_up


class Stream(nn.Module):
    """Two feed-forward blocks on a residual stream."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, 12), nn.Linear(12, 10)
        self.up = nn.ModuleList(nn.Linear(12, 8) for _ in range(2))
        self.down = nn.ModuleList(nn.Linear(8, 12) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for up, down in zip(self.up, self.down, strict=True):
            x = x + down(up(x).relu())
        return self.last(x)


def stream() -> tuple[nn.Module, tuple[Tensor]]:
    return Stream(), (torch.zeros(2, 64),)


FLAGS = {"data": "digits", "rounds": 2, "workers": 2, "local_steps": 1, "executor": "serial", "verify": False}


def test_what_is_recorded_is_the_law_chosen_and_a_run_goes_on_with_it(tmp_path: Path) -> None:
    run = isthmus.train(**FLAGS, model=stream, checkpoint_every=1, out=tmp_path / "auto")
    assert run.config["law"] == "fixed"
    assert "up.0 and up.1 meet in a residual stream" in run.config["law_reason"]
    assert f"fixed: {run.config['law_reason']}" in [str(cell) for cell in table(run).columns[1].cells]
    explicit = isthmus.train(**FLAGS, model=stream, law="fixed", out=tmp_path / "fixed")
    assert "law_reason" not in explicit.config
    assert explicit.rows[-1]["test_loss"] == run.rows[-1]["test_loss"]
    without_end(run.path)
    again = go_on(run.path, model=stream, data="digits", workers=2, executor="serial", verify=False, local_steps=1)
    assert set_up(again).config.strategy.dealt == Fixed()
    assert again.law_reason == run.config["law_reason"]


def test_a_law_for_each_kind_is_a_flag_and_a_record(tmp_path: Path) -> None:
    flags = {**FLAGS, "law": "block=overlapping,*=auto", "minimum": 1, "cut": ("block", "ffn")}
    run = isthmus.train(**flags, model="trainer.test_auto_law:stream", out=tmp_path / "run")
    assert run.config["law"] == "block=overlapping,*=fixed"
    assert run.command is not None
    words = shlex.split(run.command)
    assert words[words.index("--law") + 1] == "block=overlapping,*=fixed"
    with pytest.raises(InvalidInput, match=r"`law` must say how axis 'up\.0' of kind 'ffn' is dealt, got block only"):
        isthmus.train(**{**flags, "law": "block=overlapping"}, model=stream, out=tmp_path / "other")


def test_a_loop_of_ones_own_and_a_plan_choose_the_same(tmp_path: Path) -> None:
    training = isthmus.Training(stream, optimizer=lambda m: torch.optim.SGD(m.parameters(), 0.1), local_steps=1)
    assert training.strategy == IST(Fixed())
    assert "meet in a residual stream" in training.law_reason
    deep = isthmus.Training(stream, optimizer=lambda m: torch.optim.SGD(m.parameters(), 0.1), local_steps=1,
                            cut=["block", "ffn"])  # fmt: skip
    assert deep.strategy == IST(Mixed.of({"block": Overlapping(1), "*": Fixed()}))
    outlook = isthmus.plan(["ist", "local-sgd"], model=stream, data="digits", workers=2)
    assert outlook.prospects[0].strategy == IST(Fixed())
    assert any(line.startswith("ist (") and "meet in a residual stream" in line for line in remarks(outlook))
    assert outlook.record()["strategies"][1]["why"] == ""


@pytest.mark.parametrize("way", ["command", "loop", "plan"])
def test_shallow_says_that_it_needs_residual_blocks(
    way: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "strategy 'shallow' needs residual blocks, of which it leaves some out: the network has none"
    plain = nn.Sequential(nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))
    if way == "command":
        with pytest.raises(SystemExit) as stop:
            main(["train", "--strategy", "shallow", "--data", "digits", "--out", str(tmp_path / "run")])
        assert stop.value.code == 2
        assert capsys.readouterr().err.strip() == f"isthmus: {words}"
        assert not (tmp_path / "run").exists()
    elif way == "loop":
        with pytest.raises(InvalidInput, match=words):
            isthmus.Training(plain, (torch.zeros(2, 64),), optimizer=lambda m: m, strategy="shallow", local_steps=1)
    else:
        assert isthmus.plan(["shallow"], data="digits", workers=2).prospects[0].problem == words
