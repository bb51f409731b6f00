"""One worker's side of real processes: drive its program over torch.distributed (gloo on CPU, nccl on GPUs)."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from isthmus.errors import WorkerError
from isthmus.records import RunWriter
from isthmus.trainer.config import TrainConfig
from isthmus.trainer.exchange import Exchange, Meter, Program
from isthmus.trainer.loop import make_worker, work
from isthmus.trainer.root import RootDuty
from isthmus.trainer.setup import set_up


class LostPeer(WorkerError):
    """An exchange failed because another worker is gone; that one is the cause, not this."""


def run_worker(config: TrainConfig, writer: RunWriter | None) -> dict[str, Any]:
    """Run this process's worker in the default process group; the root returns the summary, the others {}.

    Raises:
        LostPeer: another worker went away.
    """
    torch.set_num_threads(1)
    device = worker_device()
    setup = set_up(config)
    set_up.cache_clear()  # a worker that is not the root keeps its share and nothing else
    worker = make_worker(setup, dist.get_rank(), device)
    duty = None if writer is None else RootDuty(setup, writer)
    del setup
    result: dict[str, Any] = drive(work(worker, duty, False), worker.meter, worker.index)
    dist.barrier()  # leave together: nobody closes a connection that another still reads from
    return result


def drive(program: Program[Any], meter: Meter, worker: int) -> Any:
    """Run one program to its end, performing its exchanges in the default process group; return its result."""
    reply: list[Tensor] | None = None
    while True:
        try:
            request = program.send(reply)  # type: ignore[arg-type]
        except StopIteration as stop:
            return stop.value
        start = time.perf_counter()
        reply = _all_to_all(request, worker)
        meter.count(request, worker)
        meter.communicate += time.perf_counter() - start


def worker_device() -> torch.device:
    """Return this worker's device: a GPU of its own where there is one for every worker of this host, else the CPU."""
    if torch.cuda.is_available() and torch.cuda.device_count() >= int(os.environ.get("LOCAL_WORLD_SIZE", "1")):
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


def backend() -> str:
    """Return the process group's backend for this worker's device."""
    return "nccl" if worker_device().type == "cuda" else "gloo"


def attach(folder: Path | None) -> RunWriter | None:
    """Return a writer of rows on the root, for the folder that whoever started the workers made; None elsewhere."""
    return RunWriter.attach(folder) if folder is not None and dist.get_rank() == 0 else None


def _all_to_all(request: Exchange, worker: int) -> list[Tensor]:
    """Perform one ragged all-to-all, as bytes; what a worker sends itself does not go through the network."""
    kind = request.send[0]
    size = kind.element_size()
    sent = [0 if to == worker else size * piece.numel() for to, piece in enumerate(request.send)]
    expected = [0 if source == worker else size * number for source, number in enumerate(request.expect)]
    outgoing = torch.cat([piece for to, piece in enumerate(request.send) if to != worker] or [kind[:0]])
    incoming = torch.empty(sum(expected), dtype=torch.uint8, device=kind.device)
    try:
        if len(sent) > 1:
            dist.all_to_all_single(incoming, outgoing.view(torch.uint8), expected, sent)
    except RuntimeError as error:
        raise LostPeer(f"worker {worker} lost the connection to another worker: {error}") from error
    reply = [part.view(kind.dtype) for part in incoming.split(expected)]
    reply[worker] = request.send[worker]
    return reply
