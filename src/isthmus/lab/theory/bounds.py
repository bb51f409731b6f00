"""The theorems as bounds: a value per round beside the exact quantity it bounds, and which assumptions hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import ArrayLike
from scipy import linalg

from isthmus.errors import InvalidInput, check_choice, check_number
from isthmus.lab.arrays import Array, check_array
from isthmus.lab.bounds import Assumption, Bound
from isthmus.lab.definite import is_definite, largest_relative, null_space
from isthmus.lab.methods import IST, GradientDescent
from isthmus.lab.quadratics import Quadratic
from isthmus.lab.sketches import ScaledPermutation
from isthmus.lab.theory.dynamics import known_moments, quadratic_forms
from isthmus.lab.theory.fixed_points import fixed_point
from isthmus.lab.theory.moments import Moments
from isthmus.lab.theory.theorem1 import theorem1
from isthmus.lab.theory.update import sketched_matrix_update

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, eq=False)
class ExactBound(Bound):
    """A bound beside the exact quantity; ``measure`` says in words what that is, in whatever norm the theorem has.

    Attributes:
        exact: [K+1], the quantity itself; ``values`` are inf where the theorem says nothing.

    Raises:
        InvalidInput: as for `Bound`, or not one exact value for each of the bound's.
    """

    exact: Array

    measures: ClassVar[tuple[str, ...] | None] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if np.shape(self.exact) != np.shape(self.values):
            raise InvalidInput(f"`exact` must have the shape {np.shape(self.values)}, got {np.shape(self.exact)}")

    @property
    def worst_ratio(self) -> float:
        """Largest exact/bound over rounds k >= 1 where the bound says something; above 1 an upper bound is broken."""
        said = np.isfinite(self.values) & (self.values > 0) & np.isfinite(self.exact)
        said[0] = False  # most bounds are equalities at the start
        return float((self.exact[said] / self.values[said]).max()) if said.any() else np.nan

    def to_frame(self) -> DataFrame:
        """Return the bound beside the exact quantity, a row a round, as a pandas table."""
        return super().to_frame().assign(exact=self.exact)

    def holds(self, rounding: float = 1e-9) -> bool:
        """Whether the exact quantity respects the bound's kind at every round, up to ``rounding`` relative."""
        said = np.isfinite(self.values) & np.isfinite(self.exact)
        exact, values = self.exact[said], self.values[said]
        slack = rounding * np.maximum(np.abs(values), 1e-3 * np.abs(exact).max(initial=0.0))
        difference = exact - values
        below, above = bool((difference <= slack).all()), bool((difference >= -slack).all())
        return {"upper": below, "lower": above, "tight": below and above}[self.kind]


PAPER = "Shulgin, Richtarik (arXiv 2306.16484)"


def theorem1_contraction(problem: Quadratic, method: IST, x0: ArrayLike, rounds: int) -> ExactBound:
    """Theorem 1 (16): E|x^k - x*|^2_Lbar <= (1 - gamma lambda_min(Lbar^{-1/2} W Lbar^{-1/2}))^k |x^0 - x*|^2_Lbar."""
    found = theorem1(problem, method.sketch)
    exact = quadratic_forms(problem, method, x0, rounds, [problem.mean_matrix])[0]
    factor = 1.0 - method.stepsize * found.rate
    assumptions = (*found.assumptions, _step_below(method.stepsize, found.stepsize, "1/theta"), _one_step(method))
    values = _powers(factor, rounds) * exact[0] if np.isfinite(factor) else np.full(rounds + 1, np.inf)
    return ExactBound("theorem 1 (16)", "E|x - x*|^2_Lbar", values, "upper", assumptions, f"{PAPER}, (16)", exact)


def theorem1_average(problem: Quadratic, method: IST, x0: ArrayLike, rounds: int) -> ExactBound:
    """Theorem 1 (15): the mean over k < K of E|grad f(x^k)|^2 is at most 2(f0 - E f_K)/(gamma K).

    The norm is that of Lbar^{-1} W Lbar^{-1}.
    """
    found = theorem1(problem, method.sketch)
    gaps, norms = quadratic_forms(problem, method, x0, rounds, [0.5 * problem.mean_matrix, found.W])
    values, exact = _averages(gaps, norms, method.stepsize)
    assumptions = (*found.assumptions, _step_below(method.stepsize, found.stepsize, "1/theta"), _one_step(method))
    quantity = "mean of E|grad f|^2, norm Lbar^-1 W Lbar^-1"
    return ExactBound("theorem 1 (15)", quantity, values, "upper", assumptions, f"{PAPER}, (15)", exact)


