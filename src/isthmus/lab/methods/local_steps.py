"""T gradient steps of every worker on its own sketched model, batched over seeds.

z^0 = C_i x,  z^{t+1} = z^t - gamma C_i (L_i z^t - b_i):  the iterate never leaves the worker's units.
"""

from __future__ import annotations

import math

import numpy as np

from isthmus.lab.arrays import Array
from isthmus.lab.definite import is_definite, null_space, solve
from isthmus.lab.quadratics import Quadratic
from isthmus.lab.sketches import Blocks

_LOOP_AT_MOST = 8
_GATHER_COST = 90  # measured: reading a scattered entry takes the time of about 90 entries of a matrix product
_SEEDS_OF_A_PRODUCT = 16
_MASKED = 20_000_000  # entries of masks held for all seeds and workers
_GATHERED = 1_000_000  # matrix entries held at a time for all seeds of a chunk
_TINY = 1e-300  # of gamma k, where its product with 1/k loses digits
_TOGETHER = 100_000  # matrix entries up to which gathering all workers' blocks at once is faster than one by one


def local_gains(curvature: Array, stepsize: float, steps: float) -> tuple[Array, Array]:
    """Return (decay, gain) of T steps along directions of the given curvatures.

    u^T = decay u^0 + gain v for u^{t+1} = (1 - gamma k) u^t + gamma v:  decay = (1 - gamma k)^T, gain = (1 - decay)/k,
    gamma T where k = 0. T = infinity is the limit: the local minimiser, staying put along flat directions.

    >>> local_gains(np.array([0.5, 0.0]), 1.0, 2)
    (array([0.25, 1.  ]), array([1.5, 2. ]))
    """
    k = np.asarray(curvature, dtype=np.float64)
    if math.isinf(steps):
        flat = k == 0.0
        contracts = np.abs(1.0 - stepsize * k) < 1.0
        decay = np.where(flat, 1.0, np.where(contracts, 0.0, np.inf))
        return decay, np.where(flat, 0.0, np.where(contracts, 1.0 / np.where(flat, 1.0, k), np.inf))
    flat = stepsize * k < _TINY
    safe = np.where(flat, 1.0, k)
    with np.errstate(over="ignore"):
        decay = (1.0 - stepsize * k) ** int(steps)
    # expm1/log1p keep (1 - decay)/k accurate for small gamma k, where 1 - decay cancels
    small = stepsize * safe < 0.5
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        precise = -np.expm1(steps * np.log1p(-stepsize * np.where(small, safe, 0.0))) / safe
    return decay, np.where(flat, stepsize * steps, np.where(small, precise, (1.0 - decay) / safe))


def local_map(matrix: Array, vector: Array, values: Array, stepsize: float, steps: float) -> tuple[Array, Array]:
    """Return (G, g) with z^T = G x_S + g on one block: matrix [..., q, q], vector [..., q], values C_S [..., q] > 0.

    With C^{1/2} L C^{1/2} = V Diag(k) V':  G = C^{1/2} V Diag((1-gamma k)^T) V' C^{1/2}, which is symmetric, and
    g = C^{1/2} V Diag((1-(1-gamma k)^T)/k) V' C^{1/2} b.
    """
    root = np.sqrt(values)
    weighted = root[..., :, None] * matrix * root[..., None, :]
    if math.isinf(steps):
        return _limit_map(weighted, vector, root, stepsize)
    curvature, vectors = np.linalg.eigh(weighted)
    decay, gain = local_gains(np.maximum(curvature, 0.0), stepsize, steps)
    scaled = root[..., :, None] * vectors
    transposed = np.swapaxes(scaled, -1, -2)
    with np.errstate(invalid="ignore", over="ignore"):
        G = (scaled * decay[..., None, :]) @ transposed
        g = (scaled @ (gain[..., None] * (transposed @ vector[..., None])))[..., 0]
    return G, g


def _limit_map(weighted: Array, vector: Array, root: Array, stepsize: float) -> tuple[Array, Array]:
    """T = infinity, block by block: the minimiser of each, and what lies along its flat directions stays."""
    G, g = np.zeros(weighted.shape), np.zeros(np.broadcast_shapes(vector.shape, root.shape))
    b, root = np.broadcast_to(vector, g.shape), np.broadcast_to(root, g.shape)
    for place in np.ndindex(weighted.shape[:-2]):
        block, r = weighted[place], root[place]
        if not stepsize * np.linalg.eigvalsh(block)[-1] < 2.0:
            G[place], g[place] = np.inf, np.inf
            continue
        g[place] = r * solve(block, r * b[place])
        if not is_definite(block):
            flat = null_space(block)
            G[place] = r[:, None] * (flat @ flat.T) * r
    return G, g


def run_local_steps(
    problem: Quadratic, blocks: Blocks, x: Array, stepsize: float, steps: float, vectors: Array | None = None
) -> tuple[Array, Array]:
    """Return (sum_i z_i^0, sum_i (z_i^T - z_i^0)), both [seeds, d], for the drawn ``blocks`` at ``x`` [seeds, d].

    ``vectors`` [seeds, d] stand for all workers' b_i where they are given.
    """
    if blocks.members is None:
        return _dense(problem, blocks.values, x, stepsize, steps, vectors)
    if blocks.members.shape[2] == 1:
        return _single_units(problem, blocks, x, stepsize, steps, vectors)
    if _whole_is_faster(problem, blocks, steps):
        values = np.zeros((len(x), problem.workers, problem.dim + 1))
        np.put_along_axis(values, blocks.members, blocks.values, axis=2)
        return _dense(problem, values[:, :, : problem.dim], x, stepsize, steps, vectors)
    if steps <= _LOOP_AT_MOST and blocks.members.size * blocks.members.shape[2] <= _TOGETHER:
        return _all_blocks(problem, blocks, x, stepsize, int(steps), vectors)
    return _by_blocks(problem, blocks, x, stepsize, steps, vectors)


