"""What the workers of a run tell each other before the first round."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from math import nan
from pathlib import Path
from typing import Any

from torch import nn

from isthmus.line import Line, line_here
from isthmus.records import RunWriter
from isthmus.trainer.config.flags import record
from isthmus.trainer.plan.forecast import Forecast
from isthmus.trainer.plan.intended import intended
from isthmus.trainer.plan.load import Load, load_of
from isthmus.trainer.plan.show import show
from isthmus.trainer.plan.steps import Speed, measured
from isthmus.trainer.plan.traffic import ROUNDS
from isthmus.trainer.rounds.agree import agree, named
from isthmus.trainer.strategies import Worker
from isthmus.trainer.task.hollow import hollow
from isthmus.trainer.task.setup import Setup
from isthmus.trainer.wire.exchange import TYPES, Link, Program
from isthmus.trainer.wire.tell import tell

_OWN = ("out", "executor", "device", "join_timeout", "spare")  # settings that are each worker's own


@dataclass
class Prelude:
    """What workers tell each other before the first round: settings, what a round will cost each, where rows go.

    Attributes:
        setup: data and network.
        record: returns the writer of the rows, on those who can write.
        trains: whether they will train, so that it matters how long steps take.
        loads: of all workers.
        folders: of the run, and a spare one.
    """

    setup: Setup
    record: Callable[[], RunWriter] | None
    trains: bool = True
    loads: list[Load] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)

    def __call__(self, link: Link) -> Program[None]:
        """Tell and be told."""
        config, network = self.setup.config, self.setup.network
        settings = {name: value for name, value in record(config).items() if name not in _OWN}
        terms = named(settings) | network.terms | self.setup.shares.terms()
        yield from agree(terms, link, network.device)
        told = yield from tell(self._own(link).record(), link, network.device)
        self.loads = [Load.read(each) for each in told]
        if link.index == 0 and self.record is not None:
            show(self.forecast)
        writer = self.record() if link.index == 0 and self.record is not None else None
        folders = [] if writer is None else [str(each) for each in (writer.path, writer.spare) if each is not None]
        self.folders = list(map(Path, (yield from tell(folders, link, network.device))[0]))

    @property
    def forecast(self) -> Forecast:
        """What a round will cost, over the line that is known here, or one that costs nothing."""
        config = self.setup.config
        line = line_here() or Line()
        return Forecast(tuple(self.loads), config.workers, config.local_steps, config.step.batch_size, line)

    def _own(self, link: Link) -> Load:
        """Return what this worker will hold, move and compute; all make a few steps at the same time."""
        config, network = self.setup.config, self.setup.network
        wire = None if config.wire is None else TYPES[config.wire]
        worker = Worker(link, network, config.seed, wire, config.faults.copies and link.elastic, config.overlap)
        work = intended(self.setup, link.index, link.workers)
        speed = partial(measured, work=work) if self.trains else _unknown
        rounds = min(ROUNDS, len(config.steps_by_round))
        return load_of(config.strategy, worker, hollow(network), work, speed, rounds)

    def state(self) -> dict[str, Any]:
        """Return what a worker that comes later has missed."""
        return {"loads": [each.record() for each in self.loads], "folders": self.folders}

    def catch_up(self, state: dict[str, Any]) -> None:
        """Know what one has missed."""
        self.loads = [Load.read(each) for each in state["loads"]]
        self.folders = list(map(Path, state["folders"]))


def _unknown(piece: nn.Module) -> Speed:
    return Speed(nan, "unknown")
