"""How heavy the tails of a method with multiplicative noise are, exactly: the growth of fourth moments."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isthmus.errors import InvalidInput
from isthmus.lab.arrays import Array, check_array
from isthmus.lab.theory.spectrum import Radius, positive_radius


@dataclass(frozen=True)
class Tails:
    """Growth a round of E|e|^2 and E|e|^4, e the distance of two runs that draw the same.

    Attributes:
        second: spectral radius of S -> E[J S J'].
        fourth: that of the same map for e e' in place of e.
    """

    second: Radius
    fourth: Radius

    @property
    def spread(self) -> float:
        """fourth/second^2 >= 1: how the squared relative spread of the gap over seeds grows a round in the long run."""
        return float(self.fourth) / float(self.second) ** 2 if self.second > 0 else 1.0

    def rounds(self, seeds: int) -> float:
        """Return the rounds after which the mean over so many seeds has lost its error: spread^rounds = seeds."""
        return float(np.log(seeds) / np.log(self.spread)) if self.spread > 1.0 else np.inf


def tails(probabilities: Array, matrices: Array) -> Tails:
    """Return the growth of second and fourth moments of x+ = J x + j, J one of finitely many matrices.

    Where ``fourth`` is 1 or more the gap has no variance in the long run, and mean +- standard error over seeds covers
    nothing, however many there are.

    Args:
        probabilities: [P], sum 1.
        matrices: J, [P, d, d].

    Raises:
        InvalidInput: wrong shapes, or chances that do not sum to 1.

    Reference:
        Kesten, "Random difference equations and renewal theory for products of random matrices" (1973).

    >>> found = tails([0.5, 0.5], [[[1.2]], [[0.2]]])  # E J^2 = 0.74, E J^4 = 1.0376: settles, without a variance
    >>> round(found.second, 4), round(found.fourth, 4)
    (0.74, 1.0376)
    """
    p = check_array("probabilities", probabilities, "P")
    J = check_array("matrices", matrices, len(p), "d", "d")
    if J.shape[1] != J.shape[2]:
        raise InvalidInput(f"`matrices` must have shape [P, d, d], got {list(J.shape)}")
    if abs(p.sum() - 1.0) > 1e-9 or p.min(initial=0.0) < 0:
        raise InvalidInput(f"`probabilities` must be at least 0 and sum to 1, got a sum of {p.sum():g}")
    return Tails(_growth(p, J), _growth(p, _on_squares(J)))


def _growth(p: Array, J: Array) -> Radius:
    turned = np.swapaxes(J, 1, 2)
    return positive_radius(lambda S: np.einsum("p,pab->ab", p, J @ S @ turned), J.shape[1])


def _on_squares(J: Array) -> Array:
    """The maps of e e' (its upper entries, the others' weight on them) that e -> J e makes, [P, s, s], s = d(d+1)/2."""
    a, b = np.triu_indices(J.shape[1])
    first, second = J[:, a], J[:, b]  # [P, s, d]
    products = first[:, :, a] * second[:, :, b]
    return np.asarray(np.where(a == b, products, products + first[:, :, b] * second[:, :, a]))
