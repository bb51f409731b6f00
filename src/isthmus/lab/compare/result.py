"""Run one method of a comparison and say, in plain data, how it did."""

from __future__ import annotations

from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from isthmus.errors import InvalidInput
from isthmus.lab.arrays import Array
from isthmus.lab.bounds import Bound
from isthmus.lab.compare.roster import at_best, build_method, title_of
from isthmus.lab.compare.settings import Comparison, build
from isthmus.lab.compare.verdict import Verdict, verdict
from isthmus.lab.measure import Budget, Measured, judge, measure
from isthmus.lab.methods import IST
from isthmus.lab.problems import exact
from isthmus.lab.quadratics import Quadratic
from isthmus.lab.rates import Setting, bounds
from isthmus.lab.theory import fixed_point, relative_gap
from isthmus.lab.theory.dynamics import round_moments
from isthmus.records import to_json

_POINTS = 200


def compare_one(settings: Comparison, name: str) -> dict[str, Any]:
    """Return how one method did: the cheapest of its step sizes to the target, else the one that came closest.

    Plain JSON data. The linear algebra runs on one thread, so that the numbers do not depend on who runs it.

    Raises:
        InvalidInput: an unknown method, or settings that do not fit the data.
    """
    with threadpool_limits(limits=1):
        problem, x0 = build(settings)
        setting = Setting(problem, x0, settings.rounds)
        if setting.gap == 0.0:
            raise InvalidInput("`problem` must not start at its minimiser: gaps are relative to the first; give x0")
        tried = [_try(settings, name, setting, factor) for factor in settings.step_factors]
    best = min(tried, key=_worth)
    plain = to_json({**best, "tried": [{key: one[key] for key in ("factor", "status", "bits")} for one in tried]})
    assert isinstance(plain, dict)
    return plain


def _worth(one: dict[str, Any]) -> tuple[int, float]:
    """Reached, by bits; then the others by level, those that diverged last."""
    if one["status"] == "reached":
        return 0, one["bits"]
    return (2, 0.0) if one["status"] == "diverged" else (1, one["level"])


def _try(settings: Comparison, name: str, setting: Setting, factor: float) -> dict[str, Any]:
    method, limit = build_method(name, setting, settings, factor)
    best = at_best(name, method, setting, factor) if settings.step == "best" else None
    method = method if best is None else best
    found = bounds(method, setting)
    initial = setting.gap
    run = Budget(
        settings.rounds,
        settings.seeds,
        settings.seed,
        0.1 * settings.target * initial,
        settings.value_bits,
        settings.broadcast,
    )
    measured = measure(setting.problem, method, setting.x0, run, {bound.measure for bound in found})
    relative = measured.simulation.mean_gap / initial
    reached = np.flatnonzero(relative <= settings.target)
    verdicts = [judge(bound, measured) for bound in found]
    outcome = _outcome(settings, setting, method, measured, relative)
    return {
        "name": name,
        "title": title_of(name),
        "workers": setting.problem.workers,
        "dim": setting.problem.dim,
        "stepsize": method.stepsize,
        "factor": factor,
        "step_from": "theory" if best is None else "best",
        "limit": limit,
        "above_limit": bool(np.isfinite(limit) and method.stepsize > limit * (1 + 1e-9)),
        "status": outcome.status,
        "status_from": outcome.how,
        "end": outcome.end if outcome.end is None or np.isfinite(outcome.end) else None,
        "tail_index": _tail_index(measured),
        "level": float(relative[np.isfinite(relative)][-1]),
        "stall_level": _stall_level(setting, method),
        **_spent(measured, int(reached[0]) if len(reached) else None),
        "memory": measured.ledger.memory,
        "verdicts": [vars(verdict) for verdict in verdicts],
        "curve": _curve(measured, initial, settings),
        "bounds": _bound_curves(found, measured, setting, settings),
    }


def _outcome(settings: Comparison, setting: Setting, method: Any, measured: Measured, relative: Array) -> Verdict:
    if (relative <= settings.target).any():
        return Verdict("reached", "measured")
    return verdict(setting, method, settings.target, relative, measured.simulation.diverged_at is not None)


def _tail_index(measured: Measured) -> float | None:
    """The smallest over the rounds; None where there are too few seeds to tell."""
    known = measured.simulation.tail_index[1:]
    known = known[np.isfinite(known)]
    return float(known.min()) if len(known) else None


def _stall_level(setting: Setting, method: Any) -> float | None:
    """The relative gap at which the mean of plain IST ends, exact; None for other methods."""
    problem = exact(setting.problem)
    if not (isinstance(method, IST) and isinstance(problem, Quadratic)) or round_moments(problem, method) is None:
        return None
    return float(relative_gap(problem, fixed_point(problem, method), setting.x0))


def _spent(measured: Measured, reached: int | None) -> dict[str, Any]:
    """What it took to reach the target, means over seeds; None where it did not."""
    names = ("bits", "up", "down", "up_without_indices", "up_total", "down_total", "bits_total", "work", "gradients")
    if reached is None:
        return {"rounds": None, **dict.fromkeys(names)}
    book = measured.ledger
    return {"rounds": reached, **{name: float(getattr(book, name)[:, reached].mean()) for name in names}}


def _curve(measured: Measured, initial: float, settings: Comparison) -> dict[str, list[float]]:
    """At most 200 rounds of the mean relative gap with its 95 % band, over the axis of the figure."""
    gaps = measured.simulation.mean_gap / initial
    kept = _thinned(int(np.isfinite(gaps).sum()))
    error = 1.96 * measured.simulation.standard_error / initial
    half = np.where(np.isfinite(error), error, 0.0)
    x = _axis(measured, settings)
    columns = {"x": x, "y": gaps, "low": np.maximum(gaps - half, 0.0), "high": gaps + half}
    return {key: [float(value) for value in column[kept]] for key, column in columns.items()}


def _bound_curves(
    found: tuple[Bound, ...], measured: Measured, setting: Setting, settings: Comparison
) -> list[dict[str, Any]]:
    """The bounds that apply, as relative gaps; a squared distance bounds the gap by L/2 times itself."""
    curves = []
    x = _axis(measured, settings)
    for bound in found:
        if not bound.applies or bound.measure == "gradient":
            continue
        factor = 0.5 * setting.constants.L if bound.measure == "distance" else 1.0
        with np.errstate(over="ignore"):  # that of a method that diverges: it is drawn as far as it is a number
            said = factor * bound.values[: len(x)] / setting.gap
        kept = [k for k in _thinned(len(x)) if np.isfinite(said[k])]
        if len(kept) < 2:  # a bound that speaks of few rounds is drawn at those
            kept = list(np.flatnonzero(np.isfinite(said)))
        curves.append(
            {
                "name": bound.name,
                "kind": bound.kind,
                "x": [float(x[k]) for k in kept],
                "y": [float(said[k]) for k in kept],
            }
        )
    return curves


def _axis(measured: Measured, settings: Comparison) -> Array:
    rounds = measured.simulation.gap.shape[1]
    if settings.x_axis == "rounds":
        return np.arange(rounds, dtype=np.float64)
    return np.asarray(getattr(measured.ledger, settings.x_axis).mean(axis=0))


def _thinned(rounds: int) -> list[int]:
    return sorted({round(place) for place in np.linspace(0, rounds - 1, min(rounds, _POINTS))})
