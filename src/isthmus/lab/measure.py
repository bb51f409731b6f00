"""One run of one method, measured: gaps, what its bounds speak of, and what every round cost."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from isthmus import frames
from isthmus.errors import check_choice
from isthmus.lab.accounting import Ledger, ledger
from isthmus.lab.arrays import Array
from isthmus.lab.bounds import MEASURES, Bound
from isthmus.lab.methods import CountedMethod, Draws
from isthmus.lab.problems import Problem, exact
from isthmus.lab.simulate import Simulation, Watch, simulate

if TYPE_CHECKING:
    from pandas import DataFrame

_MISS = 3e-5  # one-sided chance of a false alarm in one round: four standard errors of many seeds
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Budget:
    """How long and how often.

    Attributes:
        rounds: K.
        seeds: how many.
        seed: of the batch.
        target: stop once every seed's gap is at most this.
        value_bits: of a plain number in a message, 32 or 64 (the arithmetic is in double precision throughout).
        broadcast: how a message to all workers counts in totals, "unicast" or "multicast".
    """

    rounds: int
    seeds: int
    seed: int = 0
    target: float | None = None
    value_bits: int = 64
    broadcast: str = "unicast"


_COSTS = ("up", "down", "bits", "bits_total", "work", "gradients")


@dataclass(frozen=True, eq=False)
class Measured:
    """What a method did.

    Attributes:
        simulation: gaps and means.
        distance: |x^k - x*|^2, [seeds, K+1]; None where not asked for.
        gradient: |grad f(x^k)|^2, [seeds, K+1]; None where not asked for.
        ledger: running totals of what it cost, [seeds, K+1].
    """

    simulation: Simulation
    distance: Array | None
    gradient: Array | None
    ledger: Ledger

    def to_frame(self) -> DataFrame:
        """Return means over seeds, a row a round, as a pandas table: what was measured, and running totals of costs."""
        measured = {"gap": self.simulation.gap, "distance": self.distance, "gradient": self.gradient}
        costs = {name: getattr(self.ledger, name) for name in _COSTS}
        given = {name: values for name, values in (measured | costs).items() if values is not None}
        return frames.by_round({name: values.mean(axis=0) for name, values in given.items()})

    def of(self, measure: str) -> Array:
        """Return the quantity that a bound of this ``measure`` speaks of, [seeds, K+1]; nan where it is not known.

        Raises:
            InvalidInput: a quantity that no run measures.
        """
        check_choice("measure", measure, MEASURES)
        if measure == "gap":
            return self.simulation.gap
        values = self.distance if measure == "distance" else self.gradient
        if values is None:
            return np.full(self.simulation.gap.shape, np.nan)
        if measure == "distance":
            return values
        counts = np.arange(1, values.shape[1])
        before = np.full((len(values), 1), np.nan)
        return np.concatenate([before, np.cumsum(values[:, :-1], axis=1) / counts], axis=1)


@dataclass(frozen=True)
class Verdict:
    """Measured beside a bound.

    Attributes:
        bound: its name.
        kind: "tight", "upper" or "lower".
        applies: whether its assumptions hold.
        ratio: worst mean over seeds / bound over the rounds.
        cleared: likewise, by the end of the mean's confidence interval (Student, 3e-5) that favours the bound.
        holds: whether ``cleared`` keeps to the bound; None where the bound does not apply.
        why: the assumptions that fail, or all that hold.
    """

    bound: str
    kind: str
    applies: bool
    ratio: float
    cleared: float
    holds: bool | None
    why: str


def measure(
    problem: Problem, method: CountedMethod, x0: Array, run: Budget, wanted: Iterable[str] = ("gap",)
) -> Measured:
    """Run ``method`` and record what is ``wanted`` ("gap", "distance", "gradient") and what it cost."""
    minimizer = getattr(exact(problem), "minimizer", None)
    wanted = set(wanted) - ({"distance"} if minimizer is None else set())
    seen: dict[str, list[Array]] = {name: [] for name in ("distance", "gradient") if name in wanted}

    def see(k: int, state: Any) -> None:
        x = state.x
        if "distance" in seen:
            seen["distance"].append(((x - minimizer) ** 2).sum(axis=1))
        if "gradient" in seen:
            seen["gradient"].append((problem.gradient(x) ** 2).sum(axis=1))

    watch = Watch(see if seen else None, run.target)
    simulation = simulate(problem, method, x0, run.rounds, run.seeds, run.seed, watch)
    columns = {name: np.stack(values, axis=1) for name, values in seen.items()}
    costs = count(problem, method, simulation.gap.shape[1] - 1, run)
    return Measured(simulation, columns.get("distance"), columns.get("gradient"), costs)


def count(problem: Problem, method: CountedMethod, rounds: int, run: Budget) -> Ledger:
    """Return what ``rounds`` rounds cost, by the draws that the simulation makes, without the simulation."""
    each = [method.cost(problem, Draws(run.seed, k, run.seeds), run.value_bits) for k in range(1, rounds + 1)]
    return ledger(method.start_cost(problem, run.value_bits), each, problem.workers, run.seeds, run.broadcast)


def judge(bound: Bound, measured: Measured) -> Verdict:
    """Return the verdict measured/bound from round 1 on; what lies below 1e-12 of the start is rounding.

    Rounds at which the seeds' tails are so heavy that their mean has no error are not judged, and ``why`` counts them.
    """
    values = measured.of(bound.measure)[:, 1:]
    rounds = values.shape[1]
    said = bound.values[1 : 1 + rounds]
    floor = _ROUNDING * float(values[:, :1].max(initial=0.0, where=np.isfinite(values[:, :1])))
    with np.errstate(over="ignore", invalid="ignore"):
        mean = values.mean(axis=0)
        error = values.std(axis=0, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.zeros(rounds)
    kept = np.isfinite(said) & (said > 0) & np.isfinite(mean) & np.isfinite(error) & (np.maximum(said, mean) > floor)
    heavy = Simulation(values, np.empty(0), np.empty(0), None).heavy
    judged = ~heavy[kept]
    slack = error[kept] * (-_quantile(len(values) - 1, _MISS) if len(values) > 1 else 0.0)
    ratio, cleared, holds = _compare(bound.kind, said[kept], mean[kept], slack, judged)
    failed = [one.why for one in bound.assumptions if one.holds is False]
    said_of = failed or [one.why for one in bound.assumptions]
    if not judged.all():
        unjudged = f"{(~judged).sum()} of {len(judged)} rounds"
        said_of.append(f"{unjudged} have tails too heavy for a mean of {len(values)} seeds")
    why = "; ".join(said_of)
    return Verdict(bound.name, bound.kind, bound.applies, ratio, cleared, holds if bound.applies else None, why)



def _quantile(freedom: int, chance: float) -> float:
    """Of Student's t."""
    from scipy.special import stdtrit  # a tenth of what importing the lab takes, for a verdict on many seeds

    return float(stdtrit(freedom, chance))


def _compare(
    kind: str, said: Array, mean: Array, slack: Array, judged: NDArray[np.bool_]
) -> tuple[float, float, bool]:
    if len(said) == 0:
        return float("nan"), float("nan"), True
    with np.errstate(over="ignore"):  # a method that diverges beside a bound that falls: infinitely above it
        return _extremes(kind, said, mean, slack, judged)


def _extremes(
    kind: str, said: Array, mean: Array, slack: Array, judged: NDArray[np.bool_]
) -> tuple[float, float, bool]:
    above, below = float((mean / said).max()), float((mean / said).min())
    if not judged.any():
        return below if kind == "lower" else above, float("nan"), True
    said, mean, slack = said[judged], mean[judged], slack[judged]
    most, least = float(((mean - slack) / said).max()), float(((mean + slack) / said).min())
    upper, lower = most <= 1 + 1e-6, least >= 1 - 1e-6
    if kind == "upper":
        return above, most, upper
    if kind == "lower":
        return below, least, lower
    return above, most, upper and lower
