"""``isthmus inspect`` as a person runs it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from isthmus.cli.inspect import load
from isthmus.cli.saved import load_weights
from isthmus.errors import DataError, InvalidInput

NETS = """
import torch
def small():
    return torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4)), (torch.zeros(3, 8),)
def number():
    return 3
def fails(width):
    return width
def bare():
    return small()[0], torch.zeros(3, 8)
"""


def inspect(folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "isthmus", "inspect", *flags]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env={**os.environ, "COLUMNS": "120"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mynets.py").write_text(NETS)
    return tmp_path


def test_tables_and_json_agree(folder: Path) -> None:
    shown = inspect(folder, "mynets:small")
    assert shown.returncode == 0, shown.stderr
    assert "- input 0: " in shown.stdout
    data = json.loads(inspect(folder, "mynets:small", "--json", "--workers", "2", "32").stdout)
    assert data["axes"][0]["size"] == 16
    assert data["workers"]["2"]["parameters"] == 8 * 8 + 8 + 8 * 4 + 4
    assert "too few for 32 workers" in data["workers"]["32"]["problem"]
    assert "108" in shown.stdout


@pytest.mark.parametrize(
    "target", ["", "mynets", "nothing:small", *(f"mynets:{name}" for name in ("nothing", "number", "fails", "bare"))]
)
def test_bad_targets_are_one_line(folder: Path, target: str) -> None:
    done = inspect(folder, target)
    assert done.returncode == 2
    assert done.stderr.startswith("isthmus: `target`")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [(["--workers", "2", "0"], "`workers` must be at least 1, got 0"), (["--core", "2"], "`core` must be at most 1.0")],
)
def test_bad_flags_are_one_line(folder: Path, flags: list[str], message: str) -> None:
    done = inspect(folder, "mynets:small", *flags)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 32, "intermediate_size": 64,
         "num_attention_heads": 4, "num_key_value_heads": 4, "num_hidden_layers": 2, "vocab_size": 100}  # fmt: skip


def test_a_config_of_hugging_face_is_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a file, a folder and a class; without weights, and with first weights where they are needed."""
    pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    done = inspect(tmp_path, "config.json", "--json", "--verify")
    assert done.returncode == 0, done.stderr
    assert {axis["size"] for axis in json.loads(done.stdout)["axes"] if axis["cut"]} == {4, 64}
    for target in ("config.json", ".", str(tmp_path)):
        network, args, kwargs = load(target)
        assert type(network).__name__ == "LlamaForCausalLM"
        assert all(parameter.is_meta for parameter in network.parameters())
        assert args == ()
        assert kwargs["input_ids"].shape == (2, 8)
    (tmp_path / "config.json").write_text(json.dumps({**LLAMA, "architectures": ["pipeline", "LlamaConfig"]}))
    assert type(load("config.json")[0]).__name__ == "LlamaModel"  # the bare one: what it names are no networks
    with pytest.raises(InvalidInput, match="must be MODULE:FACTORY"):
        load("")
    network, _, kwargs = load("transformers:ViTConfig")
    assert sum(parameter.numel() for parameter in network.parameters()) == 86_389_248
    assert kwargs["pixel_values"].shape == (2, 3, 224, 224)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (None, "`target` must be a config.json, a folder with one, or MODULE:FACTORY: no file config.json"),
        ({"model_type": "nothing"}, "`target` config.json is no config that transformers knows: "),
        ({**LLAMA, "auto_map": {"AutoConfig": "own.Own"}, "model_type": "own"}, "`target` config.json is no config"),
        ({**LLAMA, "hidden_size": -1}, "`target` config.json is no config that transformers knows: "),
        ({**LLAMA, "hidden_act": "none"}, "`target` 'config.json' cannot be made: KeyError: "),
        ({"model_type": "wav2vec2"}, "`target` 'config.json': its network takes `input_values`; write a function"),
    ],
)
def test_a_config_that_is_none_is_one_line(
    said: object, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    if said is not None:
        Path("config.json").write_text(json.dumps(said))
    Path("own.py").write_text("raise AssertionError('code of a config was run')")
    with pytest.raises(InvalidInput) as raised:
        load("config.json")
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_saved_weights_are_taken_where_they_fit(suffix: str, tmp_path: Path) -> None:
    shapes = {"0.weight": (16, 8), "0.bias": (16,), "2.weight": (4, 16), "2.bias": (4,)}
    good = {name: torch.full(shape, 2.0) for name, shape in shapes.items()}
    save = torch.save if suffix == "pt" else save_file
    wrong = {
        "has": ({**good, "more": torch.ones(2)}, "has, beside the network's, 1 tensors, 'more' first"),
        "lacks": ({"0.bias": good["0.bias"]}, "lacks 3 tensors, '0.weight' first"),
        "shape": ({**good, "2.bias": torch.ones(5)}, "'2.bias' has shape (5,), in the network it is (4,)"),
    }
    file = tmp_path / f"weights.{suffix}"
    for device in ("cpu", "meta"):
        with torch.device(device):
            network = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
        save(good, file)
        load_weights(network, file)
        assert all(torch.equal(value, good[name]) for name, value in network.state_dict().items())
        for state, message in wrong.values():
            save(state, file)
            with pytest.raises(InvalidInput) as raised:
                load_weights(network, file)
            assert str(raised.value).startswith(f"`init` {file}")
            assert str(raised.value).endswith(message)


def test_a_file_with_more_than_tensors_is_not_read(folder: Path) -> None:
    """A whole network that was saved is code to run; and what is no file at all."""
    torch.save(torch.nn.Linear(2, 2), folder / "network.pt")
    (folder / "text.pt").write_text("text")
    said = "holds no tensors by name: save `network.state_dict()`, not the network"
    for name, message in (("network.pt", said), ("text.pt", said), ("nothing.pt", "No such file or directory")):
        with pytest.raises(DataError, match=f"^{re.escape(str(folder / name))}:? {re.escape(message)}$"):
            load_weights(torch.nn.Linear(2, 2), folder / name)
    done = inspect(folder, "mynets:small", "--init", "network.pt")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
