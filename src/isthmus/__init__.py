"""Independent Subnetwork Training: exact theory on quadratics, and a trainer that cuts a network over processes.

``isthmus.lab`` is the theory (NumPy and SciPy only); ``isthmus.nets`` and ``isthmus.trainer`` are the trainer (PyTorch,
the extra ``train``). Importing ``isthmus`` loads none of them: each comes with the first use of its name.
"""

from typing import TYPE_CHECKING

from isthmus.lazy import load_lazily
from isthmus.version import __version__ as __version__

if TYPE_CHECKING:
    from isthmus import data as data
    from isthmus import lab as lab
    from isthmus import nets as nets
    from isthmus import partitions as partitions
    from isthmus import report as report
    from isthmus import strategies as strategies
    from isthmus import trainer as trainer
    from isthmus.nets.coupling.tracing import trace as trace
    from isthmus.nets.pieces.merge import merge as merge
    from isthmus.nets.pieces.subnetwork import cut as cut
    from isthmus.trainer import train as train
    from isthmus.trainer.executors.launcher import launch as launch
    from isthmus.trainer.plan.outlook import plan as plan
    from isthmus.trainer.training import Training as Training

__all__ = [
    "Training",
    "cut",
    "data",
    "lab",
    "launch",
    "merge",
    "nets",
    "partitions",
    "plan",
    "report",
    "strategies",
    "trace",
    "train",
    "trainer",
]

load_lazily(
    __name__,
    {
        "Training": "isthmus.trainer.training",
        "cut": "isthmus.nets.pieces.subnetwork",
        "data": "isthmus",
        "lab": "isthmus",
        "launch": "isthmus.trainer.executors.launcher",
        "merge": "isthmus.nets.pieces.merge",
        "nets": "isthmus",
        "partitions": "isthmus",
        "plan": "isthmus.trainer.plan.outlook",
        "report": "isthmus",
        "strategies": "isthmus",
        "trace": "isthmus.nets.coupling.tracing",
        "train": "isthmus.trainer",
        "trainer": "isthmus",
    },
)
