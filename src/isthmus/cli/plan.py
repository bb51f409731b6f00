"""What a round of every strategy would hold, move and take, for a network, data, a number of workers and the line
between them. Nothing is started; the flags of `isthmus train` that matter are taken as they are there."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from typing import Annotated, Any

import tyro

import isthmus
from isthmus.cli import train
from isthmus.cli.flag import flag
from isthmus.cli.train import Data, Network
from isthmus.trainer import TrainConfig
from isthmus.trainer.config.run import WIRES

_RUN = TrainConfig()


@dataclass(frozen=True)
class Dealing(train.Dealing):
    """How it is trained by several workers; a flag that has an effect with some strategies alone is theirs."""

    strategy: tyro.conf.Suppress[str | None] = None
    scale: tyro.conf.Suppress[str | None] = None


@dataclass(frozen=True)
class Steps(train.Steps):
    """What a step is."""

    lr: tyro.conf.Suppress[float | None] = None
    weight_decay: tyro.conf.Suppress[float | None] = None
    keep_state: tyro.conf.Suppress[bool | None] = None
    schedule: tyro.conf.Suppress[str | None] = None
    warmup: tyro.conf.Suppress[float | None] = None


@dataclass(frozen=True)
class Running:
    """The run.

    Attributes:
        loss: a function that returns loss(output, targets) -> mean over the batch.
        wire: type in which floating-point numbers travel between workers.
        overlap: whether what of a round's pieces nobody changes in the round before travels beside its steps.
        workers: number of workers.
        local_steps: steps each worker makes in a round.
        seed: of everything random.
        copies: whether every worker keeps a copy of its neighbour's rows.
    """

    loss: Annotated[str | None, flag("cross-entropy, or the network's own", "MODULE:FACTORY")] = None
    wire: Annotated[str | None, flag("as they are", *WIRES)] = None
    overlap: Annotated[bool | None, flag("False", "{True,False}")] = None
    workers: Annotated[int | None, flag(_RUN.workers, "INT")] = None
    local_steps: Annotated[int | None, flag(_RUN.local_steps, "INT")] = None
    seed: Annotated[int | None, flag(_RUN.seed, "INT")] = None
    copies: Annotated[bool | None, flag("True", "{True,False}")] = None


@dataclass(frozen=True)
class Planning:
    """What it is planned for.

    Attributes:
        strategies: which to plan.
        rate: of the line that joins each worker's host to the others.
        up: its rate from a host to the others, if that is another one.
        latency: of the line, one way.
        memory: that a worker may use.
        flops: operations a second of a worker; if not given, measured with a few steps on one thread.
        json: print one JSON object instead of a table.
    """

    strategies: Annotated[tuple[str, ...] | None, flag("all", "NAME ...")] = None
    rate: Annotated[str | None, flag("no limit", "100mbit")] = None
    up: Annotated[str | None, flag("as --rate", "20mbit")] = None
    latency: Annotated[str | None, flag("none", "10ms")] = None
    memory: Annotated[str | None, flag("no limit", "2GB")] = None
    flops: Annotated[float | None, flag("measured", "1e10")] = None
    json: bool = False


@dataclass(frozen=True)
class Options:
    """The flags of `isthmus plan`."""

    data: tyro.conf.OmitArgPrefixes[Data] = field(default_factory=Data)
    network: tyro.conf.OmitArgPrefixes[Network] = field(default_factory=Network)
    dealing: tyro.conf.OmitArgPrefixes[Dealing] = Dealing()
    steps: tyro.conf.OmitArgPrefixes[Steps] = Steps()
    running: tyro.conf.OmitArgPrefixes[Running] = Running()
    planning: tyro.conf.OmitArgPrefixes[Planning] = Planning()

    def flags(self) -> dict[str, Any]:
        """Return what was given, and None for the rest, by the names of ``isthmus.plan``."""
        groups = (self.data, self.network, self.dealing, self.steps, self.running, self.planning)
        values = {each.name: getattr(group, each.name) for group in groups for each in fields(group)}
        return {name: value for name, value in values.items() if name not in ("json", "strategy")}


def run(options: Options, command: list[str]) -> None:
    """Plan, then print."""
    outlook = isthmus.plan(**options.flags())
    if options.planning.json:
        print(json.dumps(outlook.record(), indent=2))
    else:
        from isthmus.trainer.plan.show import show_outlook

        show_outlook(outlook)
