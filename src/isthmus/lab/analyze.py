"""Theory beside simulation for one problem and method: constants, verdicts, and a row a round."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from isthmus import frames
from isthmus.errors import InvalidInput
from isthmus.lab.arrays import Array
from isthmus.lab.methods import IST, AnchoredIST, LinearMethod, Method
from isthmus.lab.quadratics import Quadratic
from isthmus.lab.rates import anchored_dynamics
from isthmus.lab.settings import Settings, build, build_method
from isthmus.lab.simulate import Simulation, simulate
from isthmus.lab.sketches import Permutation, ScaledPermutation
from isthmus.lab.theory.bounds import sgd_rate, theorem1_average, theorem1_contraction, theorem2
from isthmus.lab.theory.dynamics import EXACT, Dynamics, dynamics, round_moments
from isthmus.lab.theory.fixed_points import fixed_point
from isthmus.lab.theory.lifted import lifted_round
from isthmus.lab.theory.readouts import readouts
from isthmus.lab.theory.stable_steps import stable_stepsizes
from isthmus.lab.theory.stationary import Stationary, stationary
from isthmus.lab.theory.stepsizes import contraction_limit
from isthmus.lab.theory.theorem1 import Theorem1, theorem1

if TYPE_CHECKING:
    from pandas import DataFrame

_NORMAL_95 = 1.96
_DIVERGED = 1e30
_STATIONARY_UP_TO = 60


@dataclass(frozen=True, eq=False)
class Analysis:
    """What :func:`analyze` found.

    Attributes:
        config: the settings, resolved.
        rows: one dict a round k = 0..K.
        summary: constants, verdicts, the fixed point's gap, how it ended.
        status: "finished" or "diverged".
    """

    config: dict[str, Any]
    rows: list[dict[str, Any]]
    summary: dict[str, Any]
    status: str

    def to_frame(self) -> DataFrame:
        """Return the rows, a row a round, as a pandas table."""
        return frames.of_rows(self.rows)


@dataclass(frozen=True, eq=False)
class _Case:
    problem: Quadratic
    method: Method
    x0: Array
    x_inf: Array | None
    theorem: Theorem1 | None  # where there is a sketch
    settled: Stationary | None


def analyze(settings: Settings) -> Analysis:
    """Return constants, verdicts and rows: the exact course beside a simulation with its 95 % confidence band.

    Raises:
        InvalidInput: the settings do not fit each other or the data.
    """
    problem, x0 = build(settings)
    method = build_method(settings, problem)
    known = round_moments(problem, method) is not None or lifted_round(problem, method) is not None
    x_inf = fixed_point(problem, method) if known else None
    if isinstance(method, AnchoredIST):  # whatever is drawn does not move it
        x_inf = problem.minimizer
    settled = stationary(problem, method) if known and _state_size(problem, method) <= _STATIONARY_UP_TO else None
    theorem = theorem1(problem, method.sketch) if isinstance(method, IST) else None
    case = _Case(problem, method, x0, x_inf, theorem, settled)
    exact = _course(problem, method, x0, settings)
    run = simulate(problem, method, x0, settings.rounds, settings.seeds, settings.seed)
    rows = [_row(k, case, exact, run) for k in range(settings.rounds + 1)]
    diverged_at = _diverged_at(exact, run)
    summary = _summary(case, exact, run) | {"diverged_at": diverged_at}
    config = vars(settings) | {
        "workers": problem.workers,
        "dim": problem.dim,
        "stepsize": method.stepsize,
        "local_steps": "inf" if math.isinf(settings.local_steps) else int(settings.local_steps),
    }
    return Analysis(config, rows, summary, "finished" if diverged_at is None else "diverged")


def _course(problem: Quadratic, method: Method, x0: Array, settings: Settings) -> Dynamics:
    if isinstance(method, AnchoredIST):
        try:
            return anchored_dynamics(problem, method, x0, settings.rounds)
        except InvalidInput:  # neither the law of its masks nor few outcomes are known
            pass
    return dynamics(problem, method, x0, settings.rounds, settings.seeds, settings.seed)


def _state_size(problem: Quadratic, method: Method) -> int:
    return method.state_size(problem) if isinstance(method, LinearMethod) else problem.dim


def _row(k: int, case: _Case, exact: Dynamics, run: Simulation) -> dict[str, Any]:
    center = float(run.mean_gap[k])
    half = _NORMAL_95 * float(run.standard_error[k]) if math.isfinite(center) else 0.0
    known = exact.method == EXACT
    distance = None if case.x_inf is None else float(np.linalg.norm(exact.mean[k] - case.x_inf))
    return {
        "round": k,
        "mean_gap": float(exact.bias[k]),
        "gap": float(exact.gap[k]) if known else None,
        "bias": float(exact.bias[k]),
        "variance": float(exact.variance[k]),
        "simulated": center,
        "low": max(center - half, 0.0),
        "high": center + half,
        "distance": distance,
    }


def _diverged_at(exact: Dynamics, run: Simulation) -> int | None:
    limit = _DIVERGED * max(float(exact.gap[0]), 1.0)
    beyond = np.flatnonzero(~(exact.gap <= limit))
    rounds = [int(beyond[0])] if len(beyond) else []
    if run.diverged_at is not None:
        rounds.append(run.diverged_at)
    return min(rounds, default=None)


def _summary(case: _Case, exact: Dynamics, run: Simulation) -> dict[str, Any]:
    problem, initial = case.problem, float(case.problem.gap(case.x0))
    limit = None if case.x_inf is None else float(problem.gap(case.x_inf))
    return {
        "initial_gap": initial,
        "optimal_value": problem.optimal_value,
        "fixed_point_gap": limit,
        "fixed_point_relative_gap": limit / initial if limit is not None and initial > 0 else None,
        "stationary_gap": None if case.settled is None else case.settled.gap,
        "stationary_bias": None if case.settled is None else case.settled.bias,
        "stationary_variance": None if case.settled is None else case.settled.variance,
        "final_gap": float(exact.gap[-1]),
        "final_simulated_gap": float(run.mean_gap[-1]),
        "dynamics": f"{exact.method} ({exact.how})",
        "readouts": _readouts(case, initial),
        "bounds": _bounds(case, len(exact.gap) - 1),
        "constants": _constants(case),
        "verdicts": _verdicts(case),
    }


def _constants(case: _Case) -> list[dict[str, Any]]:
    problem = case.problem
    values = [
        ("n", problem.workers, "workers"),
        ("d", problem.dim, "coordinates"),
        ("gamma", case.method.stepsize, "step size"),
        ("lambda_max(Lbar)", float(problem.spectrum[-1]), "smoothness of f"),
        ("lambda_min(Lbar)", float(problem.spectrum[0]), "strong convexity of f"),
        *_sketch_constants(case),
    ]
    if case.settled is not None:
        steps = stable_stepsizes(problem, case.method)
        ends = " and ".join(f"({low:.4g}, {high:.4g})" for low, high in steps.intervals) or "no step"
        values.append(("gamma*", steps.largest, f"stable in mean square: {ends}, by {steps.how}"))
        values.append(("radius", case.settled.radius, "the covariance converges where this is below 1"))
    return [{"name": name, "value": value, "meaning": meaning} for name, value, meaning in values]


def _sketch_constants(case: _Case) -> list[tuple[str, float, str]]:
    theorem = case.theorem
    if theorem is None or not isinstance(case.method, IST):
        return []
    return [
        ("lambda_min(W)", theorem.smallest_eigenvalue, "W = sym(Lbar E[B]); negative: no theorem 1"),
        ("theta", theorem.theta, "smallest with E[B Lbar B] <= theta W"),
        ("1/theta", theorem.stepsize, "largest step theorem 1 admits"),
        ("rate", theorem.rate, "theorem 1 contracts by 1 - gamma rate a round"),
        ("contraction limit", contraction_limit(case.problem, case.method.sketch), "every realisation contracts below"),
    ]


def _readouts(case: _Case, initial: float) -> dict[str, float] | None:
    """Gaps of the three readouts of the model that plain masks train, relative to the start."""
    sketch = getattr(case.method, "sketch", None)
    if not isinstance(sketch, Permutation) or case.x_inf is None or initial == 0:
        return None
    read = readouts(case.problem, float(sketch.scale or 1.0) * case.x_inf)
    return {f"relative gap of {name}": gap / initial for name, gap in zip(("y", "y/n", "c y"), read.gaps, strict=True)}


def _bounds(case: _Case, rounds: int) -> list[dict[str, Any]]:
    """The theorems for this sketch as bounds over the exact quantity, for problems small enough to work them all."""
    problem, method = case.problem, case.method
    if case.settled is None or not isinstance(method, IST) or method.local_steps != 1 or method.merge != "gradient":
        return []
    bounds = [bound(problem, method, case.x0, rounds) for bound in (theorem1_average, theorem1_contraction, sgd_rate)]
    scaled = isinstance(method.sketch, ScaledPermutation) and problem.workers == problem.dim
    if scaled and method.stepsize <= 1:
        bounds += [theorem2(problem, method.stepsize, case.x0, rounds, form) for form in ("printed", "beta-free")]
    return [
        {
            "name": bound.name,
            "quantity": bound.measure,
            "kind": bound.kind,
            "applies": bound.applies,
            "why": "; ".join(one.why for one in bound.assumptions if one.holds is False),
            "worst_ratio": bound.worst_ratio,
            "reference": bound.reference,
        }
        for bound in bounds
    ]


def _verdicts(case: _Case) -> list[dict[str, Any]]:
    return [*_sketch_verdicts(case), _stability_verdict(case), _bias_verdict(case), _minimizer_verdict(case.problem)]


def _sketch_verdicts(case: _Case) -> list[dict[str, Any]]:
    method = case.method
    if case.theorem is None or not isinstance(method, IST):
        return []
    theorem = case.theorem.verdict(method.stepsize)
    limit = contraction_limit(case.problem, method.sketch)
    contracts = method.stepsize < limit
    comparison = f"{'yes' if contracts else 'not shown'}, the step {method.stepsize:.4g}, the limit {limit:.4g}"
    return [
        _verdict("theorem 1", theorem.holds, theorem.why, theorem.number),
        _verdict("contraction", contracts or None, f"every realisation contracts: {comparison}", limit),
        _sketch_verdict(method),
    ]


def _stability_verdict(case: _Case) -> dict[str, Any]:
    if case.settled is None:
        why = f"worked for states of up to {_STATIONARY_UP_TO} numbers with exact moments"
        return _verdict("stationary law", None, f"settles: not known, {why}", None)
    settled = case.settled
    if not settled.exists:
        why = settled.why.removeprefix("no stationary law: ")
        return _verdict("stationary law", False, f"settles: no, {why}", settled.radius)
    said = f"yes, at a gap of {settled.gap:.4g} = bias {settled.bias:.4g} + variance {settled.variance:.4g}"
    return _verdict("stationary law", True, f"settles: {said}", settled.radius)


def _sketch_verdict(method: IST) -> dict[str, Any]:
    unbiased = method.sketch.unbiased
    mean = float(method.sketch.mean.mean())
    said = "yes" if unbiased else "no"
    return _verdict("unbiased sketch", unbiased, f"E C_i = I: {said}, mean entry {mean:.4g}", mean)


def _bias_verdict(case: _Case) -> dict[str, Any]:
    if case.x_inf is None:
        return _verdict("no bias", None, "fixed point = minimiser: not known in closed form here", None)
    gap, initial = float(case.problem.gap(case.x_inf)), float(case.problem.gap(case.x0))
    if not math.isfinite(gap):
        return _verdict("no bias", False, "the mean has no fixed point", None)
    left = gap / initial if initial > 0 else math.nan
    holds = left < 1e-12
    said = "yes" if holds else f"no, f(x_inf) - f* keeps {100 * left:.3g} % of the initial gap"
    return _verdict("no bias", holds, f"fixed point = minimiser: {said}", left)


def _minimizer_verdict(problem: Quadratic) -> dict[str, Any]:
    smallest = float(problem.spectrum[0])
    if problem.singular:
        said = "no, Lbar is singular: gaps and means still hold, x* is the minimiser of smallest norm"
        return _verdict("one minimiser", False, f"unique minimiser: {said}", smallest)
    return _verdict("one minimiser", True, f"unique minimiser: yes, lambda_min(Lbar) = {smallest:.4g}", smallest)


def _verdict(statement: str, holds: bool | None, line: str, number: float | None) -> dict[str, Any]:
    return {"statement": statement, "holds": holds, "verdict": line, "number": number}
