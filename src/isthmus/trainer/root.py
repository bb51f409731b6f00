"""What worker 0 does besides training: evaluate the whole model, write the rows, sum up, save."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from isthmus.nets.exported import read_state
from isthmus.records import RunWriter
from isthmus.trainer.evaluate import Evaluation, Evaluator, best_factor, line_search_record, summarize_scale
from isthmus.trainer.layout import digest
from isthmus.trainer.round import Worker
from isthmus.trainer.setup import Setup
from isthmus.trainer.strategies import Strategy


@dataclass(frozen=True)
class Report:
    """The few numbers every worker tells all others at the end of a round; they travel uncounted."""

    loss: float
    sent: float
    received: float
    compute: float
    communicate: float
    parameters: float
    memory: float
    operations: float
    process: float

    def as_tensor(self, device: torch.device) -> Tensor:
        """Return the numbers as float64, in which counts up to 2**53 are exact."""
        return torch.tensor(list(vars(self).values()), dtype=torch.float64, device=device)


@dataclass(frozen=True)
class RootDuty:
    """What the root has beside its share: data to evaluate on, and where rows go."""

    setup: Setup
    writer: RunWriter


class Root:
    """The root of one run."""

    def __init__(self, worker: Worker, strategy: Strategy, duty: RootDuty) -> None:
        self._config = worker.config
        self._network = worker.network
        self._strategy = strategy
        self._writer = duty.writer
        setup, shards = duty.setup, duty.setup.shards
        self._evaluator = Evaluator(
            worker.network,
            worker.samples,
            setup.samples(shards.held_out, worker.device),
            setup.samples(shards.test, worker.device),
            worker.config.scale == "readout",
        )
        self._start = time.perf_counter()
        self._rows: list[dict[str, Any]] = []
        self._most_parameters = self._most_memory = self._operations = [0] * worker.config.workers
        self._status = "finished"
        self.note = ""

    def first_row(self, reports: list[Report]) -> None:
        """Write row 0: the evaluation before training, what was sent to start with, the process of each worker."""
        evaluation = self._evaluate()
        self._append(
            {
                **self._head(0, 0, None, evaluation),
                **_columns(reports),
                "lr": self._config.lr_at(0),
                "processes": [int(report.process) for report in reports],
            }
        )

    def row(self, number: int, steps: range, reports: list[Report], diverged: bool) -> None:
        """Write the row of a finished round."""
        config = self._config
        self._most_parameters = _most(self._most_parameters, [int(report.parameters) for report in reports])
        self._most_memory = _most(self._most_memory, [int(report.memory) for report in reports])
        done = [int(report.operations) for report in reports]
        self._operations = [sum(pair) for pair in zip(self._operations, done, strict=True)]
        self._status = "diverged" if diverged else "finished"
        evaluation = self._evaluate() if config.evaluated(number) or diverged else None
        loss = sum(report.loss for report in reports) / (len(steps) * config.workers)
        self._append(
            {
                **self._head(number, steps.stop * config.workers * config.batch_size, loss, evaluation),
                **_columns(reports),
                "lr": config.lr_at(steps[-1]),
            }
        )
        if evaluation:
            self.note = f"accuracy {evaluation.accuracy:.3f}"

    def summary(self, peaks: list[float]) -> dict[str, Any]:
        """Save the network and return the summary."""
        config, whole, last = self._config, self._strategy.whole(), self._rows[-1]
        tried = self._evaluator.search(whole)
        factor = best_factor(tried) if config.scale == "readout" else 1.0
        with self._evaluator.ready(whole, factor) as model:
            _save(model, self._writer.path)
        tensors = [*whole.model.parameters(), *whole.model.buffers()]
        return {
            "status": self._status,
            "test_accuracy": self._last.accuracy,
            "test_loss": self._last.loss,
            "held_out_accuracy": tried[factor].accuracy,
            "rounds": last["round"],
            "samples": last["samples"],
            "seconds": time.perf_counter() - self._start,
            "model_parameters": sum(parameter.numel() for parameter in whole.model.parameters()),
            "worker_parameters": self._most_parameters,
            "sent_bytes": _column_sums(self._rows, "sent_bytes"),
            "received_bytes": _column_sums(self._rows, "received_bytes"),
            "compute_seconds": _column_sums(self._rows, "compute_seconds"),
            "communicate_seconds": _column_sums(self._rows, "communicate_seconds"),
            "worker_memory_bytes": self._most_memory,
            "root_model_bytes": sum(tensor.numel() * tensor.element_size() for tensor in tensors),
            "measured_peak_bytes": [None if math.isnan(peak) else int(peak) for peak in peaks],
            "flops_per_worker": max(self._operations),
            "cut_axes": {a.name: a.size for a in self._network.coupling.cut_axes} if config.cuts else {},
            "eval_scale": summarize_scale(whole),
            "line_search": line_search_record(tried),
            "weights_sha256": digest(dict(whole.model.named_parameters())),
        }

    def _evaluate(self) -> Evaluation:
        self._last = self._evaluator(self._strategy.whole())
        return self._last

    def _head(self, number: int, samples: int, loss: float | None, evaluation: Evaluation | None) -> dict[str, Any]:
        return {
            "round": number,
            "samples": samples,
            "train_loss": loss,
            "test_accuracy": evaluation.accuracy if evaluation else None,
            "test_loss": evaluation.loss if evaluation else None,
            "seconds": time.perf_counter() - self._start,
        }

    def _append(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        self._writer.append(row)


def _columns(reports: list[Report]) -> dict[str, list[float]]:
    """Return what the workers report of one round, a list each."""
    return {
        "sent_bytes": [int(report.sent) for report in reports],
        "received_bytes": [int(report.received) for report in reports],
        "compute_seconds": [report.compute for report in reports],
        "communicate_seconds": [report.communicate for report in reports],
    }


def _save(model: nn.Module, folder: Path) -> None:
    """Write the network to use (scales folded in, statistics measured) as ``model.safetensors``, tied tensors once.

    ``safetensors.torch.load_model`` reads it back into a network of the same class.
    """
    whole = model.state_dict()
    entries = [entry for entry in read_state(model).values() if entry.persistent]
    tensors = {entry.name: whole[entry.name].clone(memory_format=torch.contiguous_format) for entry in entries}
    tied = {alias: entry.name for entry in entries for alias in entry.aliases}
    save_file(tensors, folder / "model.safetensors", metadata=tied)


def _column_sums(rows: list[dict[str, Any]], key: str) -> list[Any]:
    return [sum(column) for column in zip(*(row[key] for row in rows), strict=True)]


def _most(before: list[int], now: list[int]) -> list[int]:
    return [max(pair) for pair in zip(before, now, strict=True)]
