"""What to analyse: a problem, a method and how long, as the command line or a file gives it."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from isthmus.data import load_standardized
from isthmus.errors import InvalidInput, check_choice, check_integer, check_number
from isthmus.lab.arrays import Array
from isthmus.lab.methods import IST, Method
from isthmus.lab.own import check_name, is_own, own_method, own_problem, own_sketch
from isthmus.lab.problems import exact
from isthmus.lab.quadratics import Quadratic
from isthmus.lab.sketches import (
    Bernoulli,
    Dealt,
    Identity,
    ImportanceSampling,
    Permutation,
    RandomSparsification,
    ScaledPermutation,
    Sketch,
)
from isthmus.lab.theory.stepsizes import contraction_limit, local_limit
from isthmus.partitions import Block
from isthmus.randomness import generator

PROBLEMS = ("gaussian", "data")
_OF_IST = ("sketch", "law", "scale", "size", "probability", "local_steps", "merge")


@dataclass(frozen=True)
class Settings:
    """A problem, a method and how long; every field is a flag of ``isthmus analyze``.

    Raises:
        InvalidInput: a value breaks its rule.
    """

    problem: str = "gaussian"
    """gaussian: L_i = A_i'A_i with standard normal A_i, b_i and start; data: least squares on --data, start 0;
    FILE.npz or FILE.npy: arrays L [n, d, d] and b [n, d], or A and y of least squares, and x0; MODULE:FACTORY: a
    function of your own that returns a problem, or (problem, x0). Their start is 0 where they give none."""
    data: str = "breast-cancer"
    """For --problem data: digits, diabetes, breast-cancer, idx:FOLDER or libsvm:FILE. Features are standardised,
    targets (class numbers of a classification) centred."""
    workers: int = 4
    """n."""
    dim: int = 40
    """d of --problem gaussian; data has its own."""
    homogeneous: bool = False
    """For --problem gaussian: all workers have the same L and b."""
    ridge: float = 0.0
    """For --problem data: adds (ridge/2)|x|^2 to every worker's function."""
    method: str | None = None
    """MODULE:FACTORY: a function that takes the problem and returns a method of your own, run instead of IST."""
    sketch: str = "permutation"
    """The law of the workers' masks: identity, permutation, scaled (n = d), scaled-homogeneous, random-sparsification
    (--size), bernoulli (--probability), importance (marginals by the diagonal of Lbar, mean --probability), dealt
    (--law), or MODULE:FACTORY, a function that takes the problem and returns a sketch of your own."""
    law: str | None = None
    """How coordinates are dealt under --sketch dealt, as the trainer deals units: uniform, fixed, rotated, block (the
    default), rolling, or MODULE:CLASS, a law of your own. Each outcome is a round drawn at random."""
    scale: str = "n"
    """Value of the permutation sketch: n (unbiased, the paper's), sqrt (of n), or a number; 1 is the plain 0/1 mask."""
    size: int | None = None
    """Coordinates a worker holds under random-sparsification; by default d/n, the permutation's."""
    probability: float | None = None
    """Chance that a worker holds a coordinate under bernoulli and importance; by default 1/n."""
    stepsize: float | None = None
    """gamma; by default half the step below which every realisation (and every worker's local steps) contracts, or the
    step of your own --method."""
    local_steps: float = 1
    """Local steps T of every worker in a round; inf for the local minimiser."""
    merge: str = "gradient"
    """gradient: x + mean of the workers' changes; model: mean of the workers' models (Algorithm 1)."""
    rounds: int = 100
    """K."""
    seeds: int = 64
    """Simulated seeds."""
    seed: int = 0
    """Of the problem, the start and the simulation."""

    def __post_init__(self) -> None:
        check_name("problem", self.problem, PROBLEMS)
        check_name("sketch", self.sketch, list(SKETCHES))
        self._check_method()
        check_integer("workers", self.workers, at_least=1)
        check_integer("dim", self.dim, at_least=1)
        check_integer("rounds", self.rounds, at_least=1)
        check_integer("seeds", self.seeds, at_least=2)
        check_number("ridge", self.ridge, at_least=0.0)
        if self.law is not None and self.sketch not in _DEALT:
            raise InvalidInput(f"`law` has no effect with sketch {self.sketch!r}: it is of sketch 'dealt'")
        if self.size is not None:
            check_integer("size", self.size, at_least=1)
        if self.probability is not None:
            check_number("probability", self.probability, above=0.0, at_most=1.0)
        if self.stepsize is not None:
            check_number("stepsize", self.stepsize, above=0.0)
        if not (math.isinf(self.local_steps) or float(self.local_steps).is_integer()):
            raise InvalidInput(f"`local_steps` must be a whole number or inf, got {self.local_steps}")

    def _check_method(self) -> None:
        if self.method is None:
            return
        for field in fields(Settings):
            if field.name in _OF_IST and getattr(self, field.name) != field.default:
                raise InvalidInput(f"`{field.name}` has no effect with `method`: your function makes the whole method")


def read_toml(path: Path) -> dict[str, Any]:
    """Return the settings of a TOML file: keys are the flags, with - or _.

    Raises:
        InvalidInput: missing, malformed, an unknown key (the nearest is suggested), or a value of the wrong type.
    """
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path}: not TOML: {error}") from error
    return {key.replace("-", "_"): _typed(path, key, value) for key, value in found.items()}