def theorem2(problem: Quadratic, stepsize: float, x0: ArrayLike, rounds: int, form: str = "beta-free") -> ExactBound:
    """Theorem 2, for the scaled sketch (23): a bound on the mean over k < K of E|grad f(x^k)|^2 in the Lbar^{-1} norm.

    2(f0 - E f_K)/(gamma K) + A |h|^2_Lbar + gamma sigma^2,  h = Lbar^{-1} bbar - n^{-1/2} mean_i D_i^{-1/2} b_i.
    ``form`` gives A and what it needs:

    - "printed": A = 2(1-gamma)/beta + gamma with the largest beta that (29), gamma <= (1/2-beta)/(1/2+beta), admits;
    - "tight": A = (1-gamma)/(2 beta) + gamma for the same beta; any beta in (0, 1/2] will do, (29) is not needed;
    - "beta-free" (Theorem 2'): A = 1, from beta = 1/2; an equality at gamma = 1.
    """
    check_number("stepsize", stepsize, above=0.0)
    method = IST(ScaledPermutation(problem), stepsize)
    gaps, norms = quadratic_forms(problem, method, x0, rounds, [0.5 * problem.mean_matrix, problem.mean_matrix])
    first, exact = _averages(gaps, norms, stepsize)
    h = problem.minimizer - scaled_fixed_point(problem)
    left_over_beta = 2 * (1 + stepsize)  # (1 - gamma)/beta for that beta = (1/2)(1 - gamma)/(1 + gamma)
    A = {
        "printed": 2 * left_over_beta + stepsize,
        "tight": 0.5 * left_over_beta + stepsize,
        "beta-free": 1.0,
    }[check_choice("form", form, ("printed", "tight", "beta-free"))]
    values = first + A * float(h @ problem.mean_matrix @ h) + stepsize * scaled_noise(problem)
    strict = form != "beta-free"
    sign, holds = ("<", stepsize < 1) if strict else ("<=", stepsize <= 1)
    limit = Assumption("gamma", holds, stepsize, f"gamma = {stepsize:.4g} must be {sign} 1")
    kind = "tight" if form == "beta-free" and stepsize == 1.0 else "upper"
    quantity = "mean of E|grad f|^2, norm Lbar^-1"
    return ExactBound(f"theorem 2 ({form})", quantity, values, kind, (limit,), f"{PAPER}, theorem 2", exact)


def scaled_fixed_point(problem: Quadratic) -> Array:
    """Return x_inf = n^{-1/2} mean_i D_i^{-1/2} b_i of the scaled sketch, (28), [d]."""
    return np.asarray((problem.b / np.sqrt(problem.diagonals)).mean(axis=0) / np.sqrt(problem.workers))


def scaled_noise(problem: Quadratic) -> float:
    """Return sigma^2 = tr(Lbar Cov c) of the scaled sketch, closed form.

    With t_i = D_i^{-1/2} b_i and population moments over workers: Cov(c)_aa = var_i(t_i[a])/n,
    Cov(c)_ab = -cov_i(t_i[a], t_i[b])/(n(n-1)).
    """
    n = problem.workers
    if n == 1:
        return 0.0
    t = problem.b / np.sqrt(problem.diagonals)
    t = t - t.mean(axis=0)
    own = float(((t * t).mean(axis=0) * np.diagonal(problem.mean_matrix)).sum())
    total = float(np.einsum("na,na->", t @ problem.mean_matrix, t)) / n
    return own / n - (total - own) / (n * (n - 1))


def exact_scaled_gap(problem: Quadratic, stepsize: float, x0: ArrayLike, rounds: int) -> Array:
    """Return E f(x^k) - f* of the scaled sketch in closed form, [K+1].

    0.5 |x_inf - x* + (1-gamma)^k (x^0 - x_inf)|^2_Lbar + 0.5 gamma/(2-gamma) (1 - (1-gamma)^{2k}) sigma^2 for gamma in
    (0, 2).

    Raises:
        InvalidInput: a step outside (0, 2), or a start of the wrong shape.
    """
    check_number("stepsize", stepsize, above=0.0, below=2.0)
    limit = scaled_fixed_point(problem)
    left = _powers(1.0 - stepsize, rounds)
    mean = limit + left[:, None] * (check_array("x0", x0, problem.dim) - limit)
    noise = 0.5 * stepsize / (2.0 - stepsize) * (1.0 - left**2) * scaled_noise(problem)
    return problem.gap(mean) + noise


