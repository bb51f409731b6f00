"""Rules that give a step size."""

from __future__ import annotations

import numpy as np
from scipy import linalg

from isthmus.lab.quadratics import Quadratic
from isthmus.lab.sketches import Sketch, as_sketch
from isthmus.lab.theory.theorem1 import expected_matrix


def contraction_limit(problem: Quadratic, sketch: Sketch) -> float:
    """Return a step size below which every realisation of I - gamma B contracts: 2 over a bound of the norm of B.

    Disjoint masks: |B| <= (1/n) max_i max(w_i)^2 lambda_max(L_i) (diagonal entries where a worker holds one unit);
    masks that overlap: the mean over i in place of the maximum over n. A sketch known by its samples only:
    2/lambda_max(E[B]), under which the mean converges.

    >>> from isthmus.lab import Permutation
    >>> contraction_limit(Quadratic([[[2.0, 1.0], [1.0, 2.0]]] * 2, [[0.0, 0.0]] * 2), Permutation(2, 2))
    0.5
    """
    sketch = as_sketch(sketch)
    masks = sketch.masks
    if masks is None:
        return 2.0 / float(linalg.eigvalsh(expected_matrix(problem, sketch))[-1])
    norms = [
        float(np.max(sketch.worker_weights(i))) ** 2 * norm for i, norm in enumerate(_norms(problem, masks.single_unit))
    ]
    disjoint = masks.between is not None and masks.shared == 0.0
    bound = max(norms) / problem.workers if disjoint else float(np.mean(norms))
    return 2.0 / bound if bound > 0 else np.inf


def local_limit(problem: Quadratic, sketch: Sketch) -> float:
    """Return a step size below which every worker's local steps converge: 2/max_i max(w_i) lambda_max(L_i).

    >>> from isthmus.lab import Permutation
    >>> local_limit(Quadratic([[[2.0, 1.0], [1.0, 2.0]]] * 2, [[0.0, 0.0]] * 2), Permutation(2, 2))
    0.5
    """
    sketch = as_sketch(sketch)
    single = sketch.masks is not None and sketch.masks.single_unit
    steepest = max(
        float(np.max(sketch.worker_weights(i))) * norm for i, norm in enumerate(_norms(problem, single))
    )
    return 2.0 / steepest if steepest > 0 else np.inf


def _norms(problem: Quadratic, diagonal: bool) -> list[float]:
    """lambda_max of every L_i, or of its largest 1 x 1 block."""
    if diagonal:
        return [float(value) for value in problem.diagonals.max(axis=1)]
    last = problem.dim - 1
    norms = [
        float(linalg.eigvalsh(matrix, subset_by_index=[last, last])[0])
        for matrix in (problem.L[:1] if problem.homogeneous_matrices else problem.L)
    ]
    return norms * problem.workers if problem.homogeneous_matrices else norms
