"""The examples in the docstrings of the trainer and of what it is configured by."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import isthmus.strategies
import isthmus.trainer
from isthmus.nets.models import mlp

MODULES = [
    *(
        info.name
        for package in (isthmus.trainer, isthmus.strategies)
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    ),
    mlp.__name__,
]
WITH_EXAMPLES = {
    "isthmus.nets.models.mlp",
    "isthmus.trainer.checkpoint.plain",
    "isthmus.trainer.config.faults",
    "isthmus.trainer.config.flags",
    "isthmus.trainer.config.saving",
    "isthmus.trainer.local.flops",
    "isthmus.trainer.local.pace",
    "isthmus.trainer.rounds.sound",
    "isthmus.trainer.observe.evaluate",
    "isthmus.trainer.observe.watch",
    "isthmus.trainer.plan.ahead",
    "isthmus.trainer.plan.live",
    "isthmus.trainer.plan.outlook",
    "isthmus.trainer.plan.show",
    "isthmus.trainer.rounds.agree",
    "isthmus.trainer.store.homes",
    "isthmus.trainer.strategies.diloco",
    "isthmus.trainer.task.examples",
    "isthmus.trainer.task.initial",
    "isthmus.trainer.task.terms",
    "isthmus.trainer.wire.alike",
    "isthmus.trainer.wire.rendezvous",
    "isthmus.trainer.wire.sockets",
}


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    failed, tried = doctest.testmod(importlib.import_module(name))
    assert failed == 0
    assert (tried > 0) == (name in WITH_EXAMPLES), "say in WITH_EXAMPLES which modules have examples"
