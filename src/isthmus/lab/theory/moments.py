"""Exact first and second moments of H = (1/n) sum_i P_i G_i P_i and h = (1/n) sum_i P_i g_i.

Everything follows from one count: the entry (a, d) of P G P X P G P sums G_ab X_bc G_cd times the chance that the
units a, b, c, d are held, which depends only on which of them coincide. :func:`_chain` sums over the coincidence
patterns with a table of chances; two d x d matrix products serve all patterns.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from isthmus.lab.arrays import Array, off
from isthmus.lab.sketches import Masks
from isthmus.lab.theory.update import AffineUpdate


@dataclass(frozen=True)
class Patterns:
    """Chances of the coincidence patterns of (a, b, c, d) in G_ab X_bc G_cd.

    Names give the classes of equal indices: ``ab_cd`` is a = b, c = d, different from each other; a lone index stands
    alone. Mirror images share a name.
    """

    abcd: float = 0.0  # all equal
    abd_c: float = 0.0  # a=b=d, and a=c=d
    ad_bc: float = 0.0
    ad_b_c: float = 0.0
    ab_cd: float = 0.0
    abc_d: float = 0.0  # and a, b=c=d
    ab_c_d: float = 0.0  # and a, b, c=d
    a_bc_d: float = 0.0
    ac_bd: float = 0.0
    a_bd_c: float = 0.0  # and a=c, b, d
    a_b_c_d: float = 0.0

    def __sub__(self, other: Patterns) -> Patterns:
        mine, theirs = vars(self), vars(other)
        return Patterns(**{name: mine[name] - theirs[name] for name in mine})


def _within(masks: Masks) -> Patterns:
    """Both matrices of one worker: the chance depends on how many different units there are."""
    p1, p2, p3, p4 = masks.within
    pairs = Patterns(abcd=p1, abd_c=p2, ad_bc=p2, ab_cd=p2, abc_d=p2, ac_bd=p2)
    return replace(pairs, ad_b_c=p3, ab_c_d=p3, a_bc_d=p3, a_bd_c=p3, a_b_c_d=p4)


def _between(masks: Masks) -> Patterns:
    """Matrices of two workers, which hold {a, b} and {c, d}: blocks share a unit only where n > d."""
    assert masks.between is not None
    c11, c12, c22 = masks.between
    return Patterns(abcd=masks.shared, ab_cd=c11, ab_c_d=c12, a_b_c_d=c22)


def _chain(G: Array, X: Array, chance: Patterns, p: Array | None = None) -> Array:
    """Return the matrix of sum_{b,c} G_ab X_bc G_cd times chance(pattern) times the p of every different index.

    G and X symmetric, [d, d]; G's diagonal is overwritten. Two matrix products.
    """
    D, x = np.diagonal(G).copy(), np.diagonal(X).copy()
    O = G
    np.fill_diagonal(O, 0.0)
    inner = (O if p is None else O * p) @ X
    px = x if p is None else p * x
    inner -= O * px  # now sum over b of O_ab p_b Xo_bc
    r = np.diagonal(inner).copy()  # sum over b of O_ab p_b X_ba
    from_c = np.einsum("ac,ac->a", inner, O if p is None else O * p)
    diagonal = chance.abcd * D * D * x + 2 * chance.abd_c * D * r + chance.ad_b_c * from_c
    diagonal += chance.ad_bc * np.einsum("ab,ab,b->a", O, O, px)

    result = chance.ab_c_d * (inner * D)
    result += result.T.copy()
    result += chance.ab_cd * (D[:, None] * X * D)
    if chance.a_b_c_d or chance.a_bc_d:
        inner *= chance.a_b_c_d if p is None else chance.a_b_c_d * p
        inner += O * (chance.a_bc_d * px)
        result += inner @ O
    ones = 1.0 if p is None else p
    side = chance.abc_d * D * x + (chance.a_bd_c - chance.a_b_c_d * ones) * r
    twice = O * X
    if p is None:
        twice *= chance.ac_bd + chance.a_b_c_d - 2 * chance.a_bd_c
    else:
        twice *= chance.ac_bd + chance.a_b_c_d * p[:, None] * p - chance.a_bd_c * (p[:, None] + p)
    twice += side[:, None]
    twice += side
    twice *= O
    result += twice
    if p is not None:
        result *= p[:, None] * p
        diagonal = diagonal * p
    result[np.diag_indices(len(D))] = diagonal
    return result


def same_worker(G: Array, X: Array, masks: Masks) -> Array:
    """Return E[P G P X P G P] for one worker's mask with no marginals of its own, [d, d]."""
    return _chain(np.array(G), X, _within(masks))


