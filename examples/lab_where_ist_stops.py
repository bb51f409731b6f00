"""Where IST stops, and what the step size has to do with it.

On a quadratic everything that Independent Subnetwork Training does on average can be worked out exactly. This page asks
three questions of one small problem: where does the method stop, how does it get there, and which step is best?
"""

# %%
# Four workers share eight coordinates. Each has a quadratic of its own, and what we want is the minimum of their mean.
# In a round the coordinates are dealt at random: every worker takes a gradient step on its two, seeing zeros elsewhere.

import matplotlib.pyplot as plt
import numpy as np

from isthmus.lab import IST, Permutation, Quadratic, simulate, theory

problem = Quadratic.gaussian(workers=4, dim=8, seed=0)
sketch = Permutation(workers=4, dim=8)
steps = theory.stable_stepsizes(problem, IST(sketch, 1.0))
print(f"steps that are stable in mean square: below {steps.largest:.4f} ({steps.how})")

# %%
# **Where does it stop?** A worker that sees two of eight coordinates ignores how they interact with the six others. So
# the mean of the iterates goes to a point of its own, not to the minimum, whatever the step.

method = IST(sketch, 0.3 * steps.largest)
x0 = np.ones(8)
stops = theory.fixed_point(problem, method)
print(f"f(x0) - f* = {problem.gap(x0):.2f}, at the point where the mean stops {problem.gap(stops):.4f}")
print(f"that is {100 * theory.relative_gap(problem, stops, x0):.2g} % of the start, and it stays")

# %%
# **How does it get there?** The expected gap is the gap of the mean (bias) plus what chance adds (variance). Both are
# exact; `to_frame()` makes a pandas table of them.

exact = theory.dynamics(problem, method, x0, rounds=200)
print(exact.to_frame().iloc[[0, 1, 5, 20, 100, 200]].round(3))

# %%
# The simulation agrees with it. Its band is where the mean of 30 runs lies with 95 % confidence.

run = simulate(problem, method, x0, rounds=40, seeds=30)
rounds = np.arange(41)
half = 1.96 * run.standard_error
figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
axes.fill_between(rounds, run.mean_gap - half, run.mean_gap + half, alpha=0.3, label="simulated, 30 runs")
axes.semilogy(rounds, exact.gap[:41], label="exact expected gap")
axes.semilogy(rounds, exact.bias[:41], "--", label="bias: gap of the mean")
axes.set(xlabel="round", ylabel="f - f*", title="IST comes down quickly, and stops")
axes.legend()
plt.show()

# %%
# **Which step is best?** The bias does not depend on the step. The variance does, and near the largest stable step it
# grows without bound. A tenth of that step loses little to chance; a smaller one only takes longer.

shares = np.array([0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.95])
settled = [theory.stationary(problem, IST(sketch, share * steps.largest)) for share in shares]
for share, law in zip(shares, settled, strict=True):
    gap = f"{law.gap:.4f} = bias {law.bias:.4f} + variance {law.variance:.4f}"
    print(f"{share:4g} of the largest step: final gap {gap}, radius {law.radius:.3f}")

# %%
# The radius is the factor by which, in the long run, what is left of the start shrinks in a round: the price of a small
# step, and of one that is too large.

figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
axes.semilogy(shares, [law.bias for law in settled], "o-", label="bias")
axes.semilogy(shares, [law.variance for law in settled], "s-", label="variance")
axes.set(xlabel="share of the largest stable step", ylabel="part of the final gap")
axes.set_title("What the final gap is made of")
axes.legend()
plt.show()
