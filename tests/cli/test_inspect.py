"""``isthmus inspect`` as a person runs it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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


def test_a_config_of_hugging_face_is_a_network(tmp_path: Path) -> None:
    """As a file, a folder and a class; without weights, and with first weights where they are needed."""
    pytest.importorskip("transformers")
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    done = inspect(tmp_path, "config.json", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert {axis["size"] for axis in said["axes"] if axis["cut"]} == {4, 64}
    assert inspect(tmp_path, ".", "--json").stdout == done.stdout
    assert inspect(tmp_path, ".", "--json", "--verify").stdout == done.stdout
    whole = json.loads(inspect(tmp_path, "transformers:ViTConfig", "--json", "--workers", "1").stdout)
    assert whole["workers"]["1"]["parameters"] == 86_389_248


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
def test_a_config_that_is_none_is_one_line(said: object, message: str, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    if said is not None:
        (tmp_path / "config.json").write_text(json.dumps(said))
    (tmp_path / "own.py").write_text("raise SystemExit('code of a config was run')")
    done = inspect(tmp_path, "config.json")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith(f"isthmus: {message}")


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_saved_weights_are_taken_where_they_fit(suffix: str, folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    shapes = {"0.weight": (16, 8), "0.bias": (16,), "2.weight": (4, 16), "2.bias": (4,)}
    good = {name: torch.ones(shape) for name, shape in shapes.items()}
    save = torch.save if suffix == "pt" else save_file
    wrong = {
        "has": ({**good, "more": torch.ones(2)}, "has, beside the network's, 1 tensors, 'more' first"),
        "lacks": ({"0.bias": good["0.bias"]}, "lacks 3 tensors, '0.weight' first"),
        "shape": ({**good, "2.bias": torch.ones(5)}, "'2.bias' has shape (5,), in the network it is (4,)"),
    }
    save(good, folder / f"good.{suffix}")
    done = inspect(folder, "mynets:small", "--verify", "--init", f"good.{suffix}")
    assert done.returncode == 0, done.stderr
    for name, (state, message) in wrong.items():
        save(state, folder / f"{name}.{suffix}")
        done = inspect(folder, "mynets:small", "--init", f"{name}.{suffix}")
        assert done.returncode == 2
        assert done.stderr.startswith(f"isthmus: `init` {name}.{suffix}")
        assert done.stderr.endswith(f"{message}\n")


def test_a_file_with_more_than_tensors_is_not_read(folder: Path) -> None:
    """A whole network that was saved is code to run; and what is no file at all."""
    import torch

    torch.save(torch.nn.Linear(2, 2), folder / "network.pt")
    (folder / "text.pt").write_text("text")
    for name, message in (
        ("network.pt", "holds no tensors by name: save `network.state_dict()`, not the network"),
        ("text.pt", "holds no tensors by name: save `network.state_dict()`, not the network"),
        ("nothing.pt", "No such file or directory"),
    ):
        done = inspect(folder, "mynets:small", "--init", name)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert message in done.stderr
