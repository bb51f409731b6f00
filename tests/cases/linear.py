"""Linear methods round by round as their papers print them, one state at a time, and every outcome of their draws."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from isthmus.lab import Quadratic
from isthmus.lab.arrays import Array
from isthmus.lab.compressors import Compressor, IdentityCompressor, Participation, PermK, RandK, Scaled

SIZES = [(3, 2), (4, 2), (4, 4), (6, 3)]  # (d, n)
Outcome = tuple[float, Array]  # probability, multipliers [n, d]


def outcomes(compressor: Compressor, workers: int) -> list[Outcome]:
    """Every outcome of C_1, ..., C_n as multipliers, from the definitions."""
    d = compressor.dim
    if isinstance(compressor, IdentityCompressor):
        return [(1.0, np.ones((workers, d)))]
    if isinstance(compressor, PermK):
        deals = [np.array(owners) for owners in itertools.product(range(workers), repeat=d)]
        even = [owners for owners in deals if np.ptp(np.bincount(owners, minlength=workers)) <= 1]
        return [(1.0 / len(even), workers * np.stack([owners == i for i in range(workers)])) for owners in even]
    if isinstance(compressor, Scaled):
        return [(p, compressor.alpha * c) for p, c in outcomes(compressor.compressor, workers)]
    if isinstance(compressor, Participation):
        p = compressor.probability
        return [
            (chance * np.prod([p if here else 1 - p for here in who]), c * np.array(who)[:, None] / p)
            for chance, c in outcomes(compressor.compressor, workers)
            for who in itertools.product((0.0, 1.0), repeat=workers)
        ]
    assert isinstance(compressor, RandK)
    rows = []
    for kept in itertools.combinations(range(d), compressor.size):
        row = np.zeros(d)
        row[list(kept)] = d / compressor.size
        rows.append(row)
    every = itertools.product(rows, repeat=workers)
    return [(1.0 / len(rows) ** workers, np.stack(chosen)) for chosen in every]


def gradients(p: Quadratic, x: Array) -> Array:
    return np.stack([L @ x - b for L, b in zip(p.L, p.b, strict=True)])


def flat(*parts: Array) -> Array:
    """[..., N] of arrays [..., d] or [..., n, d], the first axes the outcomes'."""
    many = max((part.shape[0] for part in parts if part.ndim > 1), default=1)
    return np.concatenate([np.broadcast_to(part, (many, *part.shape[-2:])).reshape(many, -1) if part.ndim == 3
                           else np.broadcast_to(part, (many, part.shape[-1])) for part in parts], axis=1)  # fmt: skip


# One round from the state z [N] for the multipliers c [P, n, d] of every outcome, [P, N].
def dcgd(p: Quadratic, m: Any, z: Array, c: Array, heads: bool) -> Array:
    return z - m.stepsize * np.mean(c * gradients(p, z), axis=1)


def diana(p: Quadratic, m: Any, z: Array, c: Array, heads: bool) -> Array:
    x, h = z[: p.dim], z[p.dim :].reshape(p.workers, p.dim)
    sent = c * (gradients(p, x) - h)
    return flat(x - m.stepsize * np.mean(h + sent, axis=1), h + m.shift_rate * sent)


def marina(p: Quadratic, m: Any, z: Array, c: Array, heads: bool) -> Array:
    x, G = z[: p.dim], z[p.dim :]
    y = x - m.stepsize * G
    if heads:
        return flat(y, np.tile(p.mean_matrix @ y - p.mean_vector, (len(c), 1)))
    return flat(y, G + np.mean(c * (gradients(p, y) - gradients(p, x)), axis=1))


def ef21(p: Quadratic, m: Any, z: Array, c: Array, heads: bool) -> Array:
    x, G = z[: p.dim], z[p.dim :].reshape(p.workers, p.dim)
    y = x - m.stepsize * G.mean(axis=0)
    return flat(y, G + c * (gradients(p, y) - G))


def gdci(p: Quadratic, m: Any, z: Array, c: Array, heads: bool) -> Array:
    x = c[:, 0] * z
    return x - m.stepsize * (x @ p.mean_matrix - p.mean_vector)


def distributed_gdci(p: Quadratic, m: Any, z: Array, c: Array, heads: bool) -> Array:
    return (1 - m.mixing) * z + m.mixing * np.mean(c * (z - m.stepsize * gradients(p, z)), axis=1)


