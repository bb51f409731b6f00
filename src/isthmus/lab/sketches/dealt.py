"""Any partition law as a sketch: what the workers hold in a round drawn at random."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from isthmus.errors import InvalidInput, check_integer, check_number
from isthmus.lab.arrays import Array
from isthmus.lab.sketches.base import Sketch
from isthmus.lab.sketches.law import Support
from isthmus.partitions import Axis, Law, law_of

_ROUNDS = 2**20


class Dealt(Sketch):
    """C_i = Diag(w) P_i, P_i the mask of the units that a law deals to worker i in a round drawn uniformly at random.

    The rounds of a run are taken one after the other; here every outcome is drawn on its own, as the theory has it.
    Where the law repeats itself the support is one period and all moments are exact; else they are Monte Carlo.

    Args:
        law: a :class:`isthmus.partitions.Law`, or its name.
        workers: n.
        dim: d.
        seed: of the law's own draws.
        axis: the name of the axis, which is part of the draws' key.
        scale: w on all units; None for the mean over workers to be unbiased: one over the share of workers that hold
            the unit, n without a core, 1 on a core.

    Raises:
        InvalidInput: an unknown law, one that does not fit n and d, or a scale that is not positive.

    >>> sketch = Dealt("rotated", workers=2, dim=4)
    >>> len(sketch.support().probabilities), sketch.unbiased
    (2, True)
    """

    def __init__(
        self,
        law: Law | str,
        workers: int,
        dim: int,
        seed: int = 0,
        axis: str = "coordinates",
        scale: float | None = None,
    ) -> None:
        self.law = law_of(law)
        self.workers = check_integer("workers", workers, at_least=1)
        self.dim = check_integer("dim", dim, at_least=1)
        self.law.check(workers)
        self.axis, self.seed = Axis(axis, dim), seed
        self.period = self.law.period([self.axis], workers, seed)
        share = self.law.scenarios([self.axis], workers, seed)[axis].mean(axis=0)
        unbiased = np.divide(1.0, share, out=np.zeros(len(share)), where=share > 0)
        value = unbiased if scale is None else check_number("scale", scale, above=0.0)
        self._weights = np.array(np.broadcast_to(value, dim))

    @property
    def weights(self) -> Array:
        """w, [d]."""
        return self._weights

    def sample(self, random: np.random.Generator) -> Array:
        """Draw all workers' diagonals at once, [n, d]."""
        return self.sample_many(random, 1)[0]

    def sample_many(self, random: np.random.Generator, count: int) -> Array:
        """Draw ``count`` outcomes, [count, n, d]; the first ones do not depend on ``count``."""
        rounds = (random.random(count) * (_ROUNDS if self.period is None else self.period)).astype(np.int64)
        if self.period is None:
            return np.stack([self._deal(number) for number in rounds.tolist()])
        return np.asarray(self._outcomes[rounds])

    def support(self, limit: int = 100_000) -> Support:
        """Return the outcomes of one period, equally likely.

        Raises:
            InvalidInput: a law that does not repeat itself, or only after more than ``limit`` rounds.
        """
        if self.period is None or self.period > limit:
            found = "one that never does" if self.period is None else f"one that does after {self.period}"
            raise InvalidInput(f"`law` must repeat itself within {limit} rounds to be enumerated, got {found}")
        return Support(np.full(self.period, 1.0 / self.period), self._outcomes)

    @cached_property
    def _outcomes(self) -> Array:
        return np.stack([self._deal(number) for number in range(self.period or 0)])

    def _deal(self, number: int) -> Array:
        masks = np.zeros((self.workers, self.dim))
        for row, units in zip(masks, self.law.deal(self.axis, self.workers, self.seed, number), strict=True):
            row[units] = self._weights[units]
        return masks