def gradient_descent_rate(problem: Quadratic, stepsize: float, x0: ArrayLike, rounds: int) -> ExactBound:
    """Gradient descent: f(x^k) - f* <= max(|1 - gamma mu|, |1 - gamma L|)^{2k} (f(x^0) - f*), gamma < 2/L."""
    exact = quadratic_forms(problem, GradientDescent(stepsize), x0, rounds, [0.5 * problem.mean_matrix])[0]
    flat = null_space(problem.mean_matrix).shape[1]
    mu, L = float(problem.spectrum[flat]), float(problem.spectrum[-1])
    factor = max(abs(1 - stepsize * mu), abs(1 - stepsize * L)) ** 2
    step = _step_below(stepsize, 2 / L, "2/L")
    values = _powers(factor, rounds) * exact[0]
    reference = "Nesterov (2004), theorem 2.1.15"
    return ExactBound("gradient descent", "f - f*", values, "upper", (step,), reference, exact)


def _powers(factor: float, rounds: int) -> Array:
    """1, factor, ..., factor^K; infinite where it overflows, for a step at which the bound does not apply."""
    with np.errstate(over="ignore"):
        return np.asarray(factor ** np.arange(rounds + 1))


def sgd_rate(problem: Quadratic, method: IST, x0: ArrayLike, rounds: int) -> ExactBound:
    """IST as SGD on f~: E|x^k - x_inf|^2 <= (1 - gamma mu)^k |x^0 - x_inf|^2 + 2 gamma sigma^2 / mu, gamma <= 1/(2 l).

    mu = lambda_min(E[B]), l the smallest number with E[B^2] <= l E[B] (expected smoothness), sigma^2 = E|g(x_inf)|^2.
    """
    update = sketched_matrix_update(problem, method.sketch)
    center = fixed_point(problem, method)
    exact = quadratic_forms(problem, method, x0, rounds, [np.eye(problem.dim)], center)[0]
    if update is None:
        smooth, mu = np.inf, np.nan
    else:
        B = Moments(update)
        smooth = largest_relative(B.sandwich(np.eye(problem.dim)), B.mean_matrix)
        mu = float(linalg.eigvalsh(B.mean_matrix)[0])
    moments, gamma = known_moments(problem, method), method.stepsize
    drift = moments.drift(center)
    moved = moments.sandwich(np.outer(center, center)) + drift + drift.T + moments.noise()
    noise = float(np.trace(moved)) / gamma**2
    convex = update is not None and is_definite(B.mean_matrix)
    values = np.full(rounds + 1, np.inf)
    if convex:
        values = _powers(1 - gamma * mu, rounds) * exact[0] + 2 * gamma * noise / mu
    said = "above" if convex else "not above"
    strongly = Assumption("strong convexity", convex, mu, f"lambda_min(E[B]) = {mu:.4g} is {said} 0")
    assumptions = (_step_below(gamma, 0.5 / smooth, "1/(2 l)"), strongly, _one_step(method))
    reference = "Gower et al. (arXiv 1901.09401)"
    return ExactBound("SGD on f~", "E|x - x_inf|^2", values, "upper", assumptions, reference, exact)


def perm_q_form(problem: Quadratic, size: int) -> Array:
    """Return W of the unbiased Perm-q: n[(1-rho)/2 (Lbar Dbar + Dbar Lbar) + rho Lbar^2], rho = (q-1)/(d-1), [d, d].

    Raises:
        InvalidInput: n blocks of ``size`` do not make d.
    """
    if size * problem.workers != problem.dim:
        raise InvalidInput(
            f"`size` must be dim / workers, got {size} for {problem.dim} coordinates and {problem.workers} workers"
        )
    Lbar = problem.mean_matrix
    rho = (size - 1) / max(problem.dim - 1, 1)
    LD = Lbar * np.diagonal(Lbar)
    return np.asarray(problem.workers * (0.5 * (1 - rho) * (LD + LD.T) + rho * Lbar @ Lbar))


def _averages(gaps: Array, norms: Array, stepsize: float) -> tuple[Array, Array]:
    """(2 (f0 - E f_K)/(gamma K), mean of the first K norms) for K = 0..; nothing is said at K = 0."""
    K = np.arange(1, len(gaps))
    values, exact = np.full(len(gaps), np.inf), np.full(len(gaps), np.nan)
    values[1:] = 2 * (gaps[0] - gaps[1:]) / (stepsize * K)
    exact[1:] = np.cumsum(norms)[:-1] / K
    return values, exact


def _step_below(stepsize: float, limit: float, name: str) -> Assumption:
    holds = stepsize <= limit * (1 + 1e-12)
    said = "at most" if holds else "above"
    return Assumption("gamma", holds, limit, f"gamma = {stepsize:.4g} is {said} {name} = {limit:.4g}")


def _one_step(method: IST) -> Assumption:
    holds = method.local_steps == 1 and method.merge == "gradient"
    return Assumption("method (2)", holds, float(method.local_steps), "one local step, merged by gradients")
