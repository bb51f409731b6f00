"""Theory beside simulation for one problem and method: constants, verdicts, and a row a round."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from isthmus.lab.arrays import Array
from isthmus.lab.methods import IST
from isthmus.lab.quadratics import Quadratic
from isthmus.lab.settings import Settings, build_method, build_problem, build_start
from isthmus.lab.simulate import Simulation, simulate
from isthmus.lab.theory.dynamics import EXACT, Dynamics, dynamics, round_moments
from isthmus.lab.theory.fixed_points import fixed_point
from isthmus.lab.theory.stepsizes import contraction_limit
from isthmus.lab.theory.theorem1 import Theorem1, theorem1

_NORMAL_95 = 1.96
_DIVERGED = 1e30


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


@dataclass(frozen=True, eq=False)
class _Case:
    problem: Quadratic
    method: IST
    x0: Array
    x_inf: Array | None
    theorem: Theorem1


def analyze(settings: Settings) -> Analysis:
    """Return constants, verdicts and rows: the exact course beside a simulation with its 95 % confidence band.

    Raises:
        InvalidInput: the settings do not fit each other or the data.
    """
    problem = build_problem(settings)
    method = build_method(settings, problem)
    x0 = build_start(settings, problem)
    known = round_moments(problem, method) is not None
    x_inf = fixed_point(problem, method) if known else None
    case = _Case(problem, method, x0, x_inf, theorem1(problem, method.sketch))
    exact = dynamics(problem, method, x0, settings.rounds, settings.seeds, settings.seed)
    run = simulate(problem, method, x0, settings.rounds, settings.seeds, settings.seed)
    rows = [_row(k, case, exact, run) for k in range(settings.rounds + 1)]
    diverged_at = _diverged_at(exact, run)
    summary = _summary(case, exact, run) | {"diverged_at": diverged_at}
    config = vars(settings) | {
        "workers": problem.workers,
        "dim": problem.dim,
        "stepsize": method.stepsize,
        "local_steps": "inf" if math.isinf(method.local_steps) else method.local_steps,
    }
    return Analysis(config, rows, summary, "finished" if diverged_at is None else "diverged")


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
        "final_gap": float(exact.gap[-1]),
        "final_simulated_gap": float(run.mean_gap[-1]),
        "dynamics": f"{exact.method} ({exact.how})",
        "constants": _constants(case),
        "verdicts": _verdicts(case),
    }


def _constants(case: _Case) -> list[dict[str, Any]]:
    problem, theorem = case.problem, case.theorem
    values = [
        ("n", problem.workers, "workers"),
        ("d", problem.dim, "coordinates"),
        ("gamma", case.method.stepsize, "step size"),
        ("lambda_max(Lbar)", float(problem.spectrum[-1]), "smoothness of f"),
        ("lambda_min(Lbar)", float(problem.spectrum[0]), "strong convexity of f"),
        ("lambda_min(W)", theorem.smallest_eigenvalue, "W = sym(Lbar E[B]); negative: no theorem 1"),
        ("theta", theorem.theta, "smallest with E[B Lbar B] <= theta W"),
        ("1/theta", theorem.stepsize, "largest step theorem 1 admits"),
        ("rate", theorem.rate, "theorem 1 contracts by 1 - gamma rate a round"),
        ("contraction limit", contraction_limit(problem, case.method.sketch), "below it every realisation contracts"),
    ]
    return [{"name": name, "value": value, "meaning": meaning} for name, value, meaning in values]


def _verdicts(case: _Case) -> list[dict[str, Any]]:
    problem, method = case.problem, case.method
    theorem = case.theorem.verdict(method.stepsize)
    limit = contraction_limit(problem, method.sketch)
    contracts = method.stepsize < limit
    comparison = f"{'yes' if contracts else 'not shown'}, the step {method.stepsize:.4g}, the limit {limit:.4g}"
    return [
        _verdict("theorem 1", theorem.holds, theorem.why, theorem.number),
        _verdict("contraction", contracts or None, f"every realisation contracts: {comparison}", limit),
        _sketch_verdict(method),
        _bias_verdict(case),
        _minimizer_verdict(problem),
    ]


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
