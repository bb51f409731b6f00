"""One process a worker: what each does with its configuration."""

from __future__ import annotations

from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import torch

from isthmus.records import RunWriter
from isthmus.trainer.config import TrainConfig
from isthmus.trainer.observe.account import resident_bytes
from isthmus.trainer.task.setup import set_up
from isthmus.trainer.task.verified import check_cut
from isthmus.trainer.work import export, work


def run_worker(config: TrainConfig, folder: Path | None, verifies: bool = False) -> dict[str, Any] | None:
    """Be this process's worker of a run; worker 0 returns the summary, the others None.

    Args:
        config: of the run.
        folder: of its record, which whoever started the workers has made; None on a worker that does not see it.
        verifies: whether it is to verify how the network is cut, as nobody has before.

    Raises:
        LostPeer: another worker went away, and the run cannot go on without it.
    """
    torch.set_num_threads(1)
    start = resident_bytes()
    with ExitStack() as stack:

        @cache
        def record() -> RunWriter:
            assert folder is not None
            return stack.enter_context(RunWriter.attach(folder, config.faults.spare))

        setup = set_up(config)
        if verifies:
            check_cut(setup)
        return work(setup, None if folder is None else record, start) or None


def export_worker(config: TrainConfig, source: Path, target: Path) -> None:
    """Be this process's worker of those that write the network of a checkpoint.

    Args:
        config: of the run.
        source: the checkpoint, or a folder of some.
        target: the file.
    """
    torch.set_num_threads(1)
    export(set_up(config), source, target)
