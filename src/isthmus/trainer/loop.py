"""One worker's whole run as a program: rounds, and what all workers tell each other after every round."""

from __future__ import annotations

import math
import os
from contextlib import ExitStack
from typing import Any

import torch

from isthmus.progress import progress
from isthmus.trainer.account import planned_bytes, resident_bytes
from isthmus.trainer.config import TrainConfig
from isthmus.trainer.exchange import Program, all_gather
from isthmus.trainer.root import Report, Root, RootDuty
from isthmus.trainer.round import Worker
from isthmus.trainer.setup import Setup
from isthmus.trainer.strategies import STRATEGIES, Strategy


def make_worker(setup: Setup, index: int, device: torch.device) -> Worker:
    """Return a worker with its own share of the data."""
    shards = setup.shards
    return Worker(index, setup.network, setup.samples(shards.train.take(shards.shares[index]), device))


def work(worker: Worker, duty: RootDuty | None, shared_process: bool) -> Program[dict[str, Any]]:
    """Run all rounds as one worker. The root writes a row a round and returns the summary; the others return {}.

    Args:
        worker: which one, with its share.
        duty: None on workers that are not the root.
        shared_process: whether all workers live in this process, so that memory cannot be told apart.
    """
    config = worker.config
    start_bytes = resident_bytes()
    strategy = STRATEGIES[config.strategy](worker)
    yield from strategy.start()
    root = Root(worker, strategy, duty) if duty is not None else None
    with ExitStack() as stack:
        total = len(config.steps_by_round)
        advance = stack.enter_context(progress(_title(config), total)) if root else None
        reports = yield from _exchange_reports(worker, strategy, 0.0, 0)
        if root:
            root.first_row(reports)
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
    own_peak = torch.tensor([peak], dtype=torch.float64, device=worker.device)
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
        memory=planned_bytes(network, config.optimizer, config.momentum),
        operations=worker.flops(network) * steps,
        process=os.getpid(),
    )
    meter.reset()
    replies = yield from all_gather(own.as_tensor(worker.device), config.workers, counted=False)
    return [Report(*reply.tolist()) for reply in replies]


def _title(config: TrainConfig) -> str:
    law = f" ({config.law})" if config.strategy == "ist" else ""
    model = f"{config.model} on " if config.model else ""
    return f"train {model}{config.data}: {config.strategy}{law}, {config.workers} workers"


def _growth(start: int | None) -> float:
    peak = resident_bytes(peak=True)
    return math.nan if start is None or peak is None else max(0, peak - start)
