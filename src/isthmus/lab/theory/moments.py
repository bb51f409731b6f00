"""Exact first and second moments of H = (1/n) sum_i P_i G_i P_i and h = (1/n) sum_i P_i g_i.

Everything follows from one count: the entry (a, d) of P G P X P G P sums G_ab X_bc G_cd times the chance that the
units a, b, c, d are held, which depends only on which of them coincide. :func:`_chain` sums over the coincidence
patterns with a table of chances; two d x d matrix products serve all patterns.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from isthmus.lab.arrays import Array, off
from isthmus.lab.sketches import Masks
from isthmus.lab.theory.update import AffineUpdate

_AT_ONCE = 16_000  # numbers in all G_i together, up to which one pass over a stack of them is faster than n passes


@dataclass(frozen=True)
class Patterns:
    """Chances of the coincidence patterns of (a, b, c, d) in G_ab X_bc G_cd.

    Names give the classes of equal indices: ``ab_cd`` is a = b, c = d, different from each other; a lone index stands
    alone. Mirror images share a name.
    """

    abcd: float  # all equal
    ab_cd: float
    ab_c_d: float  # and a, b, c=d
    a_b_c_d: float
    abd_c: float = 0.0  # a=b=d, and a=c=d
    ad_bc: float = 0.0
    ad_b_c: float = 0.0
    abc_d: float = 0.0  # and a, b=c=d
    a_bc_d: float = 0.0
    ac_bd: float = 0.0
    a_bd_c: float = 0.0  # and a=c, b, d

    def __sub__(self, other: Patterns) -> Patterns:
        mine, theirs = vars(self), vars(other)
        return Patterns(**{name: mine[name] - theirs[name] for name in mine})


def _within(masks: Masks) -> Patterns:
    """Both matrices of one worker: the chance depends on how many different units there are."""
    p1, p2, p3, p4 = masks.within
    pairs = {"abd_c": p2, "ad_bc": p2, "ab_cd": p2, "abc_d": p2, "ac_bd": p2}
    return Patterns(abcd=p1, **pairs, ad_b_c=p3, ab_c_d=p3, a_bc_d=p3, a_bd_c=p3, a_b_c_d=p4)


def _between(masks: Masks) -> Patterns:
    """Matrices of two workers, which hold {a, b} and {c, d}: blocks share a unit only where n > d."""
    assert masks.between is not None
    c11, c12, c22 = masks.between
    return Patterns(abcd=masks.shared, ab_cd=c11, ab_c_d=c12, a_b_c_d=c22)


def _chain(G: Array, X: Array, chance: Patterns, into: Array, spare: tuple[Array, Array]) -> None:
    """Add to ``into`` the matrix of sum_{b,c} G_ab X_bc G_cd times chance(pattern); two matrix products.

    G symmetric, [d, d] or many at once [n, d, d]; X symmetric, [d, d]. G's diagonal and both ``spare`` arrays are
    overwritten, and nothing else of that size is allocated.
    """
    each = np.arange(len(X))
    D, x, before = G[..., each, each], np.diagonal(X).copy(), into[..., each, each]  # copies
    O, (inner, work) = G, spare
    O[..., each, each] = 0.0
    np.matmul(O, X, out=inner)
    inner -= np.multiply(O, x, out=work)  # now sum over b of O_ab Xo_bc
    r = inner[..., each, each]  # sum over b of O_ab X_ba
    diagonal = chance.abcd * D * D * x + 2 * chance.abd_c * D * r
    diagonal += chance.ad_b_c * np.einsum("...ac,...ac->...a", inner, O)
    diagonal += chance.ad_bc * np.einsum("...ab,...ab,b->...a", O, O, x)

    into += np.multiply(inner, chance.ab_c_d * D[..., None, :], out=work)
    into += np.swapaxes(work, -1, -2)
    np.multiply(X, chance.ab_cd * D[..., None, :], out=work)
    work *= D[..., None]
    into += work
    if chance.a_b_c_d or chance.a_bc_d:
        inner *= chance.a_b_c_d
        inner += np.multiply(O, chance.a_bc_d * x, out=work)
        into += np.matmul(inner, O, out=work)
    side = chance.abc_d * D * x + (chance.a_bd_c - chance.a_b_c_d) * r
    np.multiply(O, X, out=work)
    work *= chance.ac_bd + chance.a_b_c_d - 2 * chance.a_bd_c
    work += side[..., None]
    work += side[..., None, :]
    work *= O
    into += work
    into[..., each, each] = before + diagonal


def _chain_with_marginals(G: Array, X: Array, p: Array) -> Array:
    """Return the same for a mask of independent units: every different index among (a, b, c, d) counts its p once."""
    D, x = np.diagonal(G).copy(), np.diagonal(X)
    O = off(G)
    inner = (O * p) @ off(X)  # sum over b of O_ab p_b Xo_bc
    r = np.diagonal(inner).copy()
    diagonal = D * D * x + 2 * D * r + np.einsum("ac,c,ac->a", inner, p, O) + (O * O) @ (p * x)
    result = inner * D
    result = result + result.T + D[:, None] * X * D
    result += (inner * p + O * (p * x)) @ O
    side = D * x + (1 - p) * r
    result += O * (side[:, None] + side + O * X * (1 + np.outer(p, p) - p[:, None] - p))
    result *= np.outer(p, p)
    result[np.diag_indices(len(D))] = p * diagonal
    return result


def same_worker(G: Array, X: Array, masks: Masks) -> Array:
    """Return E[P G P X P G P] for one worker's mask with no marginals of its own, [d, d]."""
    result, spare = np.zeros_like(G), (np.empty_like(G), np.empty_like(G))
    _chain(np.array(G), X, _within(masks), result, spare)
    return result


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
        if self._by_diagonals:
            return np.diag(self._mean_diagonal)
        if u.masks.marginals is None:
            result = u.masks.second_moment(u.total(), 0)
            result /= u.workers
            return result
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
        if self._by_diagonals:
            return self._pairs * X
        if u.masks.between is None:
            return self._independent(X) / u.workers**2
        within, between = _within(u.masks), _between(u.masks)
        total, buffer, first, second = (np.zeros((u.dim, u.dim)) for _ in range(4))
        if not u.equal and u.workers * u.dim**2 <= _AT_ONCE:
            many = [np.zeros((u.workers, u.dim, u.dim)) for _ in range(3)]
            _chain(self._matrices.copy(), X, within - between, many[0], (many[1], many[2]))
            total += many[0].sum(axis=0)
        else:
            for worker in range(1 if u.equal else u.workers):
                _chain(u.matrix(worker, out=buffer), X, within - between, total, (first, second))
        if u.equal:
            total *= u.workers
        _chain(u.total(out=buffer), X, between, total, (first, second))
        total /= u.workers**2
        return total

    def mean_times(self, S: Array) -> Array:
        """Return E[H] S."""
        return self._mean_diagonal[:, None] * S if self._by_diagonals else self.mean_matrix @ S

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
        if self._by_diagonals:
            return m[:, None] * self._pairs_with_vectors
        for worker in range(u.workers):
            total += _drift_within(u, worker, m)
        return (total + self._drift_between(m)) / u.workers**2

    @property
    def _by_diagonals(self) -> bool:
        """Whether H is diagonal, its second moments a table of pairs of coordinates."""
        return self.update.masks.single_unit and self.update.masks.between is not None

    @cached_property
    def _mean_diagonal(self) -> Array:
        """E[H_aa], [d]."""
        return np.asarray(self.update.masks.within[0] * self._diagonals.mean(axis=0))

    @cached_property
    def _pairs_with_vectors(self) -> Array:
        """E[H_aa h_b], [d, d]: E[H m h'] is this times m, row by row."""
        u, g = self.update, self.update.vectors
        assert u.masks.between is not None
        own, D = self._diagonals * g, self._diagonals
        others = np.outer(D.sum(axis=0), g.sum(axis=0)) - D.T @ g
        result = u.masks.between[0] * others
        result[np.diag_indices(u.dim)] = u.masks.within[0] * own.sum(axis=0) + u.masks.shared * np.diagonal(others)
        return result / u.workers**2

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

    @cached_property
    def _matrices(self) -> Array:
        """The G_i, [n, d, d]; for problems small enough to keep them."""
        return np.stack([self.update.matrix(worker) for worker in range(self.update.workers)])

    def _held_vectors(self) -> Array:
        """E[P_i g_i], [n, d]."""
        u = self.update
        p = u.masks.within[0] if u.masks.marginals is None else u.masks.within[0] * u.masks.marginals
        return np.asarray(p * u.vectors)

    def _independent(self, X: Array) -> Array:
        """n^2 E[H X H] for independent workers: own terms, and sum over pairs of E[H_i] X E[H_j]."""
        u, within = self.update, _within(self.update.masks)
        total, means = np.zeros((u.dim, u.dim)), np.zeros((u.dim, u.dim))
        spare = (np.empty((u.dim, u.dim)), np.empty((u.dim, u.dim)))
        for worker in range(u.workers):
            G = u.matrix(worker)
            mean = u.masks.second_moment(G, worker)
            means += mean
            total -= mean @ X @ mean
            if u.masks.marginals is None:
                _chain(G, X, within, total, spare)
            else:
                total += _chain_with_marginals(G, X, u.masks.marginals[worker])
        return total + means @ X @ means

    def _drift_between(self, m: Array) -> Array:
        """Sum over pairs of workers of E[P_i G_i P_i m g_j' P_j]."""
        u, g = self.update, self.update.vectors
        if u.masks.between is None:
            held = self._held_vectors()
            moved = np.stack([u.masks.second_moment(u.matrix(i), i) @ m for i in range(u.workers)])
            return np.outer(moved.sum(axis=0), held.sum(axis=0)) - moved.T @ held
        c11, c12, _ = u.masks.between
        Dm, all_g = self._diagonals * m, g.sum(axis=0)
        result = c11 * np.outer(Dm.sum(axis=0), all_g)
        result -= c11 * (Dm.T @ g)
        work = off(u.total())
        result += c12 * np.outer(work @ m, all_g)
        result -= np.multiply(work, c12 * m * all_g, out=work)
        for worker in range(u.workers):
            G = u.matrix(worker, out=work)
            np.fill_diagonal(G, 0.0)
            result -= c12 * np.outer(G @ m, g[worker])
            result += np.multiply(G, c12 * m * g[worker], out=G)
        np.fill_diagonal(result, 0.0)
        return result


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