@dataclass(frozen=True, eq=False)
class Moments:
    """E[H], E[h], E[H X H], E[H m h'] and E[h h'] of one :class:`AffineUpdate`, exact.

    Cost of E[H X H]: two d x d matrix products a worker (two in all where the workers are equal), four where the
    workers' masks are independent; O(d^2) where a worker never holds two units, after one O(n d^2) preparation.
    """

    update: AffineUpdate

    @property
    def keep(self) -> float:
        """Share of x that stays whatever is drawn."""
        return self.update.keep

    @cached_property
    def mean_matrix(self) -> Array:
        """E[H], [d, d]."""
        u = self.update
        if u.masks.marginals is None:
            return u.masks.second_moment(u.total(), 0) / u.workers
        return np.asarray(sum(u.masks.second_moment(u.matrix(i), i) for i in range(u.workers))) / u.workers

    @cached_property
    def mean_vector(self) -> Array:
        """E[h], [d]."""
        return np.asarray(self._held_vectors().sum(axis=0)) / self.update.workers

    def sandwich(self, X: Array) -> Array:
        """Return E[H X H] for a symmetric X, [d, d]."""
        u = self.update
        if u.masks.certain:
            return self.mean_matrix @ X @ self.mean_matrix
        if u.masks.single_unit and u.masks.marginals is None and u.masks.between is not None:
            return self._pairs * X
        if u.masks.between is None:
            return self._independent(X) / u.workers**2
        within, between = _within(u.masks), _between(u.masks)
        if u.equal:
            total = u.workers * _chain(u.matrix(0), X, within - between)
        else:
            total, buffer = np.zeros((u.dim, u.dim)), np.empty((u.dim, u.dim))
            for worker in range(u.workers):
                total += _chain(u.matrix(worker, out=buffer), X, within - between)
        total += _chain(u.total(), X, between)
        return total / u.workers**2

    def noise(self) -> Array:
        """Return E[h h'], [d, d]."""
        u, g = self.update, self.update.vectors
        total = _gram_within(u, g)
        if u.masks.between is None:
            held = self._held_vectors()
            total += np.outer(held.sum(axis=0), held.sum(axis=0)) - held.T @ held
        else:
            others = np.outer(g.sum(axis=0), g.sum(axis=0)) - g.T @ g
            total += u.masks.between[0] * off(others) + np.diag(u.masks.shared * np.diagonal(others))
        return total / u.workers**2

    def drift(self, m: Array) -> Array:
        """Return E[H m h'] for a fixed vector m, [d, d]."""
        u = self.update
        total = np.zeros((u.dim, u.dim))
        if not u.vectors.any():
            return total
        for worker in range(1 if u.equal and _one_row(u.vectors) else u.workers):
            total += _drift_within(u, worker, m)
        if u.equal and _one_row(u.vectors):
            total *= u.workers
        return (total + self._drift_between(m)) / u.workers**2

    @cached_property
    def _pairs(self) -> Array:
        """E[H_aa H_bb] where the matrices act by their diagonals: E[H X H] is this times X, entrywise."""
        u = self.update
        assert u.masks.between is not None
        g = self._diagonals
        others = np.outer(g.sum(axis=0), g.sum(axis=0)) - g.T @ g
        result = u.masks.between[0] * off(others)
        own = (g * g).sum(axis=0)
        result[np.diag_indices(u.dim)] = u.masks.within[0] * own + u.masks.shared * np.diagonal(others)
        return result / u.workers**2

    @cached_property
    def _diagonals(self) -> Array:
        """The diagonals of the G_i, [n, d]."""
        u = self.update
        if u.factor == 0:
            return u.shift
        w2 = np.broadcast_to(np.square(u.weights), u.shift.shape)
        return np.asarray(u.shift + u.factor * w2 * np.diagonal(u.matrices, axis1=1, axis2=2))

    def _held_vectors(self) -> Array:
        """E[P_i g_i], [n, d]."""
        u = self.update
        p = u.masks.within[0] if u.masks.marginals is None else u.masks.within[0] * u.masks.marginals
        return np.asarray(p * u.vectors)

    def _independent(self, X: Array) -> Array:
        """n^2 E[H X H] for independent workers: own terms, and sum over pairs of E[H_i] X E[H_j]."""
        u, within = self.update, _within(self.update.masks)
        total, means = np.zeros((u.dim, u.dim)), np.zeros((u.dim, u.dim))
        for worker in range(u.workers):
            G = u.matrix(worker)
            mean = u.masks.second_moment(G, worker)
            means += mean
            total -= mean @ X @ mean
            total += _chain(G, X, within, None if u.masks.marginals is None else u.masks.marginals[worker])
        return total + means @ X @ means

    def _drift_between(self, m: Array) -> Array:
        """Sum over pairs of workers of E[P_i G_i P_i m g_j' P_j]."""
        u, g = self.update, self.update.vectors
        if u.masks.between is None:
            held = self._held_vectors()
            moved = np.stack([u.masks.second_moment(u.matrix(i), i) @ m for i in range(u.workers)])
            return np.outer(moved.sum(axis=0), held.sum(axis=0)) - moved.T @ held
        c11, c12, _ = u.masks.between
        Dm = self._diagonals * m
        pairs = np.outer(Dm.sum(axis=0), g.sum(axis=0)) - Dm.T @ g
        result = c11 * pairs
        if c12:
            O = off(u.total())
            result += c12 * (np.outer(O @ m, g.sum(axis=0)) - O * (m * g.sum(axis=0)))
            for worker in range(u.workers):
                G = off(u.matrix(worker))
                result -= c12 * (np.outer(G @ m, g[worker]) - G * (m * g[worker]))
        result[np.diag_indices(u.dim)] = u.masks.shared * np.diagonal(pairs)
        return result


def _one_row(array: Array) -> bool:
    return len(array) == 1 or array.strides[0] == 0


def _gram_within(u: AffineUpdate, g: Array) -> Array:
    """sum_i E[P_i g_i g_i' P_i]."""
    p = g if u.masks.marginals is None else g * u.masks.marginals
    own = g * p
    return u.masks.within[1] * off(p.T @ p) + np.diag(u.masks.within[0] * own.sum(axis=0))


def _drift_within(u: AffineUpdate, worker: int, m: Array) -> Array:
    """E[P G P m g' P] of one worker."""
    p1, p2, p3, _ = u.masks.within
    p = np.ones(u.dim) if u.masks.marginals is None else u.masks.marginals[worker]
    O = u.matrix(worker)
    D, g = np.diagonal(O).copy(), u.vectors[worker]
    np.fill_diagonal(O, 0.0)
    Om = O @ (p * m)
    result = np.outer(p2 * D * m + p3 * Om, g) + O * ((p2 - p3 * p) * m * g)
    result *= p[:, None] * p
    result[np.diag_indices(u.dim)] = p * g * (p1 * D * m + p2 * Om)
    return result
