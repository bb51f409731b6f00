"""Five methods to one target: who reaches the minimum, at what cost, and what theory says of each.

Methods with compressed gradients send less in a round and still reach the minimum. IST sends as little and holds less,
but stops above it; anchored IST does not. This page counts what each takes: rounds, bits, numbers held.
"""

# %%
# Least squares on samples that differ from worker to worker. `Setting` is what theorems start from: the problem, its
# constants, where we start, and for how long.

import matplotlib.pyplot as plt
import numpy as np

from isthmus.lab import Budget, LeastSquares, PermK, Permutation, RandK, Samples, judge, measure, rates
from isthmus.lab.methods import DIANA, IST, MARINA, AnchoredIST, GradientDescent

problem = LeastSquares(Samples.gaussian(workers=4, dim=16, rows=40, seed=0, heterogeneity=0.5))
setting = rates.Setting(problem, np.zeros(16), rounds=600)
print(f"L = {setting.constants.L:.2f}, L/mu = {setting.constants.condition_number:.1f}")

# %%
# Every method gets the largest step that its own theorem admits (IST half the step below which every round contracts).
# Rand-K and Perm-K send a quarter of the coordinates.

methods = {
    "gradient descent": GradientDescent(1.0),
    "DIANA, Rand-K": DIANA(RandK(16, 4), 1.0),
    "MARINA, Perm-K": MARINA(PermK(4, 16), 1.0, 0.25),
    "IST": IST(Permutation(4, 16), 1.0),
    "anchored IST": AnchoredIST(Permutation(4, 16, scale=2.0), 1.0, 5),
}
methods = {name: rates.with_default_stepsize(method, setting) for name, method in methods.items()}
for name, method in methods.items():
    print(f"{name:<16} step {method.stepsize:.4f}")

# %%
# A run of each, until the gap is a millionth of its start. Bits are those of the messages, up and down, of one worker.

budget = Budget(rounds=600, seeds=8, target=1e-6 * setting.gap, value_bits=32)
measured = {}
for name, method in methods.items():
    wanted = {bound.measure for bound in rates.bounds(method, setting)}
    measured[name] = measure(problem, method, setting.x0, budget, wanted | {"gap"})
print(f"{'':<16} {'rounds':>6} {'bits':>7} {'held':>5} {'ends at':>8}")
for name, one in measured.items():
    table = one.to_frame()
    reached = table.index[table["gap"] <= budget.target]
    cost = f"{reached[0]:>6} {table['bits'][reached[0]]:>7.0f}" if len(reached) else f"{'-':>6} {'-':>7}"
    print(f"{name:<16} {cost} {one.ledger.memory:>5.0f} {table['gap'].iloc[-1] / setting.gap:>8.1e}")

# %%
# Sending less in a round is no gain in itself: this problem is so well conditioned that gradient descent needs few
# rounds and sends the least of all. What anchored IST saves is memory. Over bits, IST's line is flat at its bias.

figure, axes = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
for name, one in measured.items():
    table = one.to_frame()
    axes.semilogy(table["bits"] / 1000, table["gap"] / setting.gap, label=name)
axes.set(xlabel="kilobits up and down, one worker", ylabel="gap, relative to the start", xlim=(0, 60), ylim=(5e-7, 2))
axes.legend()
plt.show()

# %%
# What theory says of each, beside what happened: measured/bound is at most 1 where an upper bound holds, at least 1 for
# a lower one, and 1 for an exact course, each up to the chance of eight runs.

for name, method in methods.items():
    for bound in rates.bounds(method, setting):
        verdict = judge(bound, measured[name])
        said = {True: "holds", False: "broken", None: "does not apply"}[verdict.holds]
        print(f"{name:<16} {verdict.bound:<32} {verdict.kind:<5} {verdict.ratio:8.3f}  {said}")
