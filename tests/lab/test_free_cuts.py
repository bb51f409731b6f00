"""What can be cut for free: outputs of least squares, exactly; inputs and hidden units only where they do not meet."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from isthmus.errors import InvalidInput
from isthmus.lab import IST, Dealt, GradientDescent, Grouped, Permutation, Quadratic, simulate, theory
from isthmus.partitions import Block

SAMPLES, INPUTS, OUTPUTS, WORKERS = 20, 4, 6, 2
STEP = 0.05


def data(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    A = random.standard_normal((SAMPLES, INPUTS)) @ random.standard_normal((INPUTS, INPUTS))
    return A, random.standard_normal((SAMPLES, OUTPUTS))


def along(what: str) -> np.ndarray:
    inputs, outputs = np.divmod(np.arange(INPUTS * OUTPUTS), OUTPUTS)
    return outputs if what == "outputs" else inputs


def cut(law: Any, what: str) -> Grouped:
    return Grouped(Dealt(law, WORKERS, OUTPUTS if what == "outputs" else INPUTS, scale=1.0), along(what))


@pytest.mark.parametrize("law", ["fixed", "rotated", Block()])
@pytest.mark.parametrize("steps", [1, 3, math.inf])
def test_outputs_are_cut_for_free_whatever_the_law_and_the_local_steps(law: Any, steps: float) -> None:
    problem = Quadratic.multi_output(*data(), WORKERS)
    sketch = cut(law, "outputs")
    assert np.allclose(theory.lost(problem, sketch), 0, atol=1e-13)
    found = theory.fixed_point(problem, IST(sketch, STEP, steps))
    assert np.allclose(found, problem.minimizer, rtol=1e-10)
    A, Y = data()
    assert np.allclose(problem.minimizer.reshape(INPUTS, OUTPUTS), np.linalg.lstsq(A, Y, rcond=None)[0])


def test_a_round_on_outputs_is_a_step_of_gradient_descent_in_every_draw() -> None:
    """Not in the mean alone: the workers' columns have nothing to do with each other, so there is no variance."""
    problem, x0 = Quadratic.multi_output(*data(), WORKERS), np.arange(24.0)
    drawn = Grouped(Permutation(WORKERS, OUTPUTS, 1.0), along("outputs"))
    cut_run = simulate(problem, IST(drawn, WORKERS * STEP), x0, rounds=15, seeds=4)
    whole = simulate(problem, GradientDescent(STEP), x0, rounds=15, seeds=1)
    assert np.allclose(cut_run.gap, whole.gap[0], rtol=1e-9)


@pytest.mark.parametrize("what", ["inputs", "hidden"])
def test_inputs_and_hidden_units_are_not(what: str) -> None:
    """What is found is the minimiser of the problem without the correlations between the workers' inputs; hidden units
    of a layer that does not train are the inputs of the next one."""
    A, Y = data()
    A = A if what == "inputs" else np.maximum(A @ np.random.default_rng(5).standard_normal((INPUTS, INPUTS)), 0)
    problem, sketch = Quadratic.multi_output(A, Y, WORKERS, ridge=0.1), cut("fixed", "inputs")
    found = theory.fixed_point(problem, IST(sketch, STEP)).reshape(INPUTS, OUTPUTS)
    G, masks = A.T @ A / SAMPLES + 0.1 * np.eye(INPUTS), sketch.sketch.support().diagonals[0]
    apart = sum(np.outer(mask, mask) * G for mask in masks)
    assert np.allclose(found, np.linalg.solve(apart, A.T @ Y / SAMPLES))
    lost = theory.lost(problem, sketch).reshape(INPUTS, OUTPUTS)
    x = problem.minimizer.reshape(INPUTS, OUTPUTS)
    assert np.allclose(lost, (apart - G) @ x / WORKERS)
    assert np.linalg.norm(lost) > 0.05
    assert problem.gap(found.ravel()) > 0.01


def test_inputs_of_different_workers_that_are_not_correlated_are_free_too() -> None:
    A, Y = data()
    sketch = cut("fixed", "inputs")
    own = sketch.sketch.support().diagonals[0][0] > 0
    A = np.array(A)
    A[:, own] -= A[:, ~own] @ np.linalg.lstsq(A[:, ~own], A[:, own], rcond=None)[0]
    assert np.allclose(theory.lost(Quadratic.multi_output(A, Y, WORKERS), sketch), 0, atol=1e-13)


def test_with_shards_of_their_own_outputs_are_free_only_if_they_are_dealt_anew() -> None:
    """Re-dealt, the mean of a round is right though no draw is; fixed, every output is fit to one worker's samples."""
    A, Y = data()
    halves = [Quadratic.multi_output(A[part], Y[part], 1) for part in (slice(10), slice(10, 20))]
    problem = Quadratic(np.stack([each.L[0] for each in halves]), np.stack([each.b[0] for each in halves]))
    assert np.allclose(theory.lost(problem, cut("rotated", "outputs")), 0, atol=1e-13)
    fixed = cut("fixed", "outputs")
    assert np.linalg.norm(theory.lost(problem, fixed)) > 0.05
    found = theory.fixed_point(problem, IST(fixed, STEP)).reshape(INPUTS, OUTPUTS)
    for worker, mask in enumerate(fixed.sketch.support().diagonals[0] > 0):
        alone = halves[worker].minimizer.reshape(INPUTS, OUTPUTS)
        assert np.allclose(found[:, mask], alone[:, mask])


@pytest.mark.parametrize("groups", [[0, 6], [-1, 0], [[0], [1]], [0.5], []])
def test_groups_that_there_are_not_are_refused(groups: Any) -> None:
    with pytest.raises(InvalidInput, match=r"`groups` must be whole numbers 0\.\.5, one a coordinate"):
        Grouped(Permutation(2, 6), groups)
