"""Serial equals real processes bit for bit; one worker is local SGD; the bytes are those of the tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cases.groups import run_group
from cases.laws import LAW_CASES
from cases.runs import trained, without_times, write_text
from cases.strategies import ON_ANY
from cases.traffic import round_bytes
from isthmus.nets.models.mlp import MLPSpec, parameter_count
from isthmus.partitions import LAWS
from isthmus.records import Run, RunWriter, read_run
from isthmus.trainer import TrainConfig, configure
from isthmus.trainer.config.flags import record
from isthmus.trainer.executors.processes import run_worker
from isthmus.trainer.task.setup import set_up

# 33 and 18 units over 4 workers: the pieces differ in size, and sizes move between workers under uniform and rotated.
SMALL: dict[str, Any] = {
    "widths": (33, 18), "samples": 4 * 16 * 13, "local_steps": 5, "batch_size": 16, "seed": 3, "lr": 0.1,
    "eval_every": 1,
}  # fmt: skip
RESULT = ("test_accuracy", "test_loss", "weights_sha256", "sent_bytes", "received_bytes", "worker_parameters")
VARIANTS = [
    {"strategy": "ist", "law": "rotated", "scale": "readout"},
    {"strategy": "ist", "law": "rotated", "keep_state": True, "accumulate": 4},
    {"strategy": "ist", "law": "uniform", "core": 0.25},
    {"strategy": "ist", "law": "block", "core": 0.3, "norm": "none", "activation": "gelu"},
    {"strategy": "ist", "law": "cases.laws:Window", "core": 0.25},
    {"strategy": "ist", "autocast": "bfloat16", "schedule": "linear"},
    {"strategy": "narrow", "core": 0.25},
    {"strategy": "narrow", "law": "weighted", "capacities": (1.0, 1.0, 2.0, 4.0)},
    {"strategy": "data-parallel", "weight_decay": 1e-3, "accumulate": 2},
    {"strategy": "ist", "loss": "cases.objectives:smoothed", "metric": "cases.objectives:balanced"},
]
NETWORKS = [
    {"model": "cases.trainable:digits", "law": "block"},
    {"model": "cases.trainable:digits", "law": "uniform", "core": 0.25, "optimizer": "adamw", "lr": 0.01},
    {"model": "cases.trainable:digits", "law": "weighted", "capacities": (1.0, 1.0, 2.0, 4.0)},
    {"model": "cases.trainable:digits", "strategy": "local-sgd", "features": "standardized"},
    {"model": "cases.trainable:digits", "strategy": "narrow", "clip": 1.0},
    {"model": "cases.trainable:digits", "strategy": "data-parallel"},
    {"model": "cases.trainable:reader", "data": "text", "law": "fixed", "optimizer": "adamw"},
    {"model": "cases.trainable:reader", "data": "text", "strategy": "narrow", "optimizer": "adamw"},
    {"model": "cases.trainable:nodes", "data": "sbm", "law": "rolling"},
    {"model": "cases.trainable:nodes", "data": "sbm", "strategy": "data-parallel"},
    {"model": "cases.trainable:deep", "cut": ("block",), "law": "overlapping", "minimum": 2},
    {"model": "cases.trainable:deep", "cut": ("block", "*.1"), "law": "rotated"},
    {"model": "cases.trainable:values_while_built", "law": "rotated"},
    {"model": "cases.trainable:weighted", "law": "rotated"},
]


def name_of(variant: dict[str, Any]) -> str:
    return "-".join(str(value).rpartition(":")[2] for value in variant.values())


def small(variant: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The small run with what a variant changes; one with a network of its own has no widths."""
    flags = {**SMALL, **({"widths": None} if "model" in variant else {}), **variant}
    return {**flags, "data": write_text(folder)} if flags.get("data") == "text" else flags


def check_processes_equal_serial(folder: Path, variant: dict[str, Any], workers: int = 4) -> None:
    flags = {**small(variant, folder), "workers": workers}
    serial = trained(folder / "serial", **flags)
    config = configure(**flags, out=folder / "processes")
    with RunWriter(config.out, "train", record(config)) as writer:
        summaries = run_group(_train_in_group, workers, config)
        writer.finish(summaries[0], status="finished")
    processes = read_run(config.out)
    assert without_times(processes) == without_times(serial)
    assert {key: processes.summary[key] for key in RESULT} == {key: serial.summary[key] for key in RESULT}
    saved = [(folder / executor / "model.safetensors").read_bytes() for executor in ("serial", "processes")]
    assert saved[0] == saved[1]
    assert summaries[1:] == [None] * (workers - 1)


