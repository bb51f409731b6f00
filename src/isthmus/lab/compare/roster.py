"""The methods that can be compared, by name: each built for a problem with the step size its theory gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from isthmus.errors import InvalidInput, check_choice
from isthmus.lab.compare.settings import Comparison
from isthmus.lab.compressors import Dithering, Natural, PermK, RandK, Scaled, TopK
from isthmus.lab.methods import (
    DCGD,
    DIANA,
    EF21,
    GDCI,
    IST,
    MARINA,
    AcceleratedGradientDescent,
    AnchoredIST,
    BlockCoordinateDescent,
    BlockGradientIST,
    DistributedGDCI,
    GradientDescent,
    LocalGradientDescent,
    ProxSkip,
)
from isthmus.lab.own import is_own, own_counted_method, own_sketch
from isthmus.lab.problems import Problem, constants, exact
from isthmus.lab.quadratics import Quadratic
from isthmus.lab.rates import Setting, best_momentum, best_momentum_of, largest_stepsize
from isthmus.lab.sketches import Permutation, Sketch
from isthmus.lab.theory import best_stepsize

Builder = Callable[[Problem, Comparison], Any]
_ANY = 1.0  # a step size to be replaced by the theory's
_ACCURACY = 1e-3  # relative, of a best step: its rate is then best to about as many digits as anybody can see
_MOMENTUM = ("gd-accelerated", "anchored-momentum")


@dataclass(frozen=True)
class Entry:
    """A method to compare: what it is, and how it is built (its step size is replaced)."""

    title: str
    build: Builder
    tuned: bool = True  # at its best with the best momentum or shift rate too; else those it is built with are its own


def _kept(problem: Problem, settings: Comparison) -> int:
    share = 1.0 / problem.workers if settings.keep is None else settings.keep
    return max(1, min(problem.dim, round(share * problem.dim)))


def _proxskip(problem: Problem, settings: Comparison) -> ProxSkip:
    c = constants(problem)
    return ProxSkip(_ANY, float(np.sqrt(max(c.mu_min, c.mu * 1e-4, 1e-12 * c.L_max) / c.L_max)))


def _sketch(problem: Problem, settings: Comparison, scale: str = "unbiased") -> Sketch:
    if is_own(settings.sketch):
        return own_sketch(settings.sketch, problem)
    n, d = problem.workers, problem.dim
    return Permutation(n, d, float(np.sqrt(min(n, d))) if scale == "free" else None)


def _anchored(problem: Problem, settings: Comparison) -> AnchoredIST:
    return AnchoredIST(_sketch(problem, settings, settings.scale), _ANY, settings.period, settings.local_steps)


ROSTER: dict[str, Entry] = {
    "gd": Entry("gradient descent", lambda p, s: GradientDescent(_ANY)),
    "gd-accelerated": Entry("accelerated gradient descent", lambda p, s: AcceleratedGradientDescent(_ANY, 0.0)),
    "dcgd": Entry("DCGD, Rand-K", lambda p, s: DCGD(RandK(p.dim, _kept(p, s)), _ANY)),
    "dcgd-perm-k": Entry("DCGD, Perm-K", lambda p, s: DCGD(PermK(p.workers, p.dim), _ANY)),
    "dcgd-natural": Entry("DCGD, natural", lambda p, s: DCGD(Natural(p.dim), _ANY)),
    "diana": Entry("DIANA, Rand-K", lambda p, s: DIANA(RandK(p.dim, _kept(p, s)), _ANY)),
    "diana-perm-k": Entry("DIANA, Perm-K", lambda p, s: DIANA(PermK(p.workers, p.dim), _ANY)),
    "diana-dithering": Entry("DIANA, dithering", lambda p, s: DIANA(Dithering(p.dim, _levels(p)), _ANY)),
    "marina": Entry("MARINA, Rand-K", lambda p, s: MARINA(RandK(p.dim, _kept(p, s)), _ANY, _kept(p, s) / p.dim)),
    "marina-perm-k": Entry("MARINA, Perm-K", lambda p, s: MARINA(PermK(p.workers, p.dim), _ANY, 1.0 / p.workers)),
    "ef21": Entry("EF21, Top-K", lambda p, s: EF21(TopK(p.dim, _kept(p, s)), _ANY)),
    "ef21-rand-k": Entry("EF21, scaled Rand-K", lambda p, s: EF21(Scaled(RandK(p.dim, _kept(p, s))), _ANY)),
    "gdci": Entry("GDCI, natural", lambda p, s: GDCI(Natural(p.dim), _ANY)),
    "gdci-distributed": Entry("distributed GDCI, Perm-K", lambda p, s: DistributedGDCI(PermK(p.workers, p.dim), _ANY)),
    "local-gd": Entry("local gradient descent", lambda p, s: LocalGradientDescent(_ANY, max(s.local_steps, 2))),
    "proxskip": Entry("ProxSkip", _proxskip),
    "block-descent": Entry("block descent", lambda p, s: BlockCoordinateDescent(_kept(p, s), _ANY)),
    "block-ist": Entry("block-gradient IST", lambda p, s: BlockGradientIST(_sketch(p, s), _ANY)),
    "ist": Entry("IST", lambda p, s: IST(_sketch(p, s), _ANY, s.local_steps)),
    "anchored": Entry("anchored IST", _anchored, tuned=False),
    "anchored-momentum": Entry("anchored IST, momentum", _anchored),
}


def title_of(name: str) -> str:
    """Return what a method is called in figures: the user's own by its MODULE:FACTORY."""
    return ROSTER[name].title if name in ROSTER else name


