"""What the workers of a run tell each other before the first round."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from isthmus.records import RunWriter
from isthmus.trainer.config.flags import record
from isthmus.trainer.local.loop import autocast
from isthmus.trainer.observe.evaluate import PARTS, calibration
from isthmus.trainer.plan.plan import Plan, Work, plan
from isthmus.trainer.plan.show import show
from isthmus.trainer.rounds.agree import agree, named
from isthmus.trainer.strategies import Worker, part_of
from isthmus.trainer.task.setup import Setup
from isthmus.trainer.wire.exchange import TYPES, Link, Program
from isthmus.trainer.wire.tell import tell

_OWN = ("out", "executor", "join_timeout", "spare")  # settings that are each worker's own


@dataclass
class Prelude:
    """What workers tell each other before the first round: settings, what each will need in memory, where rows go.

    Attributes:
        setup: data and network.
        record: returns the writer of the rows, on those who can write.
        plans: of all workers.
        folders: of the run, and a spare one.
    """

    setup: Setup
    record: Callable[[], RunWriter] | None
    plans: list[Plan] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)

    def __call__(self, link: Link) -> Program[None]:
        """Tell and be told."""
        config, network = self.setup.config, self.setup.network
        settings = {name: value for name, value in record(config).items() if name not in _OWN}
        terms = named(settings) | network.terms | self.setup.shares.terms()
        yield from agree(terms, link, network.device)
        wire = None if config.wire is None else TYPES[config.wire]
        copies = config.faults.copies and link.elastic
        part = part_of(config.strategy, Worker(link, network, config.seed, wire, copies))
        own = plan(part, network, _intended(self.setup, link))
        told = yield from tell(own.numbers(), link, network.device)
        self.plans = [Plan.of(numbers) for numbers in told]
        if link.index == 0 and self.record is not None:
            show(self.plans)
        writer = self.record() if link.index == 0 and self.record is not None else None
        folders = [] if writer is None else [str(each) for each in (writer.path, writer.spare) if each is not None]
        self.folders = list(map(Path, (yield from tell(folders, link, network.device))[0]))

    def state(self) -> dict[str, Any]:
        """Return what a worker that comes later has missed."""
        plans = [each.numbers() for each in self.plans]
        return {"plans": plans, "folders": self.folders}

    def catch_up(self, state: dict[str, Any]) -> None:
        """Know what one has missed."""
        self.plans = [Plan.of(numbers) for numbers in state["plans"]]
        self.folders = list(map(Path, state["folders"]))


def _intended(setup: Setup, link: Link) -> Work:
    """Return what a worker does with its module: steps on batches of its share, evaluations on the test part."""
    step, objective, shares, device = setup.config.step, setup.objective, setup.shares, setup.network.device
    nowhere = torch.device("meta")
    share, held_out, test = (part(nowhere) for part in (partial(shares.of, link.index), shares.held_out, shares.test))
    trained = share.batch(np.arange(step.batch_size // step.accumulate))
    tested = test.batch(next(test.pieces(parts=PARTS)))
    measured = share.batch(next(calibration(share, link.workers)))

    def loss(module: nn.Module) -> Tensor:
        with autocast(step.autocast, device):
            return objective.training_loss(module, trained.without_values(device))

    def look(network: nn.Module) -> None:
        if any(True for _ in network.buffers()):  # statistics of norms
            batch = measured.without_values(device)
            network(*batch.args, **batch.kwargs)
        batch = tested.without_values(device)
        with autocast(step.autocast, device):
            output = network(*batch.args, **batch.kwargs)
        objective.tested(output, batch)

    return Work(setup.config.optimizer.make, loss, look, sum(part.held_bytes for part in (share, held_out, test)))
