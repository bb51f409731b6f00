"""Flags: each has an effect or is refused, the record repeats the run, and Python takes objects for names."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import isthmus
from cases import trainable
from cases.laws import Window
from cases.objectives import Items, Plain, blobs, smoothed
from cases.runs import DIGITS, trained, without_times
from cases.strategies import ON_ANY
from isthmus.cli import main
from isthmus.cli.train import Options
from isthmus.errors import InvalidInput
from isthmus.partitions import Block, Core, Rotated, Weighted
from isthmus.records import read_run
from isthmus.strategies import IST, DataParallel, LocalSGD, Narrow
from isthmus.trainer import TrainConfig, configure
from isthmus.trainer.config import FLAGS, SCHEDULES
from isthmus.trainer.config.flags import command

# What always has an effect, whatever is trained and how.
ALWAYS = {
    "data", "model", "init", "strategy", "optimizer", "schedule", "warmup", "batch_size", "accumulate", "clip",
    "autocast", "loss", "metric", "eval_every", "workers", "rounds", "local_steps", "seed", "executor", "device", "out",
    "replace", "checkpoint_every", "keep_checkpoints", "spare",
}  # fmt: skip
NO_EFFECT = [
    *((f"--strategy {name} --law uniform", "law") for name in ("local-sgd", "data-parallel")),
    *((f"--strategy {name} --core 0", "core") for name in ("local-sgd", "data-parallel")),
    *((f"--strategy {name} --cut hidden", "cut") for name in ("local-sgd", "data-parallel")),
    *((f"--strategy {name} --scale none", "scale") for name in ("narrow", "local-sgd", "data-parallel")),
    *((f"--strategy {name} --scale readout", "scale") for name in ("narrow", "local-sgd", "data-parallel")),
    *((f"--strategy ist --{name}", name.split()[0].replace("-", "_"))
      for name in ("gate other", "own-share 0.5", "groups random", "foreign-buckets 2", "owners 2")),
    *((f"--strategy ist --{name}", name.split()[0])
      for name in ("balanced True", "buckets 4", "tables 2", "bits 4", "rank 2", "negatives 4", "frequencies zipf",
                   "width 0.5")),
    ("--strategy class-cut --law uniform", "law"),
    ("--strategy class-cut --wire bf16", "wire"),
    *((f"--strategy ist --{name} 1", name.replace("-", "_")) for name in ("outer-lr", "outer-momentum", "fragments")),
    ("--strategy diloco --keep-state False", "keep_state"),
    ("--strategy ist --hook fp16", "hook"),
    *((f"--strategy ddp --{name} 3", name.replace("-", "_")) for name in ("powersgd-rank", "powersgd-start", "start")),
    ("--strategy shallow --model cases.trainable:deep --cut hidden", "cut"),
    ("--verify False", "verify"),
    ("--strategy local-sgd --model cases.trainable:digits --verify True", "verify"),
    ("--strategy local-sgd --capacities 1 1 1 1", "capacities"),
    ("--law uniform --capacities 1 1 1 1", "capacities"),
    ("--capacities 1 1 1 1", "capacities"),
    ("--executor serial --min-workers 2", "min_workers"),
    ("--executor serial --deadline 20", "deadline"),
    ("--executor serial --join-timeout 20", "join_timeout"),
    ("--executor serial --copies False", "copies"),
    ("--strategy data-parallel --minimum 2", "minimum"),
    ("--strategy narrow --law rotated --minimum 2", "minimum"),
    ("--optimizer adamw --momentum 0.5", "momentum"),
    ("--strategy data-parallel --keep-state False", "keep_state"),
    ("--model cases.trainable:digits --widths 8", "widths"),
    ("--model cases.trainable:digits --activation gelu", "activation"),
    ("--model cases.trainable:digits --norm none", "norm"),
    ("--data sbm --model cases.trainable:nodes --features standardized", "features"),
    ("--rounds 5 --samples 10000", "samples"),
    ("--workers 1 --wire bf16", "wire"),
    ("--workers 1 --overlap True", "overlap"),
    ("--executor serial --overlap True", "overlap"),
    *((f"--strategy {name} --overlap True", "overlap") for name in ("narrow", "local-sgd", "ddp")),
]
ONLY_PYTHON = [
    ({"example": (1,)}, "example"),
    ({"optimizer": torch.optim.SGD, "lr": 0.1}, "lr"),
    ({"optimizer": torch.optim.SGD, "weight_decay": 0.1}, "weight_decay"),
    ({"optimizer": torch.optim.SGD, "momentum": 0.1}, "momentum"),
    ({"strategy": IST(), "law": "uniform"}, "law"),
    ({"strategy": IST(), "core": 0.5}, "core"),
    ({"strategy": IST(), "scale": "none"}, "scale"),
    ({"strategy": LocalSGD(), "scale": "readout"}, "scale"),
    ({"law": Weighted((1.0, 2.0)), "capacities": (1.0, 2.0)}, "capacities"),
]


@pytest.mark.parametrize(("flags", "name"), NO_EFFECT, ids=[flags for flags, _ in NO_EFFECT])
def test_a_flag_without_effect_is_refused(
    flags: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["train", *flags.split(), "--out", str(tmp_path / "run")])
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert error.startswith(f"isthmus: `{name}` has no effect ")
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("flags", "name"), ONLY_PYTHON, ids=[name for _, name in ONLY_PYTHON])
def test_a_flag_without_effect_is_refused_from_python(flags: dict[str, Any], name: str) -> None:
    with pytest.raises(InvalidInput, match=f"^`{name}` has no effect "):
        configure(**flags)


def test_every_flag_is_said_to_have_an_effect_always_or_is_refused_somewhere() -> None:
    refused = {name for _, name in (*NO_EFFECT, *ONLY_PYTHON)}
    assert ALWAYS | refused == set(FLAGS), "say in ALWAYS or NO_EFFECT where a new flag has an effect"
    assert not ALWAYS & refused


def test_the_command_has_the_flags_of_configure() -> None:
    """All but the example call, which is an object."""
    assert {*Options().flags(), "example"} == set(FLAGS)
    given = {name for name, value in Options().flags().items() if value is not None}
    assert given <= {"replace"}, "a flag that is not given must be None: its default is that of its concern"


def test_a_flag_that_does_not_exist_names_the_nearest() -> None:
    with pytest.raises(InvalidInput, match=r"got 'worker'; did you mean 'workers'\?"):
        configure(worker=2)
    with pytest.raises(InvalidInput, match="`rounds` has no effect beside a configuration"):
        isthmus.train(TrainConfig(), rounds=3)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_rises_to_the_peak_and_goes_its_way(schedule: str) -> None:
    config = configure(schedule=schedule, rounds=10, local_steps=10, lr=0.4, warmup=0.2)
    rates = [config.lr_at(step) for step in range(101)]
    assert rates[:20] == pytest.approx([0.02 * step for step in range(1, 21)])
    middle, end = {"cosine": (0.2, 0.0), "linear": (0.2, 0.0), "constant": (0.4, 0.4)}[schedule]
    assert rates[60] == pytest.approx(middle)
    assert rates[100] == pytest.approx(end, abs=1e-12)
    quarter = {"cosine": 0.4 * (1 + 0.5**0.5) / 2, "linear": 0.3, "constant": 0.4}[schedule]
    assert rates[40] == pytest.approx(quarter)


@pytest.mark.parametrize("strategy", ON_ANY)
def test_accumulated_passes_are_one_step(tmp_path: Path, strategy: str) -> None:
    """The same gradient but for the order of a sum, the same operations, and no more bytes."""
    flags = {**DIGITS, "model": "cases.trainable:quiet", "strategy": strategy, "samples": 320}
    once, often = (trained(tmp_path / str(parts), **flags, accumulate=parts) for parts in (1, 4))
    assert once.summary["sent_bytes"] == often.summary["sent_bytes"]
    assert once.summary["flops_per_worker"] == often.summary["flops_per_worker"]
    weights = [load_file(run.path / "model.safetensors") for run in (once, often)]
    for name, values in weights[0].items():
        torch.testing.assert_close(weights[1][name], values, rtol=1e-4, atol=1e-5)
    assert once.rows[-1]["train_loss"] == pytest.approx(often.rows[-1]["train_loss"], rel=1e-5)


def test_a_batch_that_cannot_be_accumulated_evenly_is_refused() -> None:
    with pytest.raises(InvalidInput, match="`accumulate` must divide the batch of 32 samples evenly, got 5"):
        configure(accumulate=5)


def test_under_autocast_products_round_and_weights_do_not(tmp_path: Path) -> None:
    plain, rounded = (trained(tmp_path / str(kind), **DIGITS, autocast=kind) for kind in (None, "bfloat16"))
    assert plain.summary["weights_sha256"] != rounded.summary["weights_sha256"]
    assert rounded.summary["test_loss"] == pytest.approx(plain.summary["test_loss"], rel=0.2)
    kinds = {values.dtype for values in load_file(rounded.path / "model.safetensors").values()}
    assert kinds == {torch.float32, torch.int64}  # the count of batches of a norm
    assert plain.summary["sent_bytes"] == rounded.summary["sent_bytes"]


REPEATED: list[dict[str, Any]] = [
    {"law": "weighted", "capacities": (1, 3), "core": 0.25, "scale": "readout", "keep_state": True, "clip": 1.0},
    {"law": "cases.laws:Window", "cut": ("hidden.0",), "scale": "none", "weight_decay": 0.01, "activation": "gelu"},
    {"strategy": "narrow", "law": "overlapping", "minimum": 3, "optimizer": "adamw", "schedule": "linear"},
    {"strategy": "data-parallel", "accumulate": 2, "autocast": "bfloat16", "momentum": 0.0, "warmup": 0.5},
    {"strategy": "local-sgd", "loss": "cases.objectives:smoothed", "metric": "cases.objectives:balanced"},
    {"strategy": IST(Core(Rotated(), 0.25), scale="none"), "features": "raw", "norm": "none", "samples": 3 * 64},
    {"model": "cases.trainable:deep", "law": Block(), "eval_every": 2, "features": "standardized"},
]


@pytest.mark.parametrize("flags", REPEATED, ids=lambda flags: str(flags.get("law") or flags["strategy"]))
def test_the_recorded_command_repeats_a_run_made_from_python(tmp_path: Path, flags: dict[str, Any]) -> None:
    small = {"workers": 2, "local_steps": 2, "batch_size": 16, "seed": 5, "lr": 0.02}
    size = {"widths": (12,)} if "model" not in flags else {}
    rounds = {"rounds": 2} if "samples" not in flags else {}
    first = trained(tmp_path / "run", **small, **size, **rounds, **flags)
    assert first.command is not None
    main([*shlex.split(first.command)[1:], "--replace"])
    again = read_run(tmp_path / "run")
    assert again.summary["weights_sha256"] == first.summary["weights_sha256"]
    assert without_times(again) == without_times(first)
    assert again.config == first.config


@dataclass(frozen=True)
class Wide(Window):
    """A law with a number of its own, for which the command line has no flag."""

    width: int = 3


def make_sgd(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9, nesterov=True)


@pytest.mark.parametrize(
    "flags",
    [
        {"model": trainable.digits},
        {"model": "cases.trainable:digits", "example": (torch.zeros(2, 1, 8, 8),)},
        {"optimizer": make_sgd},
        {"loss": smoothed()},
        {"metric": smoothed()},
        {"data": (Items(*blobs()), Items(*blobs())), "model": Plain(), "example": (torch.zeros(2, 6),)},
        {"law": Wide()},
    ],
    ids=["model", "example", "optimizer", "loss", "metric", "data", "law"],
)
def test_a_run_with_objects_that_have_no_name_says_that_it_cannot_be_repeated(flags: dict[str, Any]) -> None:
    assert command(configure(**flags)) is None


def test_a_law_that_nobody_can_import_has_no_command() -> None:
    class Hidden(Window):
        """Defined inside a function."""

    assert command(configure(law=Hidden())) is None


def network() -> nn.Module:
    return trainable.Digits()


@pytest.mark.parametrize(
    ("named", "objects"),
    [
        ({"law": "rotated", "core": 0.25}, {"law": Core(Rotated(), 0.25)}),
        ({"law": "rotated", "core": 0.25}, {"law": Rotated(), "core": 0.25}),
        ({"law": "rotated", "scale": "none"}, {"strategy": IST(Rotated(), scale="none")}),
        ({"strategy": "narrow", "law": "uniform"}, {"strategy": Narrow("uniform")}),
        ({"strategy": "data-parallel"}, {"strategy": DataParallel()}),
        ({"keep_state": True}, {"optimizer": make_sgd, "lr": None}),
        ({"loss": "cases.objectives:smoothed"}, {"loss": smoothed()}),
        ({}, {"model": trainable.digits}),
        ({}, {"model": network, "example": (torch.zeros(2, 1, 8, 8),)}),
    ],
    ids=["law", "law and core", "ist", "narrow", "data-parallel", "optimizer", "loss", "factory", "function"],
)
def test_objects_train_as_names_do(tmp_path: Path, named: dict[str, Any], objects: dict[str, Any]) -> None:
    one, other = (trained(tmp_path / kind, **DIGITS | flags) for kind, flags in (("a", named), ("b", objects)))
    assert one.summary["weights_sha256"] == other.summary["weights_sha256"]
    rows = [[{**row, "lr": None} for row in without_times(run)] for run in (one, other)]
    assert rows[0] == rows[1]  # beside an optimizer of one's own a row has the schedule's share of its rates


@pytest.mark.parametrize("strategy", ON_ANY)
def test_a_network_already_made_is_trained_and_left_as_it_was(tmp_path: Path, strategy: str) -> None:
    """Every worker takes a copy of its own: in one process they must not train the same weights."""
    torch.manual_seed(3)
    module = trainable.quiet()[0]
    before = [values.clone() for values in module.parameters()]
    flags = {**DIGITS, "model": module, "example": (torch.zeros(2, 64),), "strategy": strategy}
    first, again = (trained(tmp_path / str(number), **flags) for number in range(2))
    assert first.summary["weights_sha256"] == again.summary["weights_sha256"]
    assert all(torch.equal(*pair) for pair in zip(before, module.parameters(), strict=True))
    assert first.rows[-1]["train_loss"] < first.rows[1]["train_loss"]
