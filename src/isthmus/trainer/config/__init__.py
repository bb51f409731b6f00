"""What to train and how: one frozen dataclass a concern, validated on construction, without PyTorch."""

from __future__ import annotations

from isthmus.trainer.config.evaluation import Evaluation
from isthmus.trainer.config.faults import Faults
from isthmus.trainer.config.flags import FLAGS, configure
from isthmus.trainer.config.model import Own, Perceptron
from isthmus.trainer.config.optimize import OPTIMIZERS, SGD, AdamW, OwnOptimizer
from isthmus.trainer.config.run import TrainConfig
from isthmus.trainer.config.schedule import SCHEDULES, Constant, Cosine, Linear
from isthmus.trainer.config.step import Step

__all__ = [
    "FLAGS",
    "OPTIMIZERS",
    "SCHEDULES",
    "SGD",
    "AdamW",
    "Constant",
    "Cosine",
    "Evaluation",
    "Faults",
    "Linear",
    "Own",
    "OwnOptimizer",
    "Perceptron",
    "Step",
    "TrainConfig",
    "configure",
]
