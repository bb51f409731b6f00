"""All workers in one process, in turn: the reference that real processes must equal bit for bit."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from isthmus.errors import IsthmusError, WorkerError
from isthmus.records import RunWriter
from isthmus.trainer.config import TrainConfig
from isthmus.trainer.exchange import Exchange, Meter, Program
from isthmus.trainer.loop import make_worker, work
from isthmus.trainer.root import RootDuty
from isthmus.trainer.setup import set_up


def run_serial(config: TrainConfig, writer: RunWriter) -> dict[str, Any]:
    """Run all workers here; return the root's summary."""
    setup = set_up(config)
    with one_thread(), torch.random.fork_rng(devices=[]):
        workers = [make_worker(setup, index, torch.device("cpu")) for index in range(config.workers)]
        duty = RootDuty(setup, writer)
        programs = [work(worker, duty if worker.is_root else None, True) for worker in workers]
        return step_together(programs, [worker.meter for worker in workers])[0]


def step_together(programs: Sequence[Program[Any]], meters: Sequence[Meter]) -> list[Any]:
    """Step all programs from exchange to exchange until they return; return their results.

    Raises:
        WorkerError: a program raised; the message names the worker.
    """
    replies: list[list[Tensor] | None] = [None] * len(programs)
    while True:
        requests, results = [], []
        for worker, (program, reply) in enumerate(zip(programs, replies, strict=True)):
            try:
                requests.append(program.send(reply))  # type: ignore[arg-type]
            except StopIteration as stop:
                results.append(stop.value)
            except (IsthmusError, KeyboardInterrupt):
                raise
            except Exception as error:
                raise WorkerError(f"worker {worker} failed ({type(error).__name__}: {error})") from error
        if not requests:
            return results
        replies = list(_deliver(requests, meters))


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread inside the block, as every worker process does: the number of threads changes the bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _deliver(requests: Sequence[Exchange], meters: Sequence[Meter]) -> Iterator[list[Tensor]]:
    for worker, (request, meter) in enumerate(zip(requests, meters, strict=True)):
        start = time.perf_counter()
        reply = [other.send[worker].clone() for other in requests]
        sizes = tuple(piece.numel() for piece in reply)
        if sizes != request.expect:
            raise WorkerError(f"worker {worker} expected {request.expect} numbers from the others, was sent {sizes}")
        meter.count(request, worker)
        meter.communicate += time.perf_counter() - start
        yield reply
