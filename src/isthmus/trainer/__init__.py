"""Train a network by Independent Subnetwork Training, or by a rival, over worker processes.

``TrainConfig`` and this package import without PyTorch; :func:`train` loads it when it is called.
"""

from __future__ import annotations

from isthmus.records import Run
from isthmus.trainer.config import TrainConfig

__all__ = ["TrainConfig", "train"]


def train(config: TrainConfig, command: list[str] | None = None) -> Run | None:
    """Run one training and return its record (None on a worker under torchrun that is not the root).

    Args:
        config: what to train and how.
        command: the command line that reproduces the run, for its record; None if there is none.

    Raises:
        InvalidInput: a configuration that cannot run, before any process starts.
        WorkerError: a worker was killed or failed; the message names it. The rows so far stay in the folder.
        MissingDependency: PyTorch is not installed.
    """
    from isthmus.trainer.run import run  # PyTorch is loaded here, not by `isthmus train --help`

    return run(config, command)
