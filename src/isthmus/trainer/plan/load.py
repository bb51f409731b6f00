"""What one worker will hold, move and compute: its work is done without memory, and a few steps with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import nn

from isthmus.strategies import Strategy
from isthmus.trainer.plan.plan import Plan, Work, look_ahead
from isthmus.trainer.plan.steps import Speed
from isthmus.trainer.plan.traffic import ROUNDS, Moved, Nobody, rounds_of
from isthmus.trainer.strategies import Worker, part_of
from isthmus.trainer.task.hollow import Hollow
from isthmus.trainer.wire.meter import Traffic


@dataclass(frozen=True)
class Load:
    """What one worker will hold, move and compute.

    Attributes:
        plan: of its memory.
        parameters: of what it trains in the first round.
        step: what it moves in every step.
        rounds: what it moves when it opens and closes the first rounds, one after another.
        speed: of its steps, and of what it makes when it opens and closes a round.
    """

    plan: Plan
    parameters: int
    step: Traffic
    rounds: tuple[Moved, ...]
    speed: Speed

    @property
    def steady(self) -> Moved:
        """What it moves when it opens and closes a round, in the mean over those after the first; in that, if it is
        the only one. In the first nothing has stayed with a worker yet."""
        later = self.rounds[1:] or self.rounds
        total = sum((each.traffic for each in later), Traffic()).times(1 / len(later))
        names = ("copying", "ahead", "made")
        return Moved(total, *(sum(getattr(each, name) for each in later) / len(later) for name in names))

    @property
    def handling_seconds(self) -> float:
        """Of cutting, packing and merging in a round."""
        return self.steady.made * self.speed.byte

    def record(self) -> dict[str, Any]:
        """Return it as plain data."""
        seconds = self.speed.seconds if self.speed.known else None
        speed = {**asdict(self.speed), "seconds": seconds}
        return {**asdict(self), "plan": self.plan.numbers(), "speed": speed}

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> Load:
        """Return what :meth:`record` was made of."""
        speed = record["speed"]
        rounds = (Moved(**{**each, "traffic": Traffic(**each["traffic"])}) for each in record["rounds"])
        seconds = math.nan if speed["seconds"] is None else speed["seconds"]
        return cls(
            Plan.of(record["plan"]),
            record["parameters"],
            Traffic(**record["step"]),
            tuple(rounds),
            Speed(**{**speed, "seconds": seconds}),
        )


def load_of(
    strategy: Strategy,
    worker: Worker,
    empty: Hollow,
    work: Work,
    speed: Callable[[nn.Module], Speed],
    rounds: int = ROUNDS,
) -> Load:
    """Return what a worker will hold, move and compute.

    Args:
        strategy: how it trains.
        worker: the link need not lead anywhere.
        empty: its network without values.
        work: what it does with its module.
        speed: returns how long a step of a piece takes, which is on no device.
        rounds: that are looked at.
    """
    part, link = part_of(strategy, worker), worker.link
    ahead = look_ahead(part, worker.network, work, empty.skeleton())
    thought = replace(worker, link=Nobody(link.index, link.workers, link.elastic), network=empty)
    torchs = part.round_traffic(ahead.piece)
    moved = tuple(replace(each, traffic=each.traffic + torchs) for each in rounds_of(strategy, thought, rounds))
    step = part.step_traffic(ahead.piece).times(work.passes if part.each_pass else 1)
    return Load(ahead.plan, ahead.parameters, step, moved, speed(ahead.piece))
