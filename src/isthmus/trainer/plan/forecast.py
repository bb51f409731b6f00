"""What a round will cost: bytes, seconds and memory of every worker, over a given line. The model in one place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from isthmus.line import Line
from isthmus.trainer.plan.load import Load
from isthmus.trainer.wire.meter import Traffic

CHEAP = 0.1  # share of computing that moving may cost
_BACKWARD = 2 / 3  # of a step: two products of matrices of three


@dataclass(frozen=True)
class Forecast:
    """What a round will cost, by a model: a worker computes its steps, cuts, packs and merges, then its host's line is
    busy with its bytes, copies included, both ways at once, and waits two delays for every hop; the round takes as long
    as the worker for which that is most. What is sent ahead for the next round travels while the worker computes;
    gradients that are averaged in every step, but for those of the last bucket, as far as the backward pass is long,
    two thirds of a step.

    Formula: max over workers of max(H s, b ahead / up, b ahead / down) + m w + max(b sent / up, b received / down) +
    2 hops latency - H min(2 s / 3, max(b beside / up, b beside / down)), where s is a step's seconds, m the bytes of
    all tensors that are made on the way and w the seconds to write one into memory that was not there before, b 8 bits
    and the share of TCP's headers, and sent and received are without what went ahead, of which half is taken to go each
    way.

    Attributes:
        loads: of all workers; of some, evenly chosen, where they are many.
        workers: number of workers.
        local_steps: steps in a round, H.
        batch_size: samples in a step of one worker.
        line: what joins each worker's host to the others.
    """

    loads: tuple[Load, ...]
    workers: int
    local_steps: int
    batch_size: int
    line: Line

    @property
    def all(self) -> bool:
        """Whether every worker was looked at, and what is said of the busiest and the mean is exact."""
        return len(self.loads) == self.workers

    @property
    def moved(self) -> tuple[Traffic, ...]:
        """What each worker moves in a round: after the first, if there are more."""
        return tuple(load.steady.traffic + load.step.times(self.local_steps) for load in self.loads)

    @property
    def first(self) -> tuple[Traffic, ...]:
        """What each worker moves in the first round."""
        return tuple(load.rounds[0].traffic + load.step.times(self.local_steps) for load in self.loads)

    @property
    def busiest_bytes(self) -> float:
        """Sent and received by the worker that moves most."""
        return max(each.sent + each.received for each in self.moved)

    @property
    def mean_bytes(self) -> float:
        """Sent and received, in the mean over workers."""
        return sum(each.sent + each.received for each in self.moved) / len(self.loads)

    @property
    def copying_bytes(self) -> float:
        """Sent and received for copies by the worker that moves most of them; not in the other numbers."""
        return max(load.steady.copying for load in self.loads)

    @property
    def held_bytes(self) -> int:
        """What stays with the worker that holds most, from step to step."""
        return max(load.plan.held for load in self.loads)

    @property
    def needed_bytes(self) -> int:
        """All that the worker that needs most will need."""
        return max(load.plan.total for load in self.loads)

    @property
    def compute_seconds(self) -> float:
        """Of the steps of a round, on the slowest worker; nan where they are not known."""
        return self.local_steps * _most([load.speed.seconds for load in self.loads])

    @property
    def handling_seconds(self) -> float:
        """Of cutting, packing and merging in a round, on the slowest worker; 0 where that is not known."""
        return max(load.handling_seconds for load in self.loads)

    @property
    def move_seconds(self) -> float:
        """On the line, for the worker for which that is most; what is sent ahead too."""
        ahead = map(self._ahead, self.loads)
        return max(self._moving(moved) + more for moved, more in zip(self._carried, ahead, strict=True))

    @property
    def round_seconds(self) -> float:
        """How long a round takes; nan where the seconds of a step are not known."""
        beside = (_most([self.local_steps * load.speed.seconds, self._ahead(load)]) for load in self.loads)
        hidden = map(self._hidden, self.loads)
        return _most([
            longer + load.handling_seconds + self._moving(moved) - less
            for longer, load, moved, less in zip(beside, self.loads, self._carried, hidden, strict=True)
        ])  # fmt: skip

    @property
    def samples_per_second(self) -> float:
        """Of all workers together."""
        seconds = self.round_seconds
        return self.workers * self.local_steps * self.batch_size / seconds if seconds else math.inf

    @property
    def break_even(self) -> int | None:
        """The fewest local steps with which no worker moves for longer than a tenth of what it computes; None if there
        is no such number, or it is not known."""
        found = [self._enough(load) for load in self.loads]
        return None if None in found else max(each for each in found if each is not None)

    @property
    def planned(self) -> dict[str, Any]:
        """What a run's summary keeps of it, to be held against what was measured; lists are by worker."""
        seconds, line = self.round_seconds, self.line
        return {
            "memory_bytes": [load.plan.total for load in self.loads],
            "held_bytes": [load.plan.held for load in self.loads],
            "round_sent_bytes": [each.sent for each in self.moved],
            "round_received_bytes": [each.received for each in self.moved],
            "round_hops": [each.hops for each in self.moved],
            "round_seconds": None if math.isnan(seconds) else seconds,
            "line": None if line == Line() else line.record(),
        }

    def over(self, line: Line) -> Forecast:
        """Return the same over another line."""
        return replace(self, line=line)

    @property
    def _carried(self) -> list[Traffic]:
        """What the line of each worker's host carries between steps: copies too, as much each way, and not what went
        ahead."""
        more = ((load.steady.copying - load.steady.ahead) / 2 for load in self.loads)
        return [moved + Traffic(each, each) for moved, each in zip(self.moved, more, strict=True)]

    def _ahead(self, load: Load) -> float:
        return self.line.seconds(load.steady.ahead / 2, load.steady.ahead / 2, 0.0)

    def _hidden(self, load: Load) -> float:
        """Return the seconds for which the line carries gradients of the steps while others are computed."""
        each = min(_BACKWARD * load.speed.seconds, self.line.seconds(load.step.beside, load.step.beside, 0.0))
        return self.local_steps * each if each > 0 else 0.0  # nan too

    def _moving(self, moved: Traffic) -> float:
        return self.line.seconds(moved.sent, moved.received, moved.hops)

    def _enough(self, load: Load) -> int | None:
        """Return the break-even of one worker. Both ways of the line: round + H step <= H s / 10, at least 1."""
        least = 1
        for one_way in (lambda traffic: replace(traffic, sent=0.0), lambda traffic: replace(traffic, received=0.0)):
            more = (load.steady.copying - load.steady.ahead) / 2
            carried = load.steady.traffic + Traffic(more, more)
            once, each = self._moving(one_way(carried)), self._moving(one_way(load.step))
            room = CHEAP * load.speed.seconds - each
            if once > 0 or each > 0:
                if not room > 0:  # nan too
                    return None
                least = max(least, math.ceil(once / room * (1 - 1e-12)))
        return least


def _most(values: Sequence[float]) -> float:
    """Return the largest; nan if one is."""
    return math.nan if any(math.isnan(value) for value in values) else max(values)
