"""A problem, a sketch and a method of your own.

The lab's theory does not know its sketches by name. Say which outcomes yours has, and everything is exact for it too;
say only how to draw one, and it is estimated, with its error.
"""

# %%
# **A problem** is matrices L [n, d, d] and vectors b [n, d]. Saved as a file it is a problem for the commands too:
# `isthmus analyze --problem mine.npz`, `isthmus compare --problem mine.npz`.

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import numpy as np

from isthmus.lab import IST, Permutation, Quadratic, Sketch, simulate, theory
from isthmus.lab.own import own_problem
from isthmus.lab.sketches.law import Support

random = np.random.default_rng(0)
A = random.standard_normal((3, 12, 6)) + random.standard_normal((12, 6))  # three workers that have much in common
L, b = A.transpose(0, 2, 1) @ A / 12, random.standard_normal((3, 6))
with TemporaryDirectory() as folder:
    np.savez(Path(folder) / "mine.npz", L=L, b=b)
    problem, start = own_problem(str(Path(folder) / "mine.npz"), workers=3)
assert isinstance(problem, Quadratic)
print(f"{problem.workers} workers, {problem.dim} coordinates, minimum {problem.optimal_value:.4f}")

# %%
# **A sketch** is the joint law of the workers' diagonals. Here every worker holds a window of `width` neighbouring
# coordinates on a ring, the windows equally far apart, turned by a random angle. `support` lists the outcomes.


@dataclass(frozen=True)
class Windows(Sketch):
    """Windows on a ring, turned at random."""

    workers: int
    dim: int
    width: int

    def at(self, turn: int) -> np.ndarray:
        """The diagonals [n, d] at one angle, scaled so that each is the identity on average."""
        starts = turn + np.arange(self.workers) * self.dim // self.workers
        held = (np.arange(self.dim) - starts[:, None]) % self.dim < self.width
        return held * (self.dim / self.width)

    def sample(self, random: np.random.Generator) -> np.ndarray:
        """Draw one outcome."""
        return self.at(int(random.integers(self.dim)))

    def support(self, limit: int = 100_000) -> Support:
        """All outcomes, equally likely."""
        return Support(np.full(self.dim, 1 / self.dim), np.stack([self.at(turn) for turn in range(self.dim)]))


windows = Windows(workers=3, dim=6, width=2)
print(f"unbiased: {windows.unbiased}")

# %%
# With `support` the course is exact, by going through all outcomes, and so are the stable steps and the fixed point.
# Neighbours that are held together are seen together, so here the windows' bias is not that of random blocks.

x0 = np.ones(6)
for name, sketch in (("windows", windows), ("random blocks", Permutation(3, 6))):
    method = IST(sketch, 0.3 * theory.contraction_limit(problem, Permutation(3, 6)))
    course = theory.dynamics(problem, method, x0, rounds=100)
    left = theory.relative_gap(problem, theory.fixed_point(problem, method), x0)
    print(f"{name:<14} {course.method} by {course.how}: gap {course.gap[-1]:.4f}, of it bias {course.bias[-1]:.4f}")
    print(f"{'':<14} the fixed point keeps {100 * left:.1f} % of the initial gap")

# %%
# **Only drawn.** A sketch known by its `sample` alone is simulated, and the result says so.


class Drawn:
    """The same law, but nobody is told which outcomes there are."""

    def sample(self, random: np.random.Generator) -> np.ndarray:
        """Draw one outcome."""
        return windows.sample(random)


method = IST(windows, 0.3 * theory.contraction_limit(problem, Permutation(3, 6)))
exact = theory.dynamics(problem, method, x0, rounds=100)
drawn = theory.dynamics(problem, replace(method, sketch=Drawn()), x0, rounds=100, seeds=200)
print(f"{drawn.method}, {drawn.how}: {drawn.gap[-1]:.4f} +- {1.96 * drawn.gap_error[-1]:.4f}")
print(f"exact: {exact.gap[-1]:.4f}")

# %%
# **A method** is two pure functions over a batch of seeds, `init` and `step`. This one averages what IST goes through,
# which takes away the variance and leaves the bias; slowly, since the first iterates stay in the mean. In a file
# `mine.py`, with `def build(problem): return Polyak(...)`, it is a method for the command: `isthmus analyze --method
# mine:build`. With `cost` and `start_cost`, which say what a round sends, it is one for `isthmus compare` too.


@dataclass(frozen=True)
class Mean:
    """The iterate of IST and the mean of all of them so far."""

    x: np.ndarray
    inner: object
    rounds: int


@dataclass(frozen=True)
class Polyak:
    """IST whose answer is the mean of its iterates."""

    inner: IST
    stepsize: float = 1.0

    def init(self, problem: Quadratic, x0: np.ndarray) -> Mean:
        """Start at x0 [seeds, d]."""
        return Mean(x0, self.inner.init(problem, x0), 1)

    def step(self, problem: Quadratic, state: Mean, draws: object) -> Mean:
        """One round of IST, and its share in the mean."""
        inner = self.inner.step(problem, state.inner, draws)
        return Mean(state.x + (inner.x - state.x) / (state.rounds + 1), inner, state.rounds + 1)


figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
for name, one in (("IST", method), ("mean of IST's iterates", Polyak(method))):
    run = simulate(problem, one, x0, rounds=300, seeds=60)
    axes.semilogy(run.mean_gap, label=name)
    print(f"{name:<23} after 300 rounds {run.mean_gap[-1]:.4f}")
left = problem.gap(theory.fixed_point(problem, method))
axes.axhline(left, color="0.4", linestyle=":", label="the fixed point's gap")
print(f"the fixed point's gap   {left:22.4f}")
axes.set(xlabel="round", ylabel="f - f*", title="Averaging removes the variance, not the bias")
axes.legend()
plt.show()
