"""All strategies before a run: what each would hold, move and take, for one network, data, number of workers and line.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import nn

from isthmus.errors import InvalidInput, IsthmusError, check_number
from isthmus.line import Line, parse_size
from isthmus.strategies import STRATEGIES, LocalSGD, Strategy
from isthmus.trainer.config import TrainConfig, configure
from isthmus.trainer.config.faults import Faults
from isthmus.trainer.plan.forecast import Forecast
from isthmus.trainer.plan.intended import intended
from isthmus.trainer.plan.load import load_of
from isthmus.trainer.plan.plan import Work
from isthmus.trainer.plan.steps import Speed, by_operations
from isthmus.trainer.plan.traffic import ROUNDS, Nobody
from isthmus.trainer.strategies import Worker
from isthmus.trainer.task.hollow import Hollow, hollow
from isthmus.trainer.task.network import Network
from isthmus.trainer.task.setup import Setup, set_up
from isthmus.trainer.task.shares import check_batch
from isthmus.trainer.wire.exchange import TYPES

_ALL = 16  # workers at most that are all looked at
_FEW = 5  # that are looked at where there are more, and
_FEW_ROUNDS = 2  # rounds of each
_DEALING = ("core", "capacities", "minimum")  # flags of a law
_OF_A_RUN = ("strategy", "rounds", "samples", "out", "replace")  # flags that say nothing of a round


@dataclass(frozen=True)
class Prospect:
    """One strategy.

    Attributes:
        strategy: which.
        forecast: what a round costs; None where that cannot be said.
        problem: why not.
        why: why its law was chosen, if the network's structure chose it.
    """

    strategy: Strategy
    forecast: Forecast | None = None
    problem: str | None = None
    why: str = ""

    def over(self, memory: int | None) -> int:
        """Return how many bytes a worker lacks, of those it may use; None for any."""
        return 0 if memory is None or self.forecast is None else max(0, self.forecast.needed_bytes - memory)

    def record(self, memory: int | None) -> dict[str, Any]:
        """Return it as plain data.

        Args:
            memory: bytes that a worker may use; None for any.
        """
        head = {"name": self.strategy.name, "title": self.strategy.title, "problem": self.problem, "why": self.why}
        found = self.forecast
        if found is None:
            return {**head, **dict.fromkeys(_NUMBERS), "fits": None, "over_bytes": None}
        over = self.over(memory)
        values = {name: number(found) for name, number in _NUMBERS.items()}
        plain = {n: None if isinstance(v, float) and not math.isfinite(v) else v for n, v in values.items()}
        return {**head, **plain, "fits": not over, "over_bytes": over}


_NUMBERS: dict[str, Callable[[Forecast], Any]] = {
    "parameters": lambda found: max(load.parameters for load in found.loads),
    "held_bytes": lambda found: found.held_bytes,
    "needed_bytes": lambda found: found.needed_bytes,
    "round_bytes_busiest": lambda found: found.busiest_bytes,
    "round_bytes_mean": lambda found: found.mean_bytes,
    "first_round_bytes_busiest": lambda found: max(each.sent + each.received for each in found.first),
    "copying_bytes": lambda found: found.copying_bytes,
    "hops": lambda found: max(each.hops for each in found.moved),
    "compute_seconds": lambda found: found.compute_seconds,
    "handling_seconds": lambda found: found.handling_seconds,
    "move_seconds": lambda found: found.move_seconds,
    "round_seconds": lambda found: found.round_seconds,
    "samples_per_second": lambda found: found.samples_per_second,
    "break_even_local_steps": lambda found: found.break_even,
    "steps": lambda found: found.loads[0].speed.how,
    "workers_looked_at": lambda found: len(found.loads),
}


@dataclass(frozen=True)
class Outlook:
    """All strategies that were asked for.

    Attributes:
        config: of one of them, for what they have in common.
        line: what joins each worker's host to the others.
        memory: bytes that a worker may use; None for any.
        prospects: one a strategy.
        notes: what else is to be known.
    """

    config: TrainConfig
    line: Line
    memory: int | None
    prospects: tuple[Prospect, ...]
    notes: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Forecast:
        """Return what a strategy's round costs.

        Raises:
            InvalidInput: it was not asked for, or cannot be planned; says why.
        """
        found = next((each for each in self.prospects if each.strategy.name == name), None)
        if found is None:
            raise InvalidInput(f"`strategies` has no {name!r}")
        if found.forecast is None:
            raise InvalidInput(f"strategy {name!r} cannot be planned: {found.problem}")
        return found.forecast

    def record(self) -> dict[str, Any]:
        """Return it as plain data, as ``isthmus plan --json`` prints it."""
        return {
            "data": self.config.data_shown,
            "workers": self.config.workers,
            "local_steps": self.config.local_steps,
            "batch_size": self.config.step.batch_size,
            "line": self.line.record(),
            "memory_bytes": self.memory,
            "strategies": [each.record(self.memory) for each in self.prospects],
            "notes": list(self.notes),
        }


def plan(
    strategies: Sequence[Strategy | str] | None = None,
    *,
    rate: str | None = None,
    up: str | None = None,
    latency: str | None = None,
    memory: str | None = None,
    flops: float | None = None,
    **flags: Any,
) -> Outlook:
    """Return what a round of each strategy would hold, move and take. Nothing is started.

    ::

        outlook = isthmus.plan(data="digits", widths=(2048, 2048), workers=8, local_steps=50, rate="100mbit")
        outlook["ist"].round_seconds

    Args:
        strategies: names or objects; by default all.
        rate, latency: of the line that joins each worker's host to the others, as 100mbit and 10ms, one way.
        up: the rate from a host to the others, where it is another one.
        memory: that a worker may use, as 2GB.
        flops: operations a second of a worker; by default measured, on one thread, with a few steps.
        flags: as of ``isthmus train``; those that have an effect with some strategies alone are those strategies'.

    Raises:
        InvalidInput: what no strategy can do, or a flag that would have no effect with any.
        DataError: missing or malformed files.
    """
    line = Line.of(rate, latency, up)
    limit = None if memory is None else parse_size("memory", memory)
    if flops is not None:
        check_number("flops", flops, above=0.0)
    given = {name: value for name, value in flags.items() if value is not None}
    for name in _OF_A_RUN:
        if name in given:
            raise InvalidInput(f"`{name}` has no effect on a plan{': name `strategies`' if name == 'strategy' else ''}")
    wanted = list(STRATEGIES) if strategies is None else list(strategies)
    found = _configured(wanted, given)
    config = next((each for _, each in found if isinstance(each, TrainConfig)), None)
    if config is None:
        raise next(each for _, each in found if isinstance(each, InvalidInput))
    planner = _Planner.of(config, line, flops)
    prospects = tuple(planner.prospect(strategy, each) for strategy, each in found)
    return Outlook(config, line, limit, prospects, planner.notes())


@dataclass(eq=False)
class _Planner:
    """What the strategies have in common, found once.

    Attributes:
        setup: data and network, the data not dealt: of many workers each may have too few.
        config: of one of the strategies.
        work: what a worker does.
        line: between them.
        rate: operations a second, if given.
        speeds: known by now, by the shapes of a piece.
        networks: with which axes cut, and the same without values.
    """

    setup: Setup
    config: TrainConfig
    work: Work
    line: Line
    rate: float | None
    speeds: dict[Any, Speed] = dataclasses.field(default_factory=dict)
    networks: dict[tuple[str, ...] | None, tuple[Network, Hollow]] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, config: TrainConfig, line: Line, rate: float | None) -> _Planner:
        """Read the data and describe the network."""
        alone = replace(config, workers=1, wire=None, overlap=False, strategy=LocalSGD(), cut=None, faults=Faults())
        setup = set_up(alone)
        return cls(setup, config, intended(setup, 0, config.workers), line, rate)

    def prospect(self, strategy: Strategy, config: TrainConfig | InvalidInput) -> Prospect:
        """Return one strategy's, or why there is none."""
        if not isinstance(config, TrainConfig):
            return Prospect(strategy, problem=str(config))
        try:
            network, _ = self._network(config.cut)
            strategy, why = network.chosen(strategy)
            return Prospect(strategy, self._forecast(replace(config, strategy=strategy)), why=why)
        except IsthmusError as error:
            return Prospect(strategy, problem=str(error))
        except Exception as error:  # whatever a network of one's own may raise in this strategy's hands
            return Prospect(strategy, problem=" ".join(f"{type(error).__name__}: {error}".split()))

    def notes(self) -> tuple[str, ...]:
        """Return what else is to be known."""
        workers, (whole,) = self.config.workers, self.setup.shares.parts
        try:
            check_batch([whole[: len(whole) // workers]], self.config.step.batch_size)
        except InvalidInput as error:
            return (f"a run would be refused: {error}",)
        return ()

    def _forecast(self, config: TrainConfig) -> Forecast:
        workers, elastic = config.workers, config.executor == "processes"
        network, empty = self._network(config.cut)
        wire = None if config.wire is None else TYPES[config.wire]
        copies = config.faults.copies and elastic
        some = _some(workers)
        by_class = config.strategy.by_class  # its targets are numbered in another way
        setup = replace(self.setup, config=config)
        work = {w: intended(setup, 0, workers, w) if by_class else self.work for w in some}
        rounds = ROUNDS if len(some) == workers else _FEW_ROUNDS
        loads = tuple(
            load_of(
                config.strategy,
                Worker(Nobody(index, workers, elastic), network, config.seed, wire, copies, config.overlap),
                empty,
                work[index],
                partial(self._speed, work[index]),
                rounds,
            )
            for index in some
        )
        return Forecast(loads, workers, config.local_steps, config.step.batch_size, self.line)

    def _network(self, cut: tuple[str, ...] | None) -> tuple[Network, Hollow]:
        """Return the network that is cut so, and the same without values."""
        if cut not in self.networks:
            network = replace(self.setup.network, cut=cut)
            self.networks[cut] = network, hollow(network)
        return self.networks[cut]

    def _speed(self, work: Work, piece: nn.Module) -> Speed:
        key = type(piece), tuple((name, each.shape) for name, each in piece.named_parameters())
        if key not in self.speeds:
            self.speeds[key] = by_operations(piece, work, self.setup.network, self.rate)
        return self.speeds[key]


def _some(workers: int) -> list[int]:
    """Return the workers to look at: all, or some that are evenly spread.

    >>> _some(3), _some(1000)
    ([0, 1, 2], [0, 250, 500, 749, 999])
    """
    if workers <= _ALL:
        return list(range(workers))
    return [round(number * (workers - 1) / (_FEW - 1)) for number in range(_FEW)]


def _configured(
    wanted: Sequence[Strategy | str], given: Mapping[str, Any]
) -> list[tuple[Strategy, TrainConfig | InvalidInput]]:
    """Return the configuration of every strategy, or why it has none.

    Raises:
        InvalidInput: an unknown strategy, or a flag that has an effect with none of them.
    """
    found: list[tuple[Strategy, TrainConfig | InvalidInput]] = []
    unused = set(given)
    for each in wanted:
        kind = type(each) if isinstance(each, Strategy) else STRATEGIES.get(each)
        taken = given if kind is None else {n: v for n, v in given.items() if n not in _foreign(kind, each)}
        unused -= set(taken)
        try:
            config = configure(strategy=each, **taken)
        except InvalidInput as error:
            if kind is None:
                raise
            found.append((each if isinstance(each, Strategy) else kind(), error))
        else:
            found.append((config.strategy, config))
    if not found:
        raise InvalidInput("`strategies` must name at least one, got none")
    if unused:
        names = ", ".join(strategy.name for strategy, _ in found)
        raise InvalidInput(f"`{min(unused)}` has no effect with any of the strategies planned ({names})")
    return found


def _foreign(kind: type[Strategy], wanted: Strategy | str) -> set[str]:
    """Return the flags that have an effect with other strategies alone."""
    fields = {name: {field.name for field in dataclasses.fields(each)} for name, each in STRATEGIES.items()}
    own = set() if isinstance(wanted, Strategy) else {field.name for field in dataclasses.fields(kind)}
    found = set().union(*fields.values()) - own
    found |= set() if "law" in own else set(_DEALING)
    found |= set() if kind.cuts else {"cut"}
    found |= set() if kind.sends_pieces else {"overlap"}
    return found if kind.restarts else found | {"keep_state"}