def _levels(problem: Problem) -> int:
    return max(1, round(np.sqrt(problem.dim)))


def build_method(name: str, setting: Setting, settings: Comparison, factor: float) -> tuple[Any, float]:
    """Return the method with ``factor`` times the theory's step size, and that theory's limit (nan without a theory).

    Raises:
        InvalidInput: an unknown name, or a method of the user's own that cannot be built.
    """
    if is_own(name):  # with ``factor`` times its own step
        own: Any = own_counted_method(name, setting.problem)
        return replace(own, stepsize=factor * own.stepsize), largest_stepsize(own, setting)
    entry = ROSTER[check_choice("methods", name, ROSTER)]
    if settings.local_steps > 1 and name.startswith("anchored") and settings.problem == "logistic":
        raise InvalidInput("`local_steps` must be 1 for anchored IST with logistic regression: no step size is known")
    method = entry.build(setting.problem, settings)
    limit = largest_stepsize(method, setting)
    start = limit if np.isfinite(limit) else _without_theory(method, setting)
    method = replace(method, stepsize=factor * start)
    return (replace(method, momentum=_momentum(method, setting)) if name in _MOMENTUM else method), limit


def at_best(name: str, method: Any, setting: Setting, factor: float) -> Any | None:
    """Return the method with ``factor`` times the step of its best exact rate; None where its moments do not close."""
    if not isinstance(setting.problem, Quadratic):
        return None
    tuned = name not in ROSTER or ROSTER[name].tuned
    try:
        best = best_stepsize(setting.problem, method, _ACCURACY, step_only=not tuned)
    except InvalidInput:
        return None
    return replace(best.method, stepsize=factor * best.stepsize)


def _momentum(method: Any, setting: Setting) -> float:
    """Nesterov's, of f or of f preconditioned by what happens between anchors; none where that is not known."""
    if isinstance(method, AcceleratedGradientDescent):
        return best_momentum_of(method.stepsize * setting.constants.mu)
    plain = exact(setting.problem)
    return best_momentum(plain, method) if isinstance(plain, Quadratic) and not plain.singular else 0.0


def _without_theory(method: Any, setting: Setting) -> float:
    """Half of 2/lambda_max of what a sketched worker can see at most, s^2 L_max/n; 1/L_max for the others."""
    smooth = setting.constants.L_max
    sketch = getattr(method, "sketch", None)
    if sketch is None:
        return 1.0 / smooth
    return setting.n / (float(np.max(sketch.weights)) ** 2 * smooth)