def _whole_is_faster(problem: Quadratic, blocks: Blocks, steps: float) -> bool:
    """Whether masked products with the whole L_i beat gathering blocks: few workers, many seeds, few steps."""
    assert blocks.members is not None
    seeds, n, q = blocks.members.shape
    fits = seeds >= _SEEDS_OF_A_PRODUCT and steps <= _LOOP_AT_MOST and seeds * n * problem.dim <= _MASKED
    return fits and _GATHER_COST * q**2 > steps * problem.dim**2


def _dense(
    problem: Quadratic, values: Array, x: Array, stepsize: float, steps: float, vectors: Array | None
) -> tuple[Array, Array]:
    start, change = np.zeros_like(x), np.zeros_like(x)
    for worker in range(problem.workers):
        c, b = values[:, worker], problem.b[worker] if vectors is None else vectors
        z0 = c * x
        if steps <= _LOOP_AT_MOST:
            z = z0
            for _ in range(int(steps)):
                z = z - stepsize * c * (z @ problem.L[worker] - b)
        else:
            G, g = local_map(problem.L[worker], np.broadcast_to(b, c.shape), c, stepsize, steps)
            z = (G @ x[..., None])[..., 0] + g
        start += z0
        change += z - z0
    return start, change


def _single_units(
    problem: Quadratic, blocks: Blocks, x: Array, stepsize: float, steps: float, vectors: Array | None
) -> tuple[Array, Array]:
    assert blocks.members is not None
    seeds, d = x.shape
    units = blocks.members[:, :, 0]
    c = blocks.values[:, :, 0]
    workers = np.arange(problem.workers)
    z0 = c * np.take_along_axis(x, units, axis=1)
    b = problem.b[workers, units] if vectors is None else np.take_along_axis(vectors, units, axis=1)
    if steps == 1:
        moved = -stepsize * c * (problem.diagonals[workers, units] * z0 - b)
    else:
        decay, gain = local_gains(c * problem.diagonals[workers, units], stepsize, steps)
        moved = (decay - 1.0) * z0 + gain * c * b
    places = (units + d * np.arange(seeds)[:, None]).ravel()
    start, change = (
        np.asarray(np.bincount(places, weights=w.ravel(), minlength=seeds * d), dtype=np.float64).reshape(seeds, d)
        for w in (z0, moved)
    )
    return start, change


def _all_blocks(
    problem: Quadratic, blocks: Blocks, x: Array, stepsize: float, steps: int, vectors: Array | None
) -> tuple[Array, Array]:
    assert blocks.members is not None
    seeds, d = x.shape
    c, rows = blocks.values, np.arange(seeds)[:, None, None]
    units = np.minimum(blocks.members, d - 1)  # an unused place has value 0, whatever it reads
    workers = np.arange(problem.workers)[:, None]
    b = problem.b[workers, units] if vectors is None else vectors[rows, units]
    sub = problem.L[workers[:, :, None], units[:, :, :, None], units[:, :, None, :]]
    z0 = c * x[rows, units]
    z = z0
    for _ in range(steps):
        z = z - stepsize * c * ((sub @ z[..., None])[..., 0] - b)
    places = (blocks.members + (d + 1) * rows).ravel()
    start, change = (
        np.bincount(places, weights=w.ravel(), minlength=seeds * (d + 1)).reshape(seeds, d + 1)[:, :d]
        for w in (z0, z - z0)
    )
    return np.asarray(start, dtype=np.float64), np.asarray(change, dtype=np.float64)


def _by_blocks(
    problem: Quadratic, blocks: Blocks, x: Array, stepsize: float, steps: float, vectors: Array | None
) -> tuple[Array, Array]:
    assert blocks.members is not None
    seeds, d = x.shape
    q = blocks.members.shape[2]
    chunk = max(1, _GATHERED // q**2)
    if seeds > chunk:
        parts = [
            _by_blocks(
                problem,
                Blocks(blocks.members[some], blocks.values[some]),
                x[some],
                stepsize,
                steps,
                None if vectors is None else vectors[some],
            )
            for some in (slice(first, first + chunk) for first in range(0, seeds, chunk))
        ]
        starts, changes = zip(*parts, strict=True)
        return np.concatenate(starts), np.concatenate(changes)
    start, change = np.zeros((seeds, d + 1)), np.zeros((seeds, d + 1))
    rows = np.arange(seeds)[:, None]
    places, sub = np.empty((seeds, q, q), dtype=np.int64), np.empty((seeds, q, q))  # reused: fresh pages cost more
    for worker in range(problem.workers):
        target = blocks.members[:, worker]
        units = np.minimum(target, d - 1)  # an unused place has value 0, whatever it reads
        b = problem.b[worker, units] if vectors is None else np.take_along_axis(vectors, units, axis=1)
        c = blocks.values[:, worker]
        np.add(units[:, :, None] * d, units[:, None, :], out=places)
        np.take(problem.L[worker].ravel(), places, out=sub, mode="clip")  # clip: without a copy; all are in range
        z0 = c * np.take_along_axis(x, units, axis=1)
        if steps <= _LOOP_AT_MOST:
            z = z0
            for _ in range(int(steps)):
                z = z - stepsize * c * ((sub @ z[:, :, None])[:, :, 0] - b)
        else:
            G, g = local_map(sub, b, c, stepsize, steps)
            z = (G @ np.take_along_axis(x, units, axis=1)[:, :, None])[:, :, 0] + g
        start[rows, target] += z0  # a worker's units are different, so the sum loses nothing
        change[rows, target] += z - z0
    return start[:, :d], change[:, :d]
