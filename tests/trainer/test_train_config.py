"""Configurations that cannot run are one clear line; budgets and schedules count what they say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import isthmus
from cases.runs import trained
from isthmus.cli import main
from isthmus.errors import InvalidInput, RecordError
from isthmus.records import read_run
from isthmus.trainer import TrainConfig, configure
from isthmus.trainer.config.flags import record
from isthmus.trainer.task.shares import batch_at
from isthmus.trainer.task.tables import read_tables

BAD = [
    (["--worker", "2"], "unknown flag `--worker`; did you mean `--workers`?"),
    (["--workers", "two"], "`--workers` must be an integer, got 'two'"),
    (["--model", "cases.trainable:unbatched"], "add a batch dimension"),
    (["--model", "cases.trainable:scalar"], "must return 10 logits for each of 2 targets of 'digits', got shape ()"),
    (["--workers", "0"], "`workers` must be at least 1, got 0"),
    (["--workers", "129", "--widths", "64", "128"], "the widest hidden layer has 128 units, too few for 129"),
    (["--workers", "4", "--widths", "4", "--core", "0.5"], "has 2 units beside its core, too few for 4"),
    (["--data", "digit"], "got 'digit'; did you mean 'digits'?"),
    (["--data", "diabetes"], "`data` must have classes"),
    (["--data", "idx:/nowhere"], "/nowhere: no such folder"),
    (["--strategy", "isst"], "did you mean 'ist'?"),
    (["--law", "rotate"], "did you mean 'rotated'?"),
    (["--rounds", "0"], "`rounds` must be at least 1"),
    (["--local-steps", "-1"], "`local_steps` must be at least 1"),
    (["--batch-size", "4000"], "`batch_size` must be at most a worker's share of the training data"),
    (["--samples", "10"], "`samples` must allow one step of every worker"),
    (["--lr", "0"], "`lr` must be greater than 0"),
    (["--lr", "nan"], "`lr` must be a finite number"),
    (["--core", "1.5"], "`core` must be at most 1.0"),
    (["--widths"], "`widths` must name at least one hidden layer"),
    (["--widths", "0"], "`widths` must be at least 1"),
    (["--momentum", "1"], "`momentum` must be less than 1.0"),
    (["--executor", "thread"], "`executor` must be one of processes, serial"),
    (["--device", "gpu"], "`device` must be cpu, cuda or cuda:N, got 'gpu'"),
    (["--device", "cuda:99"], "`device` is cuda:99, but this machine has"),
    (["--norm", "layer"], "`norm` must be one of batch, none"),
    (["--activation", "rely"], "did you mean 'relu'?"),
    (["--optimizer", "adam"], "did you mean 'adamw'?"),
    (["--clip", "0"], "`clip` must be greater than 0"),
    (["--law", "weighted"], "`capacities` must be given with law 'weighted'"),
    (["--law", "weighted", "--capacities", "1", "2"], "`capacities` must name 4 workers, got 2"),
    (["--data", "sbm"], "`model` must name a network of (features, adjacency) to train on the graph 'sbm'"),
    (["--data", "text:/nowhere"], "needs a network with a sequence as input"),
    (["--cut", "heads"], "`cut` must name a kind"),
    (["--model", "cases.trainable"], "`model` must be MODULE:FACTORY"),
    (["--model", "cases.trainable:digit"], "did you mean 'digits'?"),
    (["--model", "cases.trainable:no_network"], "must return a torch.nn.Module first, got int"),
    (["--model", "cases.trainable:branches"], "it branches on values in its forward (trainable.py:"),
    (["--model", "cases.trainable:inner_branch"], "it branches on values in `1.choose` (trainable.py:"),
    (["--model", "cases.trainable:bare"], "args a tuple as in (x,) and kwargs a dictionary, got Tensor and dict"),
    (["--model", "cases.trainable:nothing_to_train"], "must have a parameter that is trained"),
    (["--model", "cases.trainable:breaks"], "`model` 'cases.trainable:breaks' fails: RuntimeError: no such file"),
    (["--model", "cases.trainable:other_shape"], "samples of shape (32,) in its example call, but those of 'digits'"),
    (["--model", "cases.trainable:two_inputs"], "must take a batch when trained on 'digits': 1 tensors"),
    (["--model", "cases.trainable:too_few"], "must return 10 logits for each of 2 targets"),
    (["--model", "cases.trainable:digits", "--cut", "block", "--workers", "2"], "axis 'blocks' has 1 units, too few"),
    (["--model", "cases.trainable:digits", "--workers", "13"], "has 12 units, too few for 13 workers"),
    (["--model", "cases.trainable:reader"], "`model` takes whole numbers (tokens) in its example call"),
    (["--model", "cases.trainable:frozen"], "must have a parameter that is trained"),
    (["--model", "cases.trainable:words"], "`model` takes whole numbers (tokens)"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[" ".join(arguments) for arguments, _ in BAD])
def test_bad_input_is_one_line_and_leaves_nothing(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["train", *arguments, "--out", str(tmp_path / "run")])
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("strategy", "law", "recorded"),
    [
        ("ist", {"law": "overlapping", "minimum": 3}, ("overlapping", 3, None)),
        ("narrow", {"law": "overlapping", "minimum": 3}, ("overlapping", 3, None)),
        ("narrow", {"law": "weighted", "capacities": (1, 1, 1, 5)}, ("weighted", None, [1, 1, 1, 5])),
        ("narrow", {"law": "uniform"}, ("uniform", None, None)),
        ("local-sgd", {}, (None, None, None)),
    ],
)
def test_the_record_says_what_sets_the_size_of_the_network(
    strategy: str, law: dict[str, Any], recorded: tuple[Any, ...]
) -> None:
    """The narrow network is cut by its law, whichever it is, so its record names it; where nothing is cut, none."""
    values = record(configure(strategy=strategy, **law))
    assert (values["law"], values["minimum"], values["capacities"]) == recorded


def test_data_that_is_not_finite_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.svm").write_text("0 1:0.5\n1 1:nan\n")
    with pytest.raises(InvalidInput, match=r"bad\.svm, line 2: a value is not a finite number"):
        isthmus.train(data=f"libsvm:{tmp_path / 'bad.svm'}", out=tmp_path / "run")


def test_a_taken_folder_is_refused_before_any_worker_starts(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RecordError, match="is not a run of isthmus"):
        isthmus.train(out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_run_that_is_there_is_kept_unless_it_is_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["train", "--executor", "serial", "--rounds", "1", "--widths", "8", "--out", str(tmp_path / "run")]
    main(flags)
    before = (tmp_path / "run" / "rows.jsonl").read_bytes()
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(flags)
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert "already holds a run: choose another folder, or add --replace" in error
    assert error.count("\n") == 1
    assert (tmp_path / "run" / "rows.jsonl").read_bytes() == before
    main([*flags, "--replace"])
    assert (tmp_path / "run" / "rows.jsonl").read_bytes() != before  # it has seconds


def run_without_torch(*flags: str) -> subprocess.CompletedProcess[str]:
    """`isthmus train` in a fresh interpreter in which torch cannot be found, as where the extra is not installed."""
    code = (
        "import sys\n"
        "class NoTorch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'torch': raise ModuleNotFoundError(\"No module named 'torch'\", name=name)\n"
        "sys.meta_path.insert(0, NoTorch())\n"
        "from isthmus.cli import main\n"
        f"main(['train', *{list(flags)}])\n"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_help_needs_no_torch() -> None:
    done = run_without_torch("--help")
    assert done.returncode == 0, done.stderr
    assert "--local-steps" in done.stdout


def test_without_torch_one_line_says_what_to_install() -> None:
    done = run_without_torch()
    assert done.returncode == 2
    assert done.stderr.startswith("isthmus: training needs torch: pip install 'torch>=")
    assert done.stderr.count("\n") == 1


def test_the_budget_counts_samples_over_all_workers() -> None:
    config = configure(samples=1000, workers=3, batch_size=10, local_steps=7)
    assert config.steps == 33
    assert [len(steps) for steps in config.steps_by_round] == [7, 7, 7, 7, 5]
    assert [step for steps in config.steps_by_round for step in steps] == list(range(33))
    assert record(config)["samples"] == 990


def test_the_learning_rate_rises_then_falls_to_zero() -> None:
    config = configure(rounds=10, local_steps=10, lr=0.4, warmup=0.1)
    rates = [config.lr_at(step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.04 * k for k in range(1, 11)])
    assert max(rates) == 0.4
    assert all(np.diff(rates[10:]) < 0)
    assert config.lr_at(100) == pytest.approx(0.0, abs=1e-12)
    assert TrainConfig(rounds=1, local_steps=1).lr_at(0) == TrainConfig().peak_lr


def test_data_is_really_sharded() -> None:
    tables = read_tables(configure(workers=5, batch_size=16))
    everything = np.concatenate(tables.parts)
    assert sorted(everything) == list(range(tables.train.samples))
    assert tables.train.samples + tables.held_out.samples + tables.test.samples == 1797
    assert max(map(len, tables.parts)) - min(map(len, tables.parts)) <= 1


def test_an_epoch_is_a_new_order_without_repetition() -> None:
    epochs = [[batch_at(0, 10, 1, 95, step) for step in range(9 * e, 9 * (e + 1))] for e in range(2)]
    for epoch in epochs:
        seen = np.concatenate(epoch)
        assert len(set(seen)) == len(seen) == 90
    assert not np.array_equal(np.concatenate(epochs[0]), np.concatenate(epochs[1]))
    assert not np.array_equal(batch_at(0, 10, 1, 95, 0), batch_at(0, 10, 2, 95, 0))


@pytest.mark.parametrize(
    ("changes", "least"),
    [
        ({"strategy": "ist", "law": "block"}, 0.93),
        ({"strategy": "ist", "law": "uniform"}, 0.90),
        ({"strategy": "ist", "law": "fixed", "core": 0.25}, 0.93),
        ({"strategy": "ist", "law": "block", "norm": "none"}, 0.90),
        ({"strategy": "narrow"}, 0.93),
        ({"strategy": "local-sgd"}, 0.94),
        ({"strategy": "data-parallel"}, 0.94),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_it_learns_digits(changes: dict[str, Any], least: float, tmp_path: Path) -> None:
    run = trained(tmp_path / "run", rounds=40, **changes)
    assert run.status == "finished"
    assert run.summary["test_accuracy"] >= least
    assert run.rows[0]["test_accuracy"] < 0.5
    assert run.rows[-1]["train_loss"] < 0.3 < run.rows[1]["train_loss"]


def test_a_diverging_run_is_a_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--executor", "serial", "--norm", "none", "--lr", "1e6", "--out", str(tmp_path / "run"), "--json"]
    with pytest.raises(SystemExit) as stop:
        main(["train", *flags])
    assert stop.value.code == 3
    summary = json.loads(capsys.readouterr().out)
    run = read_run(tmp_path / "run")
    assert summary["status"] == run.status == "diverged"
    assert 1 <= len(run.rows) - 1 < 60
    assert run.rows[-1]["train_loss"] is None


def test_a_run_holds_what_readers_expect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["train", "--executor", "serial", "--rounds", "4", "--widths", "16", "--out", str(tmp_path / "run")])
    assert "test accuracy" in capsys.readouterr().out
    run = read_run(tmp_path / "run")
    assert [row["round"] for row in run.rows] == [0, 1, 2, 3, 4]
    assert [row["samples"] for row in run.rows] == [number * 4 * 10 * 32 for number in range(5)]
    assert run.summary["sent_bytes"] == [sum(row["sent_bytes"][worker] for row in run.rows) for worker in range(4)]
    weights = 64 * 4 + 4 * 10
    assert run.summary["flops_per_worker"] == 2 * (3 * weights - 64 * 4) * 4 * 10 * 32
    assert run.summary["worker_parameters"] == [weights + 2 * 4 + 10] * 4
    with pytest.raises(RecordError, match=r"already holds a run: choose another folder, or add --replace"):
        trained(tmp_path / "run", rounds=4, widths=(16,))
    assert trained(tmp_path / "run", rounds=4, widths=(16,), replace=True).status == "finished"


def test_memory_is_that_of_the_tensors_a_worker_holds(tmp_path: Path) -> None:
    """Values, gradients and momentum of the piece, its norm's statistics and counter, the constants of the features;
    and a worker's shards of the network: of 16 rows 4, of 10 rows 3, 3, 3 and 1; of what stays as it is, all."""
    run = trained(tmp_path / "run", rounds=2, widths=(16,))
    piece, whole = (64 * width + 2 * width + width * 10 + 10 for width in (4, 16))
    buffers, whole_buffers = (4 * 2 * width + 8 + 4 * 2 * 64 for width in (4, 16))
    held = 3 * 4 * piece + buffers + whole_buffers
    shards = [4 * (4 * 64 + 2 * 4 + rows * 16 + rows) for rows in (3, 3, 3, 1)]
    assert sum(shards) == 4 * whole
    assert run.summary["worker_memory_bytes"] == [held + shard for shard in shards]
    assert run.summary["model_bytes"] == 4 * whole + whole_buffers


