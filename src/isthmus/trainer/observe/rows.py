"""What is written of a run while it goes on, and what it is summed up from at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
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
        steps: made in the round.
        operations: of the round.
        seat: number that the worker was started with.
        process: its number on its host.
        setup_sent, setup_received: bytes before the first round.
        save: of worker 0, whether to write a checkpoint after it.
        stop: whether the worker was told to stop.
    """

    loss: float
    steps: float
    operations: float
    seat: float
    process: float
    setup_sent: float
    setup_received: float
    save: float = 0.0
    stop: float = 0.0


@dataclass
class Rows:
    """The rows of one run, which every worker knows, and where worker 0 writes them. Columns are by seat.

    Attributes:
        config: of the run.
        record: returns the writer, when this worker first writes.
        start: when the run began, by this process's clock.
        rows: so far.
        operations: of every seat so far.
        last: the latest evaluation.
    """

    config: TrainConfig
    record: Callable[[], RunWriter]
    start: float = field(default_factory=time.perf_counter)
    rows: list[dict[str, Any]] = field(default_factory=list)
    operations: list[float] = field(default_factory=list)
    last: Evaluation | None = None
    _before: dict[str, list[float]] = field(default_factory=dict)
    _processes: list[int] = field(default_factory=list)
    _writer: RunWriter | None = None

    def first(self, evaluation: Evaluation, account: Account, reports: list[Report], root: bool) -> None:
        """Add row 0: the evaluation before training, what it took to start, the process of each worker."""
        self.last = evaluation
        self.operations = [0.0] * self.config.workers
        seats = [int(report.seat) for report in reports]
        columns: dict[str, list[float]] = {
            "sent_bytes": self.by_seat([int(report.setup_sent) for report in reports], seats),
            "received_bytes": self.by_seat([int(report.setup_received) for report in reports], seats),
        }
        columns = {**self._columns(account), **columns}
        self._before = columns
        self._processes = self.by_seat([int(report.process) for report in reports], seats)
        self._append({**self._head(0, 0, None, evaluation), **columns, "processes": self._processes}, root)

    def state(self) -> dict[str, Any]:
        """Return what the rows themselves do not say, for a checkpoint and for a worker that comes."""
        last = None if self.last is None else [repr(each) for each in astuple(self.last)]  # nan is no JSON
        return {
            "operations": self.operations,
            "last": last,
            "seconds": self.seconds,
            "before": self._before,
            "processes": self._processes,
        }

    def go_on(self, rows: list[dict[str, Any]], state: dict[str, Any], account: Account | None) -> None:
        """Go on after the rows of a run so far, with what :meth:`state` returned then.

        Args:
            rows: so far.
            state: at their end.
            account: of the workers now, where they may be others than then.
        """
        workers = self.config.workers
        self.rows = rows
        last = state["last"]
        if last is not None:
            loss, accuracy, metric, targets = map(float, last)
            self.last = Evaluation(loss, accuracy, metric, int(targets))
        same = len(state["operations"]) == workers
        self.operations = state["operations"] if same else [max(state["operations"])] * workers
        self.start = time.perf_counter() - state["seconds"]
        self._before, self._processes = state["before"], state["processes"] if account is None else []
        if account is not None:
            now = self._columns(account)
            known = [(now[name], self._before[name]) for name in now if name in self._before]
            if not same or any(spent < before for pair in known for spent, before in zip(*pair, strict=True)):
                self._before = now  # others wrote the checkpoint than go on: the account has begun anew

    def add(
        self,
        number: int,
        steps: range,
        account: Account,
        reports: list[Report],
        evaluation: Evaluation | None,
        root: bool,
        refused: Collection[int] = (),
    ) -> str:
        """Add the row of a round; return a note for the progress line.

        Its loss is the mean over the steps of the seats whose blocks were not refused.
        """
        config, made = self.config, sum(report.steps for report in reports)
        merged = [report for report in reports if report.seat not in refused]
        loss = sum(report.loss for report in merged) / max(1, sum(report.steps for report in merged))
        now, processes = self._columns(account), self._processes or [0] * config.workers
        for name in now:  # a checkpoint of an earlier version may lack a column
            self._before.setdefault(name, [0] * config.workers)
        for report in reports:
            seat, process = int(report.seat), int(report.process)
            self.operations[seat] += report.operations
            if processes[seat] not in (0, process):  # it was started again, and its account with it
                for name in self._before:
                    self._before[name][seat] = 0
            processes[seat] = process
        self._processes = processes
        spent = {
            name: [max(0, after - before) for after, before in zip(column, self._before[name], strict=True)]
            for name, column in now.items()
        }
        here = set(account.seats)
        self._before = {
            name: [after if seat in here else self._before[name][seat] for seat, after in enumerate(column)]
            for name, column in now.items()
        }
        self.last = evaluation or self.last
        before = self.rows[-1]["samples"] if self.rows else 0
        samples = before + int(made) * config.step.batch_size
        row = {**self._head(number, samples, loss, evaluation), **spent, "lr": config.lr_at(steps[-1])}
        self._append(row, root)
        return _note(evaluation)

    def by_seat(self, values: Sequence[Any], seats: Sequence[int], absent: Any = 0) -> list[Any]:
        """Return what is known by worker by the number each was started with."""
        found = [absent] * self.config.workers
        for seat, value in zip(seats, values, strict=True):
            found[seat] = value
        return found

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return time.perf_counter() - self.start

    @property
    def writer(self) -> RunWriter:
        """Where worker 0 writes; opened when it is needed after another has written."""
        if self._writer is None:
            self._writer = self.record()
            if self.rows:  # another has written these
                there = self._writer.rewind(self.rows[-1]["round"])
                for row in self.rows[len(there) :]:
                    self._writer.append(row)
        return self._writer

    def _head(self, number: int, samples: int, loss: float | None, evaluation: Evaluation | None) -> dict[str, Any]:
        own = self.config.evaluation.metric is not None
        return {
            "round": number,
            "samples": samples,
            "train_loss": loss,
            "test_accuracy": evaluation.accuracy if evaluation else None,
            "test_loss": evaluation.loss if evaluation else None,
            **({"test_metric": evaluation.metric if evaluation else None} if own else {}),
            "seconds": self.seconds,
        }

    def _append(self, row: dict[str, Any], root: bool) -> None:
        if root:
            self.writer.append(row)
        else:
            self._writer = None
        self.rows.append(row)

    def sums(self, column: str) -> list[Any]:
        """Return the sum of a column over all rows, by worker."""
        return [sum(each) for each in zip_longest(*(row[column] for row in self.rows), fillvalue=0)]

    def _columns(self, account: Account) -> dict[str, list[float]]:
        both = zip(account.moving_seconds, account.waiting_seconds, strict=True)
        columns: dict[str, Sequence[float]] = {
            "sent_bytes": account.sent_bytes,
            "received_bytes": account.received_bytes,
            "compute_seconds": account.computing_seconds,
            "communicate_seconds": [moving + waiting for moving, waiting in both],
            "hops": account.hops,
            "copying_bytes": account.copying_bytes,
            "ahead_bytes": account.ahead_bytes,
        }
        return {name: self.by_seat(column, account.seats) for name, column in columns.items()}


def _note(evaluation: Evaluation | None) -> str:
    if evaluation is None:
        return ""
    if evaluation.metric == evaluation.metric:
        return f"metric {evaluation.metric:.4g}"
    known = evaluation.accuracy == evaluation.accuracy
    return f"accuracy {evaluation.accuracy:.3f}" if known else f"test loss {evaluation.loss:.4g}"
