"""The trainer: IST and its rivals over worker processes, around a loop of one's own or as one command.

``TrainConfig`` and this package import without PyTorch; what needs it is loaded when it is asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from isthmus.errors import InvalidInput
from isthmus.lazy import load_lazily
from isthmus.records import Run
from isthmus.trainer.config import TrainConfig, configure
from isthmus.trainer.config.again import go_on

if TYPE_CHECKING:
    from isthmus.trainer.executors.launcher import launch as launch
    from isthmus.trainer.observe.account import Account as Account
    from isthmus.trainer.plan.ahead import memory_plan as memory_plan
    from isthmus.trainer.training import Training as Training

__all__ = ["Account", "TrainConfig", "Training", "configure", "export_run", "launch", "memory_plan", "train"]

def train(
    config: TrainConfig | None = None,
    command: list[str] | None = None,
    resume: str | Path | None = None,
    **flags: Any,
) -> Run | None:
    """Run one training and return its record (None on a worker under torchrun that is not worker 0).

    ::

        run = isthmus.train(data="digits", strategy="ist", law="block", workers=4)
        run = isthmus.train(data=(train_set, test_set), model=make_network, example=(x,), loss=loss, workers=4)

    Args:
        config: what to train and how; or its flags.
        command: the arguments that reproduce the run, for its record; by default they are made from the
            configuration, where everything in it has a name.
        resume: the folder of an earlier run to go on with, from its last checkpoint; see ``go_on`` for its flags.
        flags: as of the command line (``isthmus train --help``), with underscores; values may be objects: a network or
            a function that makes one (with ``example``), a Dataset, (train, test) datasets or loaders, a strategy, a
            law, a function that makes an optimizer, a loss, a metric.

    Raises:
        InvalidInput: a configuration that cannot run, before any process starts.
        WorkerError: a worker was killed or failed; the message names it. The rows so far stay in the folder.
        MissingDependency: PyTorch is not installed.
    """
    if config is not None and (flags or resume is not None):
        raise InvalidInput(f"`{next(iter(flags), 'resume')}` has no effect beside a configuration")
    if config is None:
        config = configure(**flags) if resume is None else go_on(resume, **flags)
    from isthmus.trainer.run import run  # PyTorch is loaded here, not by `isthmus train --help`

    return run(config, command)


def export_run(folder: str | Path, path: str | Path, checkpoint: int | None = None) -> Path:
    """Write the network of a run's checkpoint as one safetensors file, as the run itself would at that moment.

    As many workers as wrote the checkpoint are started, each with its shard.

    Args:
        folder: of the run.
        path: where; ends in .safetensors.
        checkpoint: its number; by default the last that is sound.

    Raises:
        InvalidInput: a run without such a checkpoint, or a path that cannot be.
        WorkerError: a worker was killed or failed.
        MissingDependency: PyTorch is not installed.
    """
    from isthmus.trainer.run import export

    return export(Path(folder), Path(path), checkpoint)


load_lazily(
    __name__,
    {
        "Account": "isthmus.trainer.observe.account",
        "Training": "isthmus.trainer.training",
        "launch": "isthmus.trainer.executors.launcher",
        "memory_plan": "isthmus.trainer.plan.ahead",
    },
)
