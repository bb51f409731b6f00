"""Initial values from safetensors files: one, an index of several, and what is wrong with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file, save_model
from torch import Tensor, nn

from cases.initials import INITIALS, Tied
from cases.runs import DIGITS, trained
from isthmus import Training
from isthmus.cli import main
from isthmus.errors import DataError, InvalidInput
from isthmus.records import read_run
from isthmus.trainer.task.initial import tensors_of, whole
from isthmus.trainer.task.network import Network, describe
from isthmus.trainer.wire.layout import digest

CALL = (torch.zeros(2, 6),)
TOKENS = (torch.zeros(2, 3, dtype=torch.int64),)


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))


def described(path: Path, factory: Callable[[], nn.Module] = net, call: Any = CALL) -> Network:
    return describe(factory, call, 0, device="cpu", init=path)


def shards(network: nn.Module, folder: Path) -> Path:
    """Save as Hugging Face does what is too large for one file."""
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    names = sorted(tensors)
    files = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, held in files.items():
        save_file({name: tensors[name] for name in held}, folder / file)
    mapped = {name: file for file, held in files.items() for name in held}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": mapped}))
    return folder / "model.safetensors.index.json"


@pytest.mark.parametrize("way", ["file", "index", "folder", "folder with one file"])
def test_rows_are_slices_of_the_file(way: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    saved = net()
    path = tmp_path / "model.safetensors"
    if way.endswith("file"):
        save_model(saved, str(path))
    else:
        path = shards(saved, tmp_path)
    network = described(tmp_path if way.startswith("folder") else path)
    for name, tensor in tensors_of(saved).items():
        assert torch.equal(whole(network.initial, name, tensor), tensor), name
        if tensor.dim():
            assert torch.equal(network.initial.rows(name, 1, 3), tensor[1:3]), name
    assert network.initial.note == ""
    assert not network.initial.in_turn
    assert digest(tensors_of(network.make())) == digest(tensors_of(saved))


def test_tied_tensors_are_stored_once_and_what_no_file_holds_comes_from_the_function(tmp_path: Path) -> None:
    torch.manual_seed(1)
    saved, plain = Tied(), describe(Tied, TOKENS, 0, device="cpu").make()
    save_model(saved, str(tmp_path / "tied.safetensors"))
    assert len({"embed.weight", "out.weight"} & load_file(tmp_path / "tied.safetensors").keys()) == 1
    network = described(tmp_path / "tied.safetensors", Tied, TOKENS)
    for made in (network.make(), None):
        got = tensors_of(made) if made is not None else None
        for name, tensor in tensors_of(saved).items():
            expected = tensor if name in saved.state_dict() else tensors_of(plain)[name]
            value = got[name] if got is not None else whole(network.initial, name, tensor)
            assert torch.equal(value, expected), name


@pytest.mark.parametrize("name", ["gpt2", "llama", "bert"])
def test_a_checkpoint_of_transformers_starts_a_run_with_the_base_models_prefix_or_without(
    name: str, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    saved: Any = INITIALS[name]()
    saved.save_pretrained(tmp_path / "whole")
    initial = described(tmp_path / "whole", INITIALS[name], TOKENS).initial
    for key, tensor in tensors_of(saved).items():
        assert torch.equal(whole(initial, key, tensor), tensor), key
    prefix = saved.base_model_prefix + "."
    renamed: dict[str, Tensor] = {}
    for key, tensor in load_file(tmp_path / "whole" / "model.safetensors").items():
        other = key.removeprefix(prefix) if key.startswith(prefix) else prefix + key
        renamed[key if name == "llama" and key == "lm_head.weight" else other] = tensor
    save_file(renamed, tmp_path / "renamed.safetensors")
    initial = described(tmp_path / "renamed.safetensors", INITIALS[name], TOKENS).initial
    for key, tensor in tensors_of(saved).items():
        assert torch.equal(whole(initial, key, tensor), tensor), key


def test_narrower_numbers_are_widened_and_wider_ones_rounded_which_is_said(tmp_path: Path) -> None:
    torch.manual_seed(1)
    saved = net()
    save_file({k: t.bfloat16() if t.is_floating_point() else t for k, t in saved.state_dict().items()}, tmp_path / "n")
    initial = described(tmp_path / "n").initial
    assert torch.equal(initial.rows("0.weight", 0, 8), saved[0].weight.detach().bfloat16().float())
    assert initial.note == ""
    save_model(saved, str(tmp_path / "w"))
    initial = described(tmp_path / "w", lambda: net().bfloat16(), (torch.zeros(2, 6).bfloat16(),)).initial
    assert torch.equal(initial.rows("0.weight", 0, 8), saved[0].weight.detach().bfloat16())
    assert initial.note.endswith("holds float32, rounded to the network's bfloat16 (8 of 9 tensors)")


def spoiled(folder: Path, how: str) -> Path:
    """A file, or an index, with something wrong."""
    path, tensors = folder / "model.safetensors", dict(net().state_dict())
    if how == "lacks":
        tensors.pop("2.bias")
    elif how == "more":
        tensors["3.bias"] = torch.zeros(3)
    elif how == "shape":
        tensors["2.weight"] = torch.zeros(3, 9)
    elif how == "kind":
        tensors["2.weight"] = torch.zeros(3, 8, dtype=torch.int32)
    save_file(tensors, path)
    if how == "torn":
        path.write_bytes(path.read_bytes()[:-1])
    elif how == "foreign":
        path.write_bytes(b"PK" + bytes(100))
    elif how == "missing":
        path = folder / "no.safetensors"
    elif how == "empty":
        path = folder / "empty"
        path.mkdir()
    elif how.startswith("index"):
        path = shards(net(), folder)
        if how == "index torn":
            path.write_text(path.read_text()[:-5])
        elif how == "index lacks a file":
            (folder / "b.safetensors").unlink()
        elif how == "index names too much":
            index = json.loads(path.read_text())
            index["weight_map"]["9.bias"] = "a.safetensors"
            path.write_text(json.dumps(index))
        elif how == "index is a list":
            path.write_text("[]")
    return path


@pytest.mark.parametrize(
    ("how", "kind", "said"),
    [
        ("lacks", InvalidInput, "`init`: .*safetensors lacks '2.bias', which the network has"),
        ("more", InvalidInput, "`init`: .*safetensors has '3.bias', which the network lacks"),
        ("shape", InvalidInput, r"'2.weight' in .*safetensors has shape \(3, 9\), the network's \(3, 8\)"),
        ("kind", InvalidInput, "'2.weight' in .*safetensors holds int32, not float32"),
        ("torn", DataError, "cannot read .*model.safetensors: "),
        ("foreign", DataError, "cannot read .*model.safetensors: "),
        ("missing", DataError, "cannot read .*no.safetensors: no such file"),
        ("empty", DataError, "empty has neither model.safetensors.index.json nor model.safetensors"),
        ("index torn", DataError, "index.json is no index of safetensors files"),
        ("index is a list", DataError, "index.json is no index of safetensors files"),
        ("index lacks a file", DataError, "cannot read .*b.safetensors: no such file"),
        ("index names too much", DataError, "a.safetensors lacks '9.bias', which its index .* says it has"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(how: str, kind: type[Exception], said: str, tmp_path: Path) -> None:
    with pytest.raises(kind, match=said) as caught:
        described(spoiled(tmp_path, how))
    assert "\n" not in str(caught.value)


def test_a_module_takes_no_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"^`init` has no effect on a module"):
        Training(net(), (torch.zeros(2, 6),), lambda m: torch.optim.SGD(m.parameters()), init=tmp_path)


@pytest.mark.parametrize("strategy", ["ist", "local-sgd", "narrow"])
def test_a_run_starts_from_the_weights_of_another(strategy: str, tmp_path: Path) -> None:
    """At a rate that is as good as none it ends with them."""
    first = {**DIGITS, "rounds": 1, "samples": None, "scale": None}
    trained(tmp_path / "first", **{**first, "strategy": "local-sgd", "seed": 4})
    file = tmp_path / "first" / "model.safetensors"
    flags = {**first, "strategy": strategy, "lr": 1e-30, "momentum": 0.0, "init": file}
    run = trained(tmp_path / "second", **flags)
    assert run.config["init"] == str(file)
    before, after = load_file(file), load_file(tmp_path / "second" / "model.safetensors")
    if strategy == "local-sgd":
        assert all(torch.equal(after[name], before[name]) for name in before if name.endswith(("weight", "bias")))
    else:
        assert torch.equal(after["stem.weight"], before["stem.weight"])


def test_the_command_starts_a_perceptron_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["train", "--workers", "2", "--rounds", "1", "--executor", "serial", "--widths", "12"]
    flags += ["--strategy", "local-sgd"]
    main([*flags, "--out", str(tmp_path / "a"), "--seed", "3"])
    main([*flags, "--out", str(tmp_path / "b"), "--init", str(tmp_path / "a" / "model.safetensors"), "--lr", "1e-30"])
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    assert torch.equal(a["hidden.0.weight"], b["hidden.0.weight"])
    assert "--init" in read_run(tmp_path / "b").command
    with pytest.raises(SystemExit) as stop:
        main([*flags, "--out", str(tmp_path / "c"), "--init", str(tmp_path / "none.safetensors")])
    assert stop.value.code == 2
    assert "no such file" in capsys.readouterr().err