def proxskip(p: Quadratic, m: Any, z: Array, c: Array, heads: bool) -> Array:
    x, h = z.reshape(2, p.workers, p.dim)
    h = h - h.mean(axis=0)  # always 0
    local = np.stack([x[i] - m.stepsize * (p.L[i] @ x[i] - p.b[i] - h[i]) for i in range(p.workers)])
    met = np.tile(local.mean(axis=0), (p.workers, 1)) if heads else local
    return flat(met[None], (h + m.probability / m.stepsize * (met - local))[None])


def local_gd(p: Quadratic, m: Any, z: Array, c: Array, heads: bool) -> Array:
    models = np.tile(z, (p.workers, 1))
    for i in range(p.workers):
        for _ in range(m.local_steps):
            models[i] = models[i] - m.stepsize * (p.L[i] @ models[i] - p.b[i])
    return np.mean(c * models, axis=1)


def block_descent(p: Quadratic, m: Any, z: Array, c: Array, heads: bool) -> Array:
    return z - m.stepsize * c[:, 0] * (p.mean_matrix @ z - p.mean_vector)


Round = Callable[[Quadratic, Any, Array, Array, bool], Array]


def starts(p: Quadratic, method: Any, x0: Array) -> Array:
    """The state of x0, as the paper starts it."""
    kind = type(method).__name__
    zeros = np.zeros(p.workers * p.dim)
    at = gradients(p, x0)
    more = {"DIANA": zeros, "MARINA": at.mean(axis=0), "EF21": at.ravel()}
    if kind == "ProxSkip":
        return np.concatenate([np.tile(x0, p.workers), zeros])
    return np.concatenate([x0, more.get(kind, np.zeros(0))])


class Enumerated:
    """E[(z, 1)(z, 1)'] by going through every outcome and both sides of the coin."""

    def __init__(self, p: Quadratic, method: Any, round_: Round, drawn: list[Outcome]) -> None:
        self.problem, size = p, len(starts(p, method, p.minimizer))
        share, c = np.array([one for one, _ in drawn]), np.stack([one for _, one in drawn])
        chance = getattr(method, "probability", 0.0)
        p_, J, j = [], [], []
        for side, heads in ((chance, True), (1.0 - chance, False)):
            constant = round_(p, method, np.zeros(size), c, heads)
            p_.append(side * share)
            J.append(np.stack([round_(p, method, e, c, heads) - constant for e in np.eye(size)], axis=2))
            j.append(constant)
        self.p, self.J, self.j = np.concatenate(p_), np.concatenate(J), np.concatenate(j)
        each = p.workers if type(method).__name__ == "ProxSkip" else 1
        readout = np.tile(np.eye(p.dim), (1, each)) / each
        self.readout = np.concatenate([readout, np.zeros((p.dim, size - readout.shape[1]))], axis=1)

    def gaps(self, start: Array, rounds: int) -> Array:
        """E f(x^k) - f*, [rounds + 1], about the fixed point of the mean, so that no large numbers cancel."""
        size = len(start)
        matrix = np.eye(size) - np.einsum("p,pab->ab", self.p, self.J)
        center = np.linalg.lstsq(matrix, self.p @ self.j, rcond=1e-12)[0]
        shift = self.j + self.J @ center - center
        lifted = np.zeros((len(self.p), size + 1, size + 1))
        lifted[:, :size, :size], lifted[:, :size, size], lifted[:, size, size] = self.J, shift, 1.0
        z = np.append(start - center, 1.0)
        M, away = np.outer(z, z), self.readout @ center - self.problem.minimizer
        Q = np.concatenate([self.readout, away[:, None]], axis=1)
        found = []
        for _ in range(rounds + 1):
            found.append(0.5 * np.vdot(self.problem.mean_matrix, Q @ M @ Q.T))
            moved = (self.p[:, None, None] * lifted @ M).transpose(1, 0, 2).reshape(size + 1, -1)
            M = moved @ lifted.transpose(1, 0, 2).reshape(size + 1, -1).T
        return np.array(found)

    def rate(self) -> float:
        """Spectral radius of S -> E[J S J'] on symmetric S, from its matrix."""
        size = self.J.shape[1]
        flat = self.J.reshape(len(self.p), -1)
        kron = (self.p * flat.T @ flat).reshape((size,) * 4).transpose(0, 2, 1, 3)  # [a, c, b, d]: J_ab J_cd
        a, b = np.triu_indices(size)
        both = kron[a, b][:, a, b] + np.where(a != b, kron[a, b][:, b, a], 0.0)
        return float(np.abs(np.linalg.eigvals(both)).max())
