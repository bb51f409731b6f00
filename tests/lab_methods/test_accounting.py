"""The accounting: known totals, drawn beside expected, both broadcasts, and what makes IST's columns differ."""

import math

import numpy as np
import pytest

from cases.methods import BUILDERS, build
from isthmus.errors import InvalidInput
from isthmus.lab import IST, GradientDescent, Permutation
from isthmus.lab.accounting import Message, index_bits
from isthmus.lab.compressors import PermK, RandK, TopK
from isthmus.lab.measure import Budget, count, measure
from isthmus.lab.methods import DCGD, DIANA, EF21, MARINA, AnchoredIST, Draws, LocalGradientDescent, ProxSkip
from isthmus.lab.problems import LeastSquares, Minibatch, Samples, random_quadratic

N, D = 4, 12
PROBLEM = random_quadratic(N, D, 10.0, 1.0, seed=1)


def totals(method, problem=PROBLEM, rounds=10, **run):
    return count(problem, method, rounds, Budget(rounds, 3, value_bits=32, **run)).at(0, rounds)


def test_known_totals():
    gd = totals(GradientDescent(0.1))
    assert gd["up"] == gd["down"] == 10 * D * 32
    assert gd["work"] == 10 * 2 * D * D
    ist = totals(IST(Permutation(N, D), 0.1))
    assert ist["up"] == 10 * (D // N) * 32
    assert ist["down"] == ist["up"] + 64
    assert ist["work"] == 10 * 2 * (D // N) ** 2
    assert ist["memory"] == 2 * D / N
    indexed = totals(DCGD(RandK(D, 2, shared_seed=False), 0.1))
    assert indexed["up"] == 10 * 2 * (32 + 4)
    assert indexed["up_without_indices"] == 10 * 2 * 32
    top = totals(EF21(TopK(D, 2), 0.1))
    assert top["up"] == D * 32 + 10 * (2 * 32 + 2 * 4)
    local = totals(LocalGradientDescent(0.1, 5))
    assert (local["gradients"], local["up"]) == (50, 10 * D * 32)
    anchored = totals(AnchoredIST(Permutation(N, D), 0.1, 5))
    assert anchored["up"] == 10 * (D // N) * 32 + 3 * D * 32
    assert anchored["gradients"] == pytest.approx(3 + 10 / N**2)
    assert anchored["memory"] == min(2 * D, 2 * D / N + D)


def test_per_round_over_all_workers():
    """GD n d up and n d down, DCGD with Perm-K d up and n d down, IST d up and d down."""
    numbers = 10 * D * 32
    for method, up, down in (
        (GradientDescent(0.1), N, N),
        (DCGD(PermK(N, D), 0.1), 1, N),
        (IST(Permutation(N, D), 0.1), 1, 1),
    ):
        found = totals(method)
        assert found["up_total"] == up * numbers
        assert found["down_total"] == pytest.approx(down * numbers, abs=64 * N)


def test_a_broadcast_is_one_message_by_multicast():
    unicast, multicast = totals(GradientDescent(0.1)), totals(GradientDescent(0.1), broadcast="multicast")
    assert unicast["down_total"] == N * multicast["down_total"]
    sketched = [totals(IST(Permutation(N, D), 0.1), broadcast=way)["down_total"] for way in ("unicast", "multicast")]
    assert sketched[0] - sketched[1] == 64 * (N - 1)  # only the seed is one message for all


@pytest.mark.parametrize("name", BUILDERS)
def test_expected_cost_is_the_mean_of_the_drawn_ones(name):
    method = build(name, PROBLEM, np.ones(D))
    expected = method.cost(PROBLEM)
    seeds, rounds = 400, 60  # a whole number of periods
    drawn = [method.cost(PROBLEM, Draws(0, k, seeds)) for k in range(1, rounds + 1)]
    for pick in (lambda c: c.up.bits, lambda c: c.down.bits, lambda c: c.work, lambda c: c.gradients):
        values = np.stack([np.broadcast_to(np.asarray(pick(cost), float), (seeds,)) for cost in drawn])
        error = 5 * values.std() / math.sqrt(values.size) if not np.allclose(values, values[:, :1]) else 1e-9
        assert abs(values.mean() - pick(expected)) <= error + 1e-9 * abs(pick(expected))


@pytest.mark.parametrize(
    "method", [MARINA(PermK(N, D), 0.02, 0.3), ProxSkip(0.05, 0.3), AnchoredIST(Permutation(N, D), 0.02, 0.3)]
)
def test_drawn_costs_follow_the_coins_of_the_run(method):
    """A round costs more exactly where the state says that the coin fell."""
    state = method.init(PROBLEM, np.ones((50, D)))
    for k in range(1, 8):
        draws = Draws(3, k, 50)
        after = method.step(PROBLEM, state, draws)
        if isinstance(method, ProxSkip):
            fell = np.ptp(after.models, axis=1).max(axis=1) < 1e-14
        elif isinstance(method, MARINA):
            fell = np.abs(after.estimate - PROBLEM.gradient(after.x)).max(axis=1) < 1e-13
        else:
            fell = (after.anchor == after.x).all(axis=1)
        up = np.asarray(method.cost(PROBLEM, draws).up.bits)
        np.testing.assert_array_equal(up == up.max(), fell)
        state = after


def test_proxskip_costs_a_gradient_a_round_and_two_models_by_chance():
    cost = ProxSkip(0.05, 0.25).cost(PROBLEM, value_bits=32)
    assert (cost.up.bits, cost.down.bits, cost.same_for_all) == (0.25 * 32 * D, 0.25 * 32 * D, True)
    assert (cost.work, cost.gradients, cost.memory) == (2 * D * D, 1.0, 3 * D)
    start = ProxSkip(0.05, 0.25).start_cost(PROBLEM, value_bits=32)
    assert (start.up.bits, start.down.values, start.down.extras, start.same_for_all) == (0.0, 32 * D, 64.0, True)
    assert (start.work, start.gradients, start.memory) == (0.0, 0.0, 0.0)


def test_samples_and_minibatches_count_their_own_work():
    problem = LeastSquares(Samples.gaussian(N, 40, 5, seed=0))
    assert GradientDescent(0.1).cost(problem).work == 2 * 5 * 80  # cheaper through 5 samples than through the matrix
    stochastic = Minibatch(problem, 2)
    cost = DIANA(RandK(40, 4), 0.1).cost(stochastic)
    assert (cost.work, cost.gradients) == (2 * 2 * 80, 0.4)
    marina = MARINA(RandK(40, 4), 0.1, 0.25).cost(stochastic)
    assert marina.gradients == pytest.approx(0.75 * 2 * 0.4 + 0.25)
    streamed = AnchoredIST(Permutation(N, 40), 0.1, 5).cost(problem)
    assert streamed.memory == 2 * 10 + 5  # the anchor streams: its predictions on 5 samples are all that must be held


def test_stopping_early_counts_what_was_done():
    x0 = np.ones(D)
    gap = float(PROBLEM.gap(x0))
    measured = measure(PROBLEM, GradientDescent(0.1), x0, Budget(500, 2, target=1e-3 * gap), {"gap"})
    rounds = measured.simulation.gap.shape[1] - 1
    assert 0 < rounds < 500
    assert measured.simulation.gap[:, -1].max() <= 1e-3 * gap < measured.simulation.gap[:, -2].max()
    assert measured.ledger.at(0, rounds)["up"] == rounds * D * 64


def test_messages_add_up():
    both = Message(3.0, 2.0, 1.0) + Message(1.0) * 2
    assert (both.bits, both.without_indices) == (8.0, 6.0)
    assert [index_bits(d) for d in (1, 2, 3, 1024, 1025)] == [0, 1, 2, 10, 11]
    with pytest.raises(InvalidInput, match="`broadcast` must be one of unicast, multicast"):
        totals(GradientDescent(0.1), broadcast="shout")