def _train_in_group(config: TrainConfig) -> dict[str, Any]:
    return run_worker(config, config.out)


@pytest.mark.processes
@pytest.mark.parametrize("strategy", ON_ANY)
def test_every_strategy_over_four_processes_equals_serial_bit_for_bit(tmp_path: Path, strategy: str) -> None:
    check_processes_equal_serial(tmp_path, {"strategy": strategy})


@pytest.mark.processes
@pytest.mark.parametrize("law", LAWS)
def test_every_law_over_four_processes_equals_serial_bit_for_bit(tmp_path: Path, law: str) -> None:
    check_processes_equal_serial(tmp_path, {"law": LAW_CASES[law](4)})


@pytest.mark.processes
@pytest.mark.parametrize("variant", [*VARIANTS, *NETWORKS], ids=name_of)
def test_four_processes_equal_serial_bit_for_bit(tmp_path: Path, variant: dict[str, Any]) -> None:
    check_processes_equal_serial(tmp_path, variant)


@pytest.mark.parametrize("law", ["uniform", "fixed", "rotated", "block"])
def test_one_worker_is_local_sgd_bit_for_bit(tmp_path: Path, law: str) -> None:
    alone = {**SMALL, "workers": 1, "samples": 16 * 12}
    ist = trained(tmp_path / "ist", **alone, law=law)
    local = trained(tmp_path / "local", **alone, strategy="local-sgd")
    assert without_times(ist) == without_times(local)
    assert ist.summary["weights_sha256"] == local.summary["weights_sha256"]
    assert ist.summary["sent_bytes"] == [0]


def test_a_core_of_everything_is_local_sgd_bit_for_bit(tmp_path: Path) -> None:
    ist = trained(tmp_path / "ist", **SMALL, law="uniform", core=1.0, workers=3)
    local = trained(tmp_path / "local", **SMALL, strategy="local-sgd", workers=3)
    assert ist.summary["weights_sha256"] == local.summary["weights_sha256"]
    assert [row["test_loss"] for row in ist.rows] == [row["test_loss"] for row in local.rows]


def test_same_seed_same_bits_and_another_seed_other_bits(tmp_path: Path) -> None:
    first, again, other = (trained(tmp_path / str(i), **{**SMALL, "seed": seed}) for i, seed in enumerate((5, 5, 6)))
    assert first.summary["weights_sha256"] == again.summary["weights_sha256"] != other.summary["weights_sha256"]


def test_bytes_are_those_of_the_tensors(tmp_path: Path) -> None:
    """P = 64*32 + 2*32 + 32*16 + 2*16 + 16*10 + 10 parameters (batch norm, no bias), all float32."""
    even = {**SMALL, "widths": (32, 16), "samples": 4 * 16 * 10}  # two full rounds
    dense = 64 * 32 + 2 * 32 + 32 * 16 + 2 * 16 + 16 * 10 + 10
    piece = 64 * 8 + 2 * 8 + 8 * 4 + 2 * 4 + 4 * 10 + 10
    assert parameter_count(MLPSpec(64, (32, 16), 10)) == dense
    by_strategy: dict[str, Run] = {name: trained(tmp_path / name, **even, strategy=name) for name in ON_ANY}
    ist, coupling = by_strategy["ist"].rows[1], set_up(configure(**even, executor="serial")).network.coupling
    back = {name for name, entry in coupling.entries.items() if entry.is_parameter}
    counted = round_bytes(coupling, coupling.partition(4, 3, 0, "block"), back, set(coupling.entries) - back)
    assert (ist["sent_bytes"], ist["received_bytes"]) == counted
    sizes = (("local-sgd", dense, 1), ("diloco", dense, 1), ("narrow", piece, 1), ("data-parallel", dense, 5))
    for name, size, times in sizes:
        chunks = [len(range(size)[w::4]) for w in range(4)]  # numbers each worker sums: as even as can be
        expected = [times * 4 * ((size - chunk) + 3 * chunk) for chunk in chunks]
        row = by_strategy[name].rows[1]
        assert row["sent_bytes"] == row["received_bytes"] == expected
        assert sum(expected) == times * 4 * 2 * 3 * size  # 2 (n - 1) / n of the tensor, each of n workers
