"""What to compare: a problem, the methods, and to which target, as the command line gives it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isthmus.data import load_standardized
from isthmus.errors import InvalidInput, check_choice, check_integer, check_number
from isthmus.lab.accounting import BROADCASTS
from isthmus.lab.arrays import Array
from isthmus.lab.own import check_name, is_own, own_problem
from isthmus.lab.problems import LeastSquares, Logistic, Minibatch, Problem, Samples, random_quadratic

PROBLEMS = ("gaussian", "random", "data", "logistic")
DEFAULT_METHODS = ("gd", "dcgd", "diana", "marina-perm-k", "ef21", "proxskip", "ist", "anchored")
STEPS = ("theory", "best")
AXES = ("rounds", "bits", "bits_total", "up", "down", "up_total", "down_total", "work", "gradients")


@dataclass(frozen=True)
class Comparison:
    """A problem, methods and a target; every field is a flag of ``isthmus compare``.

    Raises:
        InvalidInput: a value breaks its rule.
    """

    methods: tuple[str, ...] = DEFAULT_METHODS
    """What to compare; a wrong name lists all. MODULE:FACTORY is a function that takes the problem and returns a method
    of your own, with its own step size."""
    problem: str = "gaussian"
    """gaussian: least squares on generated samples that differ between the workers; random: quadratics of a given
    spectrum; data: least squares on --data; logistic: l2-regularised logistic regression on --data (two classes);
    FILE.npz or FILE.npy: arrays L [n, d, d] and b [n, d], or A and y of least squares, and x0; MODULE:FACTORY: a
    function of your own that returns a problem, or (problem, x0)."""
    data: str = "breast-cancer"
    """digits, diabetes, breast-cancer, idx:FOLDER or libsvm:FILE; features are standardised, targets centred."""
    workers: int = 6
    """n."""
    dim: int = 60
    """d of gaussian and random; data has its own."""
    rows: int = 80
    """Samples per worker of gaussian."""
    condition_number: float = 100.0
    """Of every worker's matrix in random."""
    heterogeneity: float = 1.0
    """How much the workers differ: at least 0 for gaussian; for random in [0, 1]; for data the share of samples sorted
    by target, in [0, 1], 0 an i.i.d. split."""
    ridge: float = 0.0
    """Adds (ridge/2)|x|^2; logistic needs a positive one."""
    batch_size: int | None = None
    """Samples of a stochastic gradient; all by default."""
    target: float = 1e-6
    """Relative gap (f - f*)/(f(x0) - f*) to reach."""
    rounds: int = 3000
    """At most so many."""
    seeds: int = 8
    """Simulated seeds."""
    seed: int = 0
    """Of the problem and the simulation."""
    step: str = "theory"
    """theory: the step that the method's theorem admits; best: the step, and momentum or shift rate, of the best exact
    asymptotic rate, for quadratics and methods that are linear given their draws (theory's for the others, which the
    table names; minutes for DIANA and ProxSkip at d (n + 1) of several hundred)."""
    step_factors: tuple[float, ...] = (1.0,)
    """Multiples of that step size to try; of several the one that is cheapest to the target is shown."""
    keep: float | None = None
    """Share of the coordinates that Rand-K, Top-K and block descent keep; 1/n by default, as Perm-K does."""
    period: int = 5
    """Rounds between anchors of anchored IST."""
    sketch: str = "permutation"
    """Of IST, block-gradient IST and anchored IST: permutation, or MODULE:FACTORY, a function that takes the problem
    and returns a sketch of your own."""
    scale: str = "free"
    """Of anchored IST's sketch: free (sqrt of n, no bias to fear) or unbiased (n)."""
    local_steps: int = 1
    """Of local gradient descent, IST and anchored IST (local gradient descent takes at least two)."""
    value_bits: int = 32
    """Bits of a plain number in a message, 32 or 64; the arithmetic is in double precision."""
    broadcast: str = "unicast"
    """How a message to all workers counts in totals: unicast (n messages) or multicast (one)."""
    x_axis: str = "bits"
    """Of the figure: rounds, bits (up and down per worker), bits_total, up, down, up_total, down_total, work,
    gradients."""

    def __post_init__(self) -> None:
        check_name("problem", self.problem, PROBLEMS)
        check_name("sketch", self.sketch, ("permutation",))
        if is_own(self.sketch) and self.scale != "free":
            raise InvalidInput("`scale` has no effect with a `sketch` of your own")
        check_choice("scale", self.scale, ("free", "unbiased"))
        check_choice("step", self.step, STEPS)
        check_choice("broadcast", self.broadcast, BROADCASTS)
        check_choice("x_axis", self.x_axis, AXES)
        check_choice("value_bits", str(self.value_bits), ("32", "64"))
        for name in ("workers", "dim", "rows", "rounds", "seeds", "period", "local_steps"):
            check_integer(name, getattr(self, name), at_least=1)
        check_number("target", self.target, above=0.0, below=1.0)
        check_number("ridge", self.ridge, at_least=0.0)
        most = 1.0 if self.problem != "gaussian" else None
        check_number("heterogeneity", self.heterogeneity, at_least=0.0, at_most=most)
        if self.keep is not None:
            check_number("keep", self.keep, above=0.0, at_most=1.0)
        if not self.methods:
            raise InvalidInput("`methods` must name at least one method, got none")
        if not self.step_factors:
            raise InvalidInput("`step_factors` must hold at least one number, got none")
        for factor in self.step_factors:
            check_number("step_factors", factor, above=0.0)


def build_problem(settings: Comparison) -> Problem:
    """Return the problem, with minibatches where they are asked for."""
    return build(settings)[0]


def build(settings: Comparison) -> tuple[Problem, Array]:
    """Return the problem, with minibatches where they are asked for, and x0 [d]: 0 unless the problem comes with one.

    Raises:
        InvalidInput: the settings do not fit the data, or the user's own problem cannot be built.
    """
    if is_own(settings.problem):
        problem, x0 = own_problem(settings.problem, settings.workers, settings.seed, settings.ridge)
    else:
        problem, x0 = _bundled(settings), None
    if settings.batch_size is not None:
        problem = Minibatch(problem, settings.batch_size)  # type: ignore[arg-type]
    return problem, build_start(settings, problem) if x0 is None else x0


def build_start(settings: Comparison, problem: Problem) -> Array:
    """Return x0: ones for random quadratics, 0 elsewhere."""
    return np.ones(problem.dim) if settings.problem == "random" else np.zeros(problem.dim)


def _bundled(settings: Comparison) -> Problem:
    n, seed = settings.workers, settings.seed
    if settings.problem == "random":
        return random_quadratic(n, settings.dim, settings.condition_number, settings.heterogeneity, seed)
    if settings.problem == "gaussian":
        samples = Samples.gaussian(n, settings.dim, settings.rows, seed, settings.heterogeneity)
        return LeastSquares(samples, settings.ridge)
    dataset = load_standardized(settings.data)
    features = np.asarray(dataset.features, dtype=np.float64)
    features = features[:, features.any(axis=0)]  # a constant feature is 0 once standardised, and no coordinate
    targets = np.asarray(dataset.targets, dtype=np.float64)
    if settings.problem == "logistic":
        if dataset.classes != 2:
            raise InvalidInput(f"`data` must have two classes for logistic, got {dataset.classes} in {settings.data}")
        targets = 2.0 * targets - 1.0
    else:
        targets = targets - targets.mean()
    samples = Samples.sorted_split(features, targets, n, 1.0 - settings.heterogeneity, seed)
    return LeastSquares(samples, settings.ridge) if settings.problem == "data" else Logistic(samples, settings.ridge)
