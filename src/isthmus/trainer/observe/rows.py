"""What worker 0 writes while a run goes on, and what it sums up at the end."""

from __future__ import annotations

import time
from dataclasses import astuple, dataclass, field
from itertools import zip_longest
from typing import Any

from isthmus.records import RunWriter
from isthmus.trainer.config import TrainConfig
from isthmus.trainer.observe.account import Account
from isthmus.trainer.observe.evaluate import Evaluation


@dataclass(frozen=True)
class Report:
    """The few numbers every worker tells all others after a round.

    Attributes:
        loss: sum over the steps of the round.
        operations: of the round.
        process: its number on its host.
        setup_sent, setup_received: bytes before the first round.
        save: of worker 0, whether to write a checkpoint after it.
    """

    loss: float
    operations: float
    process: float
    setup_sent: float
    setup_received: float
    save: float = 0.0


@dataclass
class Rows:
    """The rows of one run, and where they go."""

    config: TrainConfig
    writer: RunWriter
    start: float = field(default_factory=time.perf_counter)
    rows: list[dict[str, Any]] = field(default_factory=list)
    operations: list[float] = field(default_factory=list)
    last: Evaluation | None = None
    _before: dict[str, list[float]] = field(default_factory=dict)

    def first(self, evaluation: Evaluation, reports: list[Report]) -> None:
        """Write row 0: the evaluation before training, what was sent to start with, the process of each worker."""
        self.last = evaluation
        self.operations = [0.0] * self.config.workers
        columns: dict[str, list[float]] = {
            "sent_bytes": [int(report.setup_sent) for report in reports],
            "received_bytes": [int(report.setup_received) for report in reports],
            "compute_seconds": [0.0] * self.config.workers,
            "communicate_seconds": [0.0] * self.config.workers,
        }
        self._before = columns
        processes = [int(report.process) for report in reports]
        self._append({**self._head(0, 0, None, evaluation), **columns, "processes": processes})

    def state(self) -> dict[str, Any]:
        """Return what the rows themselves do not say, for a checkpoint."""
        last = None if self.last is None else astuple(self.last)
        spent = time.perf_counter() - self.start
        return {"operations": self.operations, "last": last, "seconds": spent, "before": self._before}

    def go_on(self, rows: list[dict[str, Any]], state: dict[str, Any], account: Account) -> None:
        """Go on after the rows of a run so far, with what :meth:`state` returned then; workers may be more or fewer."""
        workers = self.config.workers
        self.rows = rows
        self.last = None if state["last"] is None else Evaluation(*state["last"])
        same = len(state["operations"]) == workers
        self.operations = state["operations"] if same else [max(state["operations"])] * workers
        self.start = time.perf_counter() - state["seconds"]
        self._before = state["before"] if same else _columns(account)

    def add(
        self, number: int, steps: range, account: Account, reports: list[Report], evaluation: Evaluation | None
    ) -> str:
        """Write the row of a round; return a note for the progress line."""
        config = self.config
        loss = sum(report.loss for report in reports) / (len(steps) * config.workers)
        self.operations = [a + report.operations for a, report in zip(self.operations, reports, strict=True)]
        now = _columns(account)
        spent = {
            name: [after - before for after, before in zip(column, self._before[name], strict=True)]
            for name, column in now.items()
        }
        self._before = now
        self.last = evaluation or self.last
        samples = steps.stop * config.workers * config.step.batch_size
        row = {**self._head(number, samples, loss, evaluation), **spent, "lr": config.lr_at(steps[-1])}
        self._append(row)
        return _note(evaluation)

    def _head(self, number: int, samples: int, loss: float | None, evaluation: Evaluation | None) -> dict[str, Any]:
        own = self.config.evaluation.metric is not None
        return {
            "round": number,
            "samples": samples,
            "train_loss": loss,
            "test_accuracy": evaluation.accuracy if evaluation else None,
            "test_loss": evaluation.loss if evaluation else None,
            **({"test_metric": evaluation.metric if evaluation else None} if own else {}),
            "seconds": time.perf_counter() - self.start,
        }

    def _append(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        self.writer.append(row)

    def sums(self, column: str) -> list[Any]:
        """Return the sum of a column over all rows, by worker."""
        return [sum(each) for each in zip_longest(*(row[column] for row in self.rows), fillvalue=0)]


def _columns(account: Account) -> dict[str, list[float]]:
    return {
        "sent_bytes": list(account.sent_bytes),
        "received_bytes": list(account.received_bytes),
        "compute_seconds": list(account.computing_seconds),
        "communicate_seconds": [
            moving + waiting for moving, waiting in zip(account.moving_seconds, account.waiting_seconds, strict=True)
        ],
    }


def _note(evaluation: Evaluation | None) -> str:
    if evaluation is None:
        return ""
    if evaluation.metric == evaluation.metric:
        return f"metric {evaluation.metric:.4g}"
    known = evaluation.accuracy == evaluation.accuracy
    return f"accuracy {evaluation.accuracy:.3f}" if known else f"test loss {evaluation.loss:.4g}"
