"""How classes are put together in groups of equal size: by chance, or those that come with like inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from isthmus.errors import InvalidInput
from isthmus.partitions.partition import Indices, block_sizes
from isthmus.randomness import generator

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_STEPS = 30  # of two means; some ten are taken


class Grouping(Protocol):
    """A way to put classes together.

    Class attributes:
        name: in commands and records.
        learned: whether it is learned from data.
    """

    name: ClassVar[str]
    learned: ClassVar[bool]

    @property
    def ready(self) -> bool:
        """Whether it has learned what there is to learn."""
        ...

    def group(self, classes: int, groups: int, seed: int) -> Indices:
        """Return [V] the group of every class; the sizes of groups differ by at most one.

        Raises:
            InvalidInput: more groups than classes, or what was learned is of other numbers.
        """
        ...


@dataclass(frozen=True)
class AtRandom:
    """By chance."""

    name: ClassVar[str] = "random"
    learned: ClassVar[bool] = False

    @property
    def ready(self) -> bool:
        """Nothing is to be learned."""
        return True

    def group(self, classes: int, groups: int, seed: int) -> Indices:
        """Permute the classes and cut them."""
        return random_groups(classes, groups, seed)


@dataclass(frozen=True, eq=False, repr=False)
class Clusters:
    """Classes whose samples have like inputs stay together.

    Attributes:
        found: [V] the group of every class, of groups of equal size, as :meth:`of` returns; None: not learned yet.
    """

    name: ClassVar[str] = "cluster"
    learned: ClassVar[bool] = True

    found: Indices | None = None

    def __repr__(self) -> str:
        """Return it in one word, in which other groups differ: workers compare it before they train."""
        if self.found is None:
            return "Clusters()"
        return f"Clusters({len(self.found)} classes, checksum {crc32(self.found.astype('<i8').tobytes()):08x})"

    @property
    def ready(self) -> bool:
        """Whether groups were found."""
        return self.found is not None

    @classmethod
    def of(cls, profiles: NDArray[Any] | csr_array, groups: int, seed: int) -> Clusters:
        """Return groups of classes by their profiles: two balanced spherical means, again and again.

        Args:
            profiles: [V, p] the mean input of every class's samples, or their sum; only its direction counts.
            groups: number of groups.
            seed: of the first centres.

        Raises:
            InvalidInput: more groups than classes.

        Reference:
            Prabhu et al., "Parabel: partitioned label trees for extreme classification" (WWW 2018), section 3.2.

        >>> likes = np.array([[9.0, 1], [0, 1], [1, 8], [5, 0]])
        >>> groups = Clusters.of(likes, 2, seed=0).group(4, 2, seed=0)
        >>> bool(groups[0] == groups[3] != groups[1] == groups[2])
        True
        """
        from scipy.sparse import csr_array
        from sklearn.preprocessing import normalize  # loads pandas and more: not before it is needed

        rows = csr_array(profiles, dtype=np.float64)
        _check(rows.shape[0], groups)
        rows = csr_array(normalize(rows))
        found = np.empty(rows.shape[0], np.int64)
        sizes = np.asarray(block_sizes(rows.shape[0], groups))
        parts = [(0, np.arange(rows.shape[0]), sizes)]
        while parts:
            first, members, wanted = parts.pop()
            if len(wanted) == 1:
                found[members] = first
                continue
            half = len(wanted) // 2
            ordered = _in_two(rows[members], int(wanted[:half].sum()), generator(seed, "classes/clusters", first))
            parts.append((first, np.sort(members[ordered[: wanted[:half].sum()]]), wanted[:half]))
            parts.append((first + half, np.sort(members[ordered[wanted[:half].sum() :]]), wanted[half:]))
        return cls(found)

    def group(self, classes: int, groups: int, seed: int) -> Indices:
        """Return what was learned."""
        if self.found is None:
            raise InvalidInput(
                "`groups` 'cluster' needs data: in a loop of one's own give "
                "ClassCut(groups=Clusters.of(profiles, workers, seed)), a profile a class"
            )
        _check(classes, groups)
        learned = len(self.found), int(self.found.max()) + 1
        if learned != (classes, groups):
            raise InvalidInput(
                f"`groups` is of {learned[0]} classes in {learned[1]} groups, but there are {classes} classes and "
                f"{groups} workers that own some"
            )
        return self.found


GROUPS: dict[str, type[AtRandom] | type[Clusters]] = {AtRandom.name: AtRandom, Clusters.name: Clusters}


def random_groups(classes: int, groups: int, seed: int) -> Indices:
    """Return [V] the group of every class: classes permuted, cut into groups whose sizes differ by at most one.

    Raises:
        InvalidInput: more groups than classes.
    """
    _check(classes, groups)
    order = generator(seed, "classes/groups").permutation(classes)
    found = np.empty(classes, np.int64)
    found[order] = np.repeat(np.arange(groups), block_sizes(classes, groups))
    return found


def _check(classes: int, groups: int) -> None:
    if groups > classes:
        raise InvalidInput(f"`workers` must be at most the number of classes, {classes}, got {groups} that own some")


def _in_two(rows: csr_array, first: int, random: np.random.Generator) -> Indices:
    """Return an order of some rows, the ``first`` of which are nearer to one of two centres than the rest."""
    one = rows[[int(random.integers(rows.shape[0]))]]
    other = rows[[int(np.argmin((rows @ one.T).toarray()[:, 0]))]]
    centres = np.asarray(one.toarray()[0]), np.asarray(other.toarray()[0])
    order, before = np.arange(rows.shape[0]), None
    for _ in range(_STEPS):
        order = np.argsort(-(rows @ (centres[0] - centres[1])), kind="stable")
        chosen = np.sort(order[:first])
        if before is not None and np.array_equal(chosen, before):
            break
        before, centres = chosen, (_centre(rows[order[:first]]), _centre(rows[order[first:]]))
    return order


def _centre(rows: csr_array) -> NDArray[np.float64]:
    total = np.asarray(rows.sum(0)).reshape(-1)
    length = float(np.sqrt(total @ total))
    return total / length if length > 0 else total