def test_a_law_of_ones_own_is_named_and_recorded_with_its_words() -> None:
    config = configure(law="cases.laws:Window", core=0.25)
    assert config.name == "train-digits-ist-Window-core0.25-4w-seed0"
    values = record(config)
    assert (values["law"], values["law_label"]) == ("cases.laws:Window", "Window")
    assert values["law_meaning"].startswith("A window of half the units slides on")
    assert "law_label" not in record(TrainConfig())


@pytest.mark.parametrize(
    ("flags", "tried"),
    [
        ({"strategy": "narrow"}, 1),
        ({"strategy": "local-sgd"}, 1),
        ({"scale": "none"}, 1),
        ({"law": "uniform"}, 1),
        ({"law": "uniform", "scale": "readout"}, 11),
        ({"law": "uniform", "scale": "readout", "model": "cases.trainable:normed", "widths": None}, 11),
    ],
    ids=str,
)
def test_a_factor_that_changes_nothing_is_1(tmp_path: Path, flags: dict[str, Any], tried: int) -> None:
    """No factor is called the best where none is asked for, or where a norm follows all that is scaled."""
    search = trained(tmp_path / "run", **{"widths": (16,), "workers": 2, "rounds": 2, **flags}).summary["line_search"]
    assert len(search["losses"]) == tried
    if len(set(search["losses"].values())) == 1:
        assert search["best_factor"] == 1.0
    else:
        assert flags == {"law": "uniform", "scale": "readout"}
        assert search["held_out_loss"] == min(search["losses"].values())