def _typed(path: Path, key: str, value: Any) -> Any:
    kinds = {field.name: str(field.type) for field in fields(Settings)}
    name = check_choice(f"key in {path}", key.replace("-", "_"), kinds)
    allowed: Mapping[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "bool": (bool,), "float": (int, float)}
    kind = kinds[name].split(" ")[0]
    if kind == "str" and isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)  # scale = 1
    if not isinstance(value, allowed[kind]) or (kind != "bool" and isinstance(value, bool)):
        raise InvalidInput(f"`{key}` in {path} must be of type {kind}, got {value!r}")
    return value


def build_problem(settings: Settings) -> Quadratic:
    """Return the problem."""
    return build(settings)[0]


def build(settings: Settings) -> tuple[Quadratic, Array]:
    """Return the problem and x0, [d]: standard normal for a generated problem, 0 for data and where none is given.

    Raises:
        InvalidInput: the settings do not fit the data, or the user's own problem is no quadratic.
    """
    if not is_own(settings.problem):
        problem = _bundled(settings)
        return problem, build_start(settings, problem)
    own, x0 = own_problem(settings.problem, settings.workers, settings.seed, settings.ridge)
    quadratic = exact(own)
    if not isinstance(quadratic, Quadratic):
        raise InvalidInput(f"`problem` must be a quadratic to be analyzed, got {type(own).__name__}")
    return quadratic, np.zeros(quadratic.dim) if x0 is None else x0


def _bundled(settings: Settings) -> Quadratic:
    if settings.problem == "gaussian":
        return Quadratic.gaussian(settings.workers, settings.dim, settings.seed, settings.homogeneous)
    dataset = load_standardized(settings.data)
    targets = np.asarray(dataset.targets, dtype=np.float64)
    return Quadratic.least_squares(
        dataset.features, targets - targets.mean(), settings.workers, settings.seed, settings.ridge
    )


def build_start(settings: Settings, problem: Quadratic) -> Array:
    """Return x0: standard normal for a generated problem, 0 for data."""
    if settings.problem == "data":
        return np.zeros(problem.dim)
    return generator(settings.seed, "quadratic/start").standard_normal(problem.dim)


def build_sketch(settings: Settings, problem: Quadratic) -> Sketch:
    """Return the sketch for the problem's workers and coordinates."""
    if is_own(settings.sketch):
        return own_sketch(settings.sketch, problem)
    return SKETCHES[settings.sketch](settings, problem)


SKETCHES: dict[str, Callable[[Settings, Quadratic], Sketch]] = {
    "identity": lambda s, p: Identity(p.workers, p.dim),
    "permutation": lambda s, p: Permutation(p.workers, p.dim, _scale(s.scale, p.workers, p.dim)),
    "scaled": lambda s, p: ScaledPermutation(p),
    "scaled-homogeneous": lambda s, p: ScaledPermutation(p, homogeneous=True),
    "random-sparsification": lambda s, p: RandomSparsification(
        p.workers, p.dim, s.size or max(1, p.dim // p.workers)
    ),
    "bernoulli": lambda s, p: Bernoulli(p.workers, p.dim, _probability(s, p)),
    "importance": lambda s, p: ImportanceSampling(p.workers, _marginals(p, _probability(s, p))),
    "dealt": lambda s, p: Dealt(s.law or Block.name, p.workers, p.dim, s.seed),
}
_DEALT = ("dealt",)  # those that a law has an effect on


def _probability(settings: Settings, problem: Quadratic) -> float:
    return settings.probability or 1.0 / problem.workers


def _limit(problem: Quadratic, sketch: Sketch, local_steps: float) -> float:
    limit = contraction_limit(problem, sketch)
    return limit if local_steps == 1 else min(limit, local_limit(problem, sketch))


def _marginals(problem: Quadratic, probability: float) -> Array:
    """Chances in proportion to the square root of the diagonal of Lbar, of the given mean, at most 1."""
    weights = np.sqrt(np.maximum(np.diagonal(problem.mean_matrix), 1e-12 * float(problem.spectrum[-1])))
    p = np.minimum(probability * weights / weights.mean(), 1.0)
    for _ in range(problem.dim):  # what the cap took off goes to the others
        free = p < 1.0
        missing = probability * problem.dim - p.sum()
        if missing < 1e-12 or not free.any():
            break
        p[free] = np.minimum(p[free] * (1 + missing / p[free].sum()), 1.0)
    return np.asarray(p)


def build_method(settings: Settings, problem: Quadratic) -> Method:
    """Return IST with the sketch, the step half the contraction limit unless one is given; or the user's own method."""
    if settings.method is not None:
        made: Any = own_method(settings.method, problem)
        own: Method = made if settings.stepsize is None else replace(made, stepsize=settings.stepsize)
        return own
    sketch = build_sketch(settings, problem)
    stepsize = settings.stepsize or 0.5 * _limit(problem, sketch, settings.local_steps)
    local_steps = settings.local_steps if math.isinf(settings.local_steps) else int(settings.local_steps)
    return IST(sketch, stepsize, local_steps, settings.merge)


def _scale(text: str, workers: int, dim: int) -> float:
    unbiased = float(min(workers, dim))
    if text in ("n", "sqrt"):
        return unbiased if text == "n" else math.sqrt(unbiased)
    try:
        return check_number("scale", float(text), above=0.0)
    except ValueError as error:
        if isinstance(error, InvalidInput):
            raise
        raise InvalidInput(f"`scale` must be n, sqrt or a number, got {text!r}") from None
