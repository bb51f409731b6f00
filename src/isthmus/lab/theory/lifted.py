"""One round of a linear method on its whole state z (iterate, shifts, estimates, ...), and the moments of it.

Given the draws a round is z+ = J z + j, and random in two ways only: a coin that all workers share chooses a branch,
and multipliers c act on what is sent, u = U z + u0:

    z+ = J z + j + R ((c - E c) * u)      in each branch, the product entrywise.

So E z+ and E z+ z+' need E c and Cov c alone (:class:`Multipliers`), and obey

    m+ = sum_b p_b (J_b m + j_b),
    S+ = sum_b p_b [J_b S J_b' + R_b (Cov c * (U S U' + u u')) R_b' + (m_b - m+)(m_b - m+)'],   u = U m + u0.

The maps are read off the method's own ``send`` and ``receive``, applied to the basis.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.linalg import solve_discrete_lyapunov
from scipy.sparse.linalg import LinearOperator, gmres

from isthmus.errors import InvalidInput
from isthmus.lab.arrays import Array, in_range
from isthmus.lab.definite import null_space
from isthmus.lab.methods import Draws, LinearMethod, Method
from isthmus.lab.quadratics import Quadratic

_RANK = 1e-12
_REST = 1e-28
_CONSISTENT = 1e-8
MOST_NUMBERS = 1500  # of a state, and of what is sent; matrices of that size are multiplied in every round


@dataclass(frozen=True, eq=False)
class Branch:
    """What happens for one side of the coin.

    Attributes:
        probability: of this side.
        J: [N, N], in the mean over the multipliers.
        j: [N], likewise.
        R: what a deviation of what is sent does to the state, [N, r].
    """

    probability: float
    J: Array
    j: Array
    R: Array


@dataclass(frozen=True, eq=False)
class LiftedRound:
    """The law of one round on the lifted state, by its first two moments.

    Attributes:
        branches: one, or two where there is a coin.
        U: [r, N]; u = U z + u0 is what is sent.
        u0: [r].
        covariance: of the multipliers, [r, r]; no rows where nothing is random.
        readout: the iterate is ``readout`` z, [d, N].
    """

    branches: tuple[Branch, ...]
    U: Array
    u0: Array
    covariance: Array
    readout: Array

    @property
    def size(self) -> int:
        """Numbers of a state N."""
        return int(self.U.shape[1])

    @property
    def certain(self) -> bool:
        """Whether nothing in it is random: then J is, and E[J S J'] = J S J'."""
        return len(self.branches) == 1 and self.covariance.size == 0

    @cached_property
    def mean_matrix(self) -> Array:
        """E J, [N, N]."""
        return np.asarray(sum(branch.probability * branch.J for branch in self.branches))

    @cached_property
    def mean_vector(self) -> Array:
        """E j, [N]."""
        return np.asarray(sum(branch.probability * branch.j for branch in self.branches))

    def mean(self, m: Array) -> Array:
        """Return E[z+ | z = m], [N]."""
        return np.asarray(self.mean_matrix @ m + self.mean_vector)

    @cached_property
    def fixed_point(self) -> Array:
        """m with E[z+ | z = m] = m, of least norm where there are many, [N]; nan where there is none."""
        matrix = np.eye(self.size) - self.mean_matrix
        if not np.isfinite(matrix).all():
            return np.full(self.size, np.nan)
        m = np.linalg.lstsq(matrix, self.mean_vector, rcond=_RANK)[0]
        m += np.linalg.lstsq(matrix, self.mean_vector - matrix @ m, rcond=_RANK)[0]  # to the last digit
        left = np.linalg.norm(matrix @ m - self.mean_vector)
        return np.asarray(m) if left <= _CONSISTENT * np.linalg.norm(self.mean_vector) else np.full(self.size, np.nan)

    def transport(self, S: Array) -> Array:
        """Return E[J S J'] for a symmetric S, J the random matrix of the round with its multipliers, [N, N]."""
        sent = self.covariance * (self.U @ S @ self.U.T)
        total = np.zeros_like(S)
        for branch in self.branches:
            total += _moved(branch, S, sent)
        return _symmetric(total)

    def noise(self, m: Array) -> Array:
        """Return Cov[z+ | z = m], [N, N]."""
        u = self.U @ m + self.u0
        sent, middle = self.covariance * np.outer(u, u), self.mean(m)
        total = np.zeros((self.size, self.size))
        for branch in self.branches:
            away = branch.J @ m + branch.j - middle
            total += branch.probability * (branch.R @ sent @ branch.R.T + np.outer(away, away))
        return _symmetric(total)

    def stationary_covariance(self, m: Array) -> Array:
        """Return S = E[J S J'] + Cov[z+ | z = m] where the round contracts in mean square, [N, N].

        By GMRES, preconditioned with the same equation for E J. Noise of the size of rounding's square is none: the
        state is at rest.
        """
        source, size = self.noise(m), self.size
        u = self.U @ m + self.u0
        if np.abs(source).max() <= _REST * float(m @ m + u @ u):
            return np.zeros((size, size))

        def left(flat: Array) -> Array:
            S = _symmetric(flat.reshape(size, size))
            return (S - self.transport(S)).ravel()

        def precondition(flat: Array) -> Array:
            return np.asarray(solve_discrete_lyapunov(self.mean_matrix, flat.reshape(size, size))).ravel()

        shape = (size**2, size**2)
        operator, preconditioner = (LinearOperator(shape, matvec=map_, dtype=float) for map_ in (left, precondition))
        flat = np.zeros(size**2)
        for _ in range(3):  # refinement: each solve starts from the last one's residual
            rest = source.ravel() - left(flat)
            if np.linalg.norm(rest) <= 1e-15 * np.linalg.norm(source):
                break
            flat = flat + gmres(operator, rest, M=preconditioner, rtol=1e-12, atol=0.0, restart=60, maxiter=20)[0]
        return _symmetric(flat.reshape(size, size))

    def course(self, start: Array, rounds: int) -> Iterator[tuple[Array, Array]]:
        """Yield (mean, covariance) of the lifted state from round 0 on, while they are finite."""
        m, S = start, np.zeros((self.size, self.size))
        yield m, S
        for _ in range(rounds):
            with np.errstate(over="ignore", invalid="ignore"):
                S = self.transport(S) + self.noise(m)
                m = self.mean(m)
            if not (np.isfinite(m).all() and np.isfinite(S).all()):
                return
            yield m, S

    def without(self, directions: Array) -> LiftedRound:
        """Return the round with orthonormal ``directions`` [N, k] projected out of every outcome."""
        branches = tuple(
            replace(branch, J=_off(branch.J, directions), j=_off(branch.j, directions), R=_off(branch.R, directions))
            for branch in self.branches
        )
        return replace(self, branches=branches)


def _moved(branch: Branch, S: Array, sent: Array) -> Array:
    return np.asarray(branch.probability * (branch.J @ S @ branch.J.T + branch.R @ sent @ branch.R.T))


def _off(array: Array, directions: Array) -> Array:
    return np.asarray(array - directions @ (directions.T @ array))


def _symmetric(S: Array) -> Array:
    return np.asarray(0.5 * (S + S.T))  # rounding makes a skew part, which no step shrinks


def lifted_round(problem: Quadratic, method: Method) -> LiftedRound | None:
    """Return one round of ``method`` on its lifted state; None where it is not linear or too large."""
    if not isinstance(method, LinearMethod) or not isinstance(problem, Quadratic):
        return None
    problem, method = _in_units(problem, method)
    size = method.state_size(problem)
    if max(size, problem.workers * problem.dim) > MOST_NUMBERS:
        return None
    law = method.multipliers(problem)
    if law is None:
        return None
    # the linear parts from b = 0, where no difference of large numbers is taken
    plain = Quadratic._trusted(problem.L, np.broadcast_to(0.0, problem.b.shape))
    m, d = law.mean.shape
    draws, none = Draws(0, 0, size), np.zeros((1, size))
    basis, origin = method.restore(plain, np.eye(size)), method.restore(problem, none)
    sent, kept = method.send(plain, basis, draws)
    first, kept0 = method.send(problem, origin, draws)
    covariance = law.covariance
    random = bool(covariance.any())
    zero = method.restore(plain, np.zeros((m * d, size)))
    _, nothing = method.send(plain, zero, draws)
    units = np.eye(m * d).reshape(m * d, m, d)

    def branch(probability: float, side: bool) -> Branch:
        heads = np.full(size, side)
        J = method.flatten(method.receive(plain, basis, law.mean * sent, kept, heads)).T
        j = method.flatten(method.receive(problem, origin, law.mean * first, kept0, heads[:1]))[0]
        R = method.flatten(method.receive(plain, zero, units, nothing, np.full(m * d, side))).T
        return Branch(probability, J, j, R if random else R[:, :0])

    sides = [(1.0 - method.chance, False), (method.chance, True)]
    branches = tuple(branch(probability, side) for probability, side in sides if probability > 0)
    U, u0 = sent.reshape(size, m * d).T, first.reshape(m * d)
    if not random:
        U, u0, covariance = U[:0], u0[:0], covariance[:0, :0]
    return LiftedRound(branches, U, u0, covariance, np.asarray(basis.x.T))


def _in_units(problem: Quadratic, method: LinearMethod) -> tuple[Quadratic, LinearMethod]:
    """The same with f and 1/gamma in units of Lbar's largest eigenvalue, a power of two: iterates keep every bit.

    Shifts and estimates are gradients; in these units they are as large as the iterates, and nothing overflows.
    """
    steepest = float(problem.spectrum[-1])
    if not steepest > 0.0:
        return problem, method
    unit = 2.0 ** np.round(np.log2(steepest))
    L = np.broadcast_to(problem.L[0] / unit, problem.L.shape) if problem.homogeneous_matrices else problem.L / unit
    return Quadratic._trusted(L, problem.b / unit), replace(method, stepsize=in_range(method.stepsize * float(unit)))  # type: ignore[type-var]


def known_round(problem: Quadratic, method: Method) -> LiftedRound:
    """Return one round on the lifted state.

    Raises:
        InvalidInput: the method is not linear given its draws, or too large; the message says what to do instead.
    """
    found = lifted_round(problem, method)
    if found is None:
        raise InvalidInput(
            f"`method` must be linear given its draws, with at most {MOST_NUMBERS} numbers in its state, got {method}: "
            "its moments do not close; use `theory.dynamics` or `simulate`, which fall back to Monte Carlo"
        )
    return found


def start_of(problem: Quadratic, method: LinearMethod, x0: Array) -> Array:
    """Return the lifted state of x0, [N]."""
    problem, method = _in_units(problem, method)
    return np.asarray(method.flatten(method.init(problem, x0[None]))[0])


def moving_round(problem: Quadratic, method: LinearMethod) -> LiftedRound:
    """Return the round without the directions that no worker's function sees, where nothing ever comes of them.

    There are such where Lbar is singular and gradients alone are compressed: moving the start along them moves every
    later iterate by as much. A compressed model is no such case: what is random moves it along them too.

    Raises:
        InvalidInput: as :func:`known_round`.
    """
    found = known_round(problem, method)
    if not problem.singular:
        return found
    flat = null_space(problem.mean_matrix)
    plain = Quadratic._trusted(problem.L, np.broadcast_to(0.0, problem.b.shape))
    still = np.linalg.qr(np.asarray(method.flatten(method.init(plain, flat.T)).T, dtype=np.float64)).Q
    scale = 1e-9 * float(np.abs(found.U).max(initial=1.0))
    stays = all(np.abs(branch.J @ still - still).max() <= 1e-9 for branch in found.branches)
    return found.without(still) if stays and np.abs(found.U @ still).max(initial=0.0) <= scale else found
