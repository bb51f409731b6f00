"""A statement of the paper that a machine can check on random problems."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from isthmus.errors import check_integer
from isthmus.lab.arrays import Array
from isthmus.lab.quadratics import Quadratic
from isthmus.randomness import generator

ROUNDING = 1e-8


@dataclass(frozen=True)
class Trial:
    """One random case of a claim.

    Attributes:
        printed: measured/bound for an inequality, relative error for an equality, of the statement as printed.
        corrected: the same of the corrected statement; None where the printed one stands.
        case: what the random problem was, for a counterexample.
    """

    printed: float
    corrected: float | None
    case: str


@dataclass(frozen=True)
class Claim:
    """A numbered statement.

    Attributes:
        place: number in the paper.
        statement: what is printed.
        corrected: what holds instead; empty if it stands.
        kind: "bound" (an inequality; numbers are measured/bound, at most 1) or "equality" (relative errors, 0).
        trial: draws a random case and measures.
    """

    place: str
    statement: str
    corrected: str
    kind: str
    trial: Callable[[np.random.Generator], Trial]


@dataclass(frozen=True)
class Verdict:
    """What checking a claim found.

    Attributes:
        claim: the statement.
        printed_holds: as printed, in every case.
        corrected_holds: the corrected statement in every case; None where there is none.
        worst: worst number over the cases of the statement that stands (the corrected one where there is one).
        printed_worst: worst number of the printed statement.
        counterexample: the first case in which the printed statement fails, or "".
        cases: how many were tried.
    """

    claim: Claim
    printed_holds: bool
    corrected_holds: bool | None
    worst: float
    printed_worst: float
    counterexample: str
    cases: int


def check(claim: Claim, cases: int, seed: int = 0) -> Verdict:
    """Check one claim on ``cases`` random problems.

    Raises:
        InvalidInput: no cases.
    """
    check_integer("cases", cases, at_least=1)
    trials = [claim.trial(generator(seed, f"claims/{claim.place}", case)) for case in range(cases)]
    fails = [trial for trial in trials if not _holds(claim.kind, trial.printed)]
    corrected = [trial.corrected for trial in trials if trial.corrected is not None]
    example = f"{fails[0].case}: {fails[0].printed:.4g}" if fails else ""
    printed_worst = max(trial.printed for trial in trials)
    return Verdict(
        claim=claim,
        printed_holds=not fails,
        corrected_holds=all(_holds(claim.kind, number) for number in corrected) if corrected else None,
        worst=max(corrected) if corrected else printed_worst,
        printed_worst=printed_worst,
        counterexample=example,
        cases=cases,
    )


def _holds(kind: str, number: float) -> bool:
    return bool(number <= 1 + ROUNDING if kind == "bound" else number <= ROUNDING)


def error(found: Array | float, expected: Array | float) -> float:
    """Relative error in the largest entry."""
    scale = float(np.abs(expected).max(initial=0.0)) if np.ndim(expected) else abs(float(expected))
    difference = np.abs(np.asarray(found) - np.asarray(expected))
    return float(difference.max(initial=0.0)) / (scale if scale > 0 else 1.0)


def random_problem(
    random: np.random.Generator, workers: int, dim: int, biased: bool = True, homogeneous: bool = False
) -> Quadratic:
    """Draw a heterogeneous quadratic with a spectrum spread over up to three decades."""
    many = 1 if homogeneous else workers
    drawn = [(random.standard_normal((dim, dim)), random.uniform(-1.5, 1.5, dim)) for _ in range(many)]
    bases = np.linalg.qr(np.stack([normal for normal, _ in drawn]))[0]
    matrices = bases * 10.0 ** np.stack([decades for _, decades in drawn])[:, None] @ np.swapaxes(bases, 1, 2)
    matrices = 0.5 * (matrices + np.swapaxes(matrices, 1, 2))
    b = random.standard_normal((many, dim)) * float(biased)
    return Quadratic._trusted(np.broadcast_to(matrices, (workers, dim, dim)), np.broadcast_to(b, (workers, dim)))


def sizes(random: np.random.Generator, square: bool = False) -> tuple[int, int]:
    """Draw (workers, dim) with dim a multiple of workers; equal if ``square``."""
    workers = int(random.integers(2, 7))
    return workers, workers * (1 if square else int(random.integers(1, 5)))


def worst_of(values: Array, exact: Array) -> float:
    """Largest exact/bound over the rounds where the bound says something."""
    said = np.isfinite(values) & np.isfinite(exact) & (values > 0)
    return float((exact[said] / values[said]).max())


def describe(problem: Quadratic, extra: Sequence[str] = ()) -> str:
    """Name a case."""
    kind = "homogeneous" if problem.homogeneous_matrices else "heterogeneous"
    return ", ".join([f"n={problem.workers}, d={problem.dim}, {kind}", *extra])
