"""One worker's whole run as a program: rounds, rows, evaluation on the root, the summary."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from isthmus.data import Dataset
from isthmus.nets.mlp import MLP, MLPSpec, parameter_count
from isthmus.progress import progress
from isthmus.records import RunWriter
from isthmus.train.account import flops_per_sample, planned_bytes, resident_bytes
from isthmus.train.config import TrainConfig
from isthmus.train.evaluate import Evaluation, Evaluator, best_factor, line_search_record, summarize_scale
from isthmus.train.exchange import Program, all_gather
from isthmus.train.round import Worker
from isthmus.train.shards import Shards
from isthmus.train.strategies import STRATEGIES, Strategy


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


def make_worker(config: TrainConfig, shards: Shards, index: int, device: torch.device) -> Worker:
    """Return a worker with its own share of the data."""
    features, targets = _tensors(shards.train.take(shards.shares[index]), device)
    return Worker(index, config, features, targets, shards.train.classes)


@dataclass(frozen=True)
class RootDuty:
    """What the root has beside its share: data to evaluate on, and where rows go."""

    shards: Shards
    writer: RunWriter


def work(worker: Worker, duty: RootDuty | None, shared_process: bool) -> Program[dict[str, Any]]:
    """Run all rounds as one worker. The root writes a row a round and returns the summary; the others return {}.

    Args:
        worker: which one, with its share.
        duty: None on workers that are not the root.
        shared_process: whether all workers live in this process, so that memory cannot be told apart.
    """
    config = worker.config
    spec = MLPSpec(worker.features.shape[1], config.widths, worker.classes, config.activation, config.norm)
    start_bytes = resident_bytes()
    strategy = STRATEGIES[config.strategy](spec, worker)
    root = _Root(worker, strategy, duty) if duty is not None else None
    with ExitStack() as stack:
        total = len(config.steps_by_round)
        advance = stack.enter_context(progress(_title(config), total)) if root else None
        reports = yield from _exchange_reports(worker, strategy, 0.0, 0)
        if root:
            root.first_row([int(report.process) for report in reports])
        for number, steps in enumerate(config.steps_by_round, start=1):
            loss = yield from strategy.round(number - 1, steps)
            reports = yield from _exchange_reports(worker, strategy, loss, len(steps))
            diverged = not all(math.isfinite(report.loss) for report in reports)
            if root and advance:
                root.row(number, steps, reports, diverged)
                advance(1, root.note)
            if diverged:
                break
    peak = _growth(start_bytes) if not shared_process else math.nan
    own_peak = torch.tensor([peak], dtype=torch.float64, device=worker.features.device)
    peaks = yield from all_gather(own_peak, config.workers, counted=False)
    if root is None:
        return {}
    return root.summary([value.item() for value in peaks])


def _exchange_reports(worker: Worker, strategy: Strategy, loss: float, steps: int) -> Program[list[Report]]:
    config, meter, network = worker.config, worker.meter, strategy.trained
    own = Report(
        loss=loss,
        sent=meter.sent,
        received=meter.received,
        compute=meter.compute,
        communicate=meter.communicate,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        memory=planned_bytes(network, config.momentum),
        operations=flops_per_sample(network) * config.batch_size * steps,
        process=os.getpid(),
    )
    meter.reset()
    replies = yield from all_gather(own.as_tensor(worker.features.device), config.workers, counted=False)
    return [Report(*reply.tolist()) for reply in replies]


class _Root:
    """What worker 0 does besides training: evaluate, write rows, sum up."""

    def __init__(self, worker: Worker, strategy: Strategy, duty: RootDuty) -> None:
        self._config = worker.config
        self._strategy = strategy
        self._writer = duty.writer
        device = worker.features.device
        self._evaluator = Evaluator(
            worker.features,
            _tensors(duty.shards.held_out, device),
            _tensors(duty.shards.test, device),
            worker.config.scale == "readout",
        )
        self._start = time.perf_counter()
        self._rows: list[dict[str, Any]] = []
        self._most_parameters = self._most_memory = self._operations = [0] * worker.config.workers
        self._status = "finished"
        self.note = ""

    def first_row(self, processes: list[int]) -> None:
        """Write row 0: the evaluation before training, and the process of each worker."""
        evaluation = self._evaluator(self._strategy.whole())
        zeros = [0] * self._config.workers
        self._append(
            {
                **self._head(0, 0, None, evaluation),
                "sent_bytes": zeros,
                "received_bytes": zeros,
                "compute_seconds": zeros,
                "communicate_seconds": zeros,
                "lr": self._config.lr_at(0),
                "processes": processes,
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
        evaluation = self._evaluator(self._strategy.whole()) if config.evaluated(number) or diverged else None
        loss = sum(report.loss for report in reports) / (len(steps) * config.workers)
        self._append(
            {
                **self._head(number, steps.stop * config.workers * config.batch_size, loss, evaluation),
                "sent_bytes": [int(report.sent) for report in reports],
                "received_bytes": [int(report.received) for report in reports],
                "compute_seconds": [report.compute for report in reports],
                "communicate_seconds": [report.communicate for report in reports],
                "lr": config.lr_at(steps[-1]),
            }
        )
        if evaluation:
            self.note = f"accuracy {evaluation.accuracy:.3f}"

    def summary(self, peaks: list[float]) -> dict[str, Any]:
        """Save the model and return the summary."""
        config, whole, last = self._config, self._strategy.whole(), self._rows[-1]
        evaluation = self._evaluator(whole, search=True)
        factor = best_factor(evaluation.line_search) if config.scale == "readout" else 1.0
        _save(self._evaluator.model(whole, factor), self._writer.path)
        return {
            "status": self._status,
            "test_accuracy": evaluation.accuracy,
            "test_loss": evaluation.loss,
            "held_out_accuracy": evaluation.held_out_accuracy,
            "rounds": last["round"],
            "samples": last["samples"],
            "seconds": time.perf_counter() - self._start,
            "model_parameters": parameter_count(whole.spec),
            "worker_parameters": self._most_parameters,
            "sent_bytes": _column_sums(self._rows, "sent_bytes"),
            "received_bytes": _column_sums(self._rows, "received_bytes"),
            "compute_seconds": _column_sums(self._rows, "compute_seconds"),
            "communicate_seconds": _column_sums(self._rows, "communicate_seconds"),
            "worker_memory_bytes": self._most_memory,
            "root_model_bytes": sum(t.numel() * t.element_size() for t in whole.state.values()),
            "measured_peak_bytes": [None if math.isnan(peak) else int(peak) for peak in peaks],
            "flops_per_worker": max(self._operations),
            "eval_scale": summarize_scale(whole),
            "line_search": line_search_record(evaluation),
            "weights_sha256": digest(whole.state),
        }

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


def digest(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of the parameters' bits: equal digests, equal weights."""
    content = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        if not name.startswith("norms") or name.endswith(("weight", "bias")):
            content.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return content.hexdigest()


def _save(model: MLP, folder: Path) -> None:
    """Write the model to use (scales folded in, statistics recomputed) as ``model.safetensors``."""
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, folder / "model.safetensors", metadata={"spec": json.dumps(vars(model.spec))})


def _title(config: TrainConfig) -> str:
    law = f" ({config.law})" if config.strategy == "ist" else ""
    return f"train {config.data}: {config.strategy}{law}, {config.workers} workers"


def _tensors(data: Dataset, device: torch.device) -> tuple[Tensor, Tensor]:
    features = torch.from_numpy(data.features).to(device=device, dtype=torch.float32)
    return features, torch.from_numpy(data.targets).to(device=device, dtype=torch.int64)


def _column_sums(rows: list[dict[str, Any]], key: str) -> list[Any]:
    return [sum(column) for column in zip(*(row[key] for row in rows), strict=True)]


def _most(before: list[int], now: list[int]) -> list[int]:
    return [max(pair) for pair in zip(before, now, strict=True)]


def _growth(start: int | None) -> float:
    peak = resident_bytes(peak=True)
    return math.nan if start is None or peak is None else max(0, peak - start)
