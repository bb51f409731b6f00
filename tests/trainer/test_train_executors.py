"""Serial equals real processes bit for bit; one worker is local SGD; the bytes are those of the tensors."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from cases.groups import run_group
from isthmus.nets.mlp import MLPSpec, parameter_count
from isthmus.records import Run, RunWriter, read_run
from isthmus.trainer import TrainConfig, train
from isthmus.trainer.executors.processes import attach, run_worker

VARIANTS = [
    {"strategy": "ist", "law": "uniform"},
    {"strategy": "ist", "law": "fixed"},
    {"strategy": "ist", "law": "rotated", "scale": "readout"},
    {"strategy": "ist", "law": "block"},
    {"strategy": "ist", "law": "uniform", "core": 0.25},
    {"strategy": "ist", "law": "block", "core": 0.3, "norm": "none", "activation": "gelu"},
    {"strategy": "ist", "law": "cases.laws:Window", "core": 0.25},
    {"strategy": "local-sgd"},
    {"strategy": "narrow", "core": 0.25},
    {"strategy": "data-parallel", "weight_decay": 1e-3},
]
# 33 and 18 units over 4 workers: the pieces differ in size, and sizes move between workers under uniform and rotated.
SMALL = TrainConfig(widths=(33, 18), samples=4 * 16 * 13, local_steps=5, batch_size=16, seed=3, lr=0.1, eval_every=1)
TIMES = ("seconds", "compute_seconds", "communicate_seconds", "processes")
RESULT = ("test_accuracy", "test_loss", "weights_sha256", "sent_bytes", "received_bytes", "worker_parameters")


NETWORKS = [
    {"model": "cases.trainable:digits", "law": "block"},
    {"model": "cases.trainable:digits", "law": "uniform", "core": 0.25, "optimizer": "adamw", "lr": 0.01},
    {"model": "cases.trainable:digits", "law": "weighted", "capacities": (1.0, 1.0, 2.0, 4.0)},
    {"model": "cases.trainable:digits", "strategy": "local-sgd"},
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


def train_serial(folder: Path, **changes: Any) -> Run:
    run = train(dataclasses.replace(SMALL, executor="serial", out=folder, **changes))
    assert run is not None
    return run


def without_times(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


@pytest.mark.processes
@pytest.mark.parametrize("variant", [*VARIANTS, *NETWORKS], ids=name_of)
def test_four_processes_equal_serial_bit_for_bit(tmp_path: Path, variant: dict[str, Any]) -> None:
    variant = with_text(variant, tmp_path)
    serial = train_serial(tmp_path / "serial", **variant)
    config = dataclasses.replace(SMALL, out=tmp_path / "processes", **variant)
    with RunWriter(config.out, "train", config.resolved()) as writer:
        summaries = run_group(_train_in_group, 4, config)
        writer.finish(summaries[0], status="finished")
    processes = read_run(config.out)
    assert without_times(processes.rows) == without_times(serial.rows)
    assert {key: processes.summary[key] for key in RESULT} == {key: serial.summary[key] for key in RESULT}
    saved = [(tmp_path / executor / "model.safetensors").read_bytes() for executor in ("serial", "processes")]
    assert saved[0] == saved[1]
    assert summaries[1:] == [{}, {}, {}]


def with_text(variant: dict[str, Any], folder: Path) -> dict[str, Any]:
    if variant.get("data") != "text":
        return variant
    lines = [f"The {n}th line says that {n} times {n} is {n * n}.\n" for n in range(300)]
    (folder / "lines.txt").write_text("".join(lines))
    return {**variant, "data": f"text:{folder / 'lines.txt'}"}


def _train_in_group(config: TrainConfig) -> dict[str, Any]:
    return run_worker(config, attach(config.out))


@pytest.mark.parametrize("law", ["uniform", "fixed", "rotated", "block"])
def test_one_worker_is_local_sgd_bit_for_bit(tmp_path: Path, law: str) -> None:
    ist = train_serial(tmp_path / "ist", strategy="ist", law=law, workers=1, samples=16 * 12)
    local = train_serial(tmp_path / "local", strategy="local-sgd", workers=1, samples=16 * 12)
    assert without_times(ist.rows) == without_times(local.rows)
    assert ist.summary["weights_sha256"] == local.summary["weights_sha256"]
    assert ist.summary["sent_bytes"] == [0]


def test_a_core_of_everything_is_local_sgd_bit_for_bit(tmp_path: Path) -> None:
    ist = train_serial(tmp_path / "ist", strategy="ist", law="uniform", core=1.0, workers=3)
    local = train_serial(tmp_path / "local", strategy="local-sgd", workers=3)
    assert ist.summary["weights_sha256"] == local.summary["weights_sha256"]
    assert [row["test_loss"] for row in ist.rows] == [row["test_loss"] for row in local.rows]


def test_same_seed_same_bits_and_another_seed_other_bits(tmp_path: Path) -> None:
    first, again, other = (train_serial(tmp_path / str(i), seed=seed) for i, seed in enumerate((5, 5, 6)))
    assert first.summary["weights_sha256"] == again.summary["weights_sha256"] != other.summary["weights_sha256"]


def test_bytes_are_those_of_the_tensors(tmp_path: Path) -> None:
    """P = 64*32 + 2*32 + 32*16 + 2*16 + 16*10 + 10 parameters (batch norm, no bias), all float32."""
    even = {"widths": (32, 16), "samples": 4 * 16 * 10, "local_steps": 5}  # two full rounds
    dense = 64 * 32 + 2 * 32 + 32 * 16 + 2 * 16 + 16 * 10 + 10
    piece = 64 * 8 + 2 * 8 + 8 * 4 + 2 * 4 + 4 * 10 + 10
    assert parameter_count(MLPSpec(64, (32, 16), 10)) == dense
    ist = train_serial(tmp_path / "ist", **even).rows[1]
    assert ist["sent_bytes"] == ist["received_bytes"] == [3 * 4 * piece, 4 * piece, 4 * piece, 4 * piece]
    local = train_serial(tmp_path / "local", strategy="local-sgd", **even).rows[1]
    parallel = train_serial(tmp_path / "parallel", strategy="data-parallel", **even).rows[1]
    narrow = train_serial(tmp_path / "narrow", strategy="narrow", **even).rows[1]
    for row, size, times in ((local, dense, 1), (narrow, piece, 1), (parallel, dense, 5)):
        chunks = [len(range(size)[w::4]) for w in range(4)]  # numbers each worker sums: as even as can be
        expected = [times * 4 * ((size - chunk) + 3 * chunk) for chunk in chunks]
        assert row["sent_bytes"] == row["received_bytes"] == expected
        assert sum(expected) == times * 4 * 2 * 3 * size  # 2 (n - 1) / n of the tensor, each of n workers
