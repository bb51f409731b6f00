"""One process a worker: what each does with its configuration."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from isthmus.records import RunWriter
from isthmus.trainer.config import TrainConfig
from isthmus.trainer.observe.account import resident_bytes
from isthmus.trainer.task.setup import set_up
from isthmus.trainer.work import export, work


def run_worker(config: TrainConfig, folder: Path | None) -> dict[str, Any]:
    """Be this process's worker in the default process group; worker 0 returns the summary, the others {}.

    Args:
        config: of the run.
        folder: of its record, which whoever started the workers has made.

    Raises:
        LostPeer: another worker went away.
    """
    torch.set_num_threads(1)
    writes = folder is not None and dist.get_rank() == 0
    with RunWriter.attach(folder, config.faults.spare) if folder is not None and writes else nullcontext() as writer:
        start = resident_bytes()
        result = work(set_up(config), writer, start)
        dist.barrier()  # leave together: nobody closes a connection that another still reads from
    return result


def export_worker(config: TrainConfig, source: Path, target: Path) -> None:
    """Be this process's worker of those that write the network of a checkpoint.

    Args:
        config: of the run.
        source: the checkpoint, or a folder of some.
        target: the file.
    """
    torch.set_num_threads(1)
    export(set_up(config), source, target)
    dist.barrier()
