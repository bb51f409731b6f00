"""The cut of a network's outputs: every worker learns to tell its own classes, from each other and from all others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from isthmus.errors import InvalidInput, check_choice, check_integer, check_number
from isthmus.partitions import Block, Law
from isthmus.partitions.classes import GATES, ClassDeal, Gate, Other
from isthmus.partitions.groups import GROUPS, AtRandom, Clusters, Grouping
from isthmus.strategies.base import Strategy

SHARES = (0.5, 0.75, 0.9)  # that ``auto`` tries
AUTO = 0.75  # where nothing can be tried


@dataclass(frozen=True)
class ClassCut(Strategy):
    """Every worker trains a network of its own, with the rows of the last layer that are its own classes' alone.

    Hidden units are cut once, as under the law ``block``; nothing is between the pieces and nothing travels while they
    train. With P the share of a worker's own classes among all samples, q that of its batches that is drawn from them,
    q' = q + (1 - q) P, and with the scores of other classes raised by logit q' - logit P when the network is used, the
    score of class v has its optimum at log P(v | x), exactly.

    Attributes:
        gate: what stands for the classes that a worker does not own: ``other`` (one unit for all of them), ``worker``
            (the last worker learns which worker's a sample is), or ``none`` (several labels a sample, each by itself).
        own_share: q, or ``auto``: the best of .5, .75 and .9 on held-out data, after a tenth of the steps with each.
            In a loop of one's own, which isthmus cannot run three times, .75.
        groups: how classes are put together: ``random``; or ``cluster``, those whose samples have like inputs, which a
            run learns from its training data; in a loop of one's own :meth:`Clusters.of` does.
        foreign_buckets: with gate ``other``, units over which other classes are spread, instead of one for all.
        owners: workers that own each class. With one, a lost worker's classes are lost with it.

    Raises:
        InvalidInput: a value that breaks its rule or has no effect.
    """

    name: ClassVar[str] = "class-cut"
    label: ClassVar[str] = "class cut"
    color: ClassVar[str] = "#117733"
    meaning: ClassVar[str] = (
        "every worker trains a small network of its own that knows its own classes and one unit for all others; "
        "it gets more samples of its own classes, and nothing travels"
    )
    cuts: ClassVar[bool] = True
    restarts: ClassVar[bool] = False
    by_class: ClassVar[bool] = True
    routed: ClassVar[bool] = True
    travels: ClassVar[bool] = False
    lr: ClassVar[float] = 0.1

    gate: str = "other"
    own_share: float | str = "auto"
    groups: str | Clusters = AtRandom.name
    foreign_buckets: int = 0
    owners: int = 1

    def __post_init__(self) -> None:
        check_choice("gate", self.gate, GATES)
        if not isinstance(self.groups, Clusters):
            check_choice("groups", self.groups, GROUPS)
        check_integer("foreign_buckets", self.foreign_buckets, at_least=0)
        check_integer("owners", self.owners, at_least=1)
        if isinstance(self.own_share, str):
            if self.own_share != "auto":
                raise InvalidInput(f"`own_share` must be auto or a number from 0 to below 1, got {self.own_share!r}")
        else:
            check_number("own_share", self.own_share, at_least=0.0, below=1.0)
            if self.gate != Other.name:
                raise InvalidInput(f"`own_share` has no effect with gate {self.gate!r}")
        if self.foreign_buckets and self.gate != Other.name:
            raise InvalidInput(f"`foreign_buckets` has no effect with gate {self.gate!r}")

    @property
    def dealt(self) -> Law:
        """How hidden units are dealt, once: ``block``."""
        return Block()

    @property
    def gating(self) -> Gate:
        """What stands for the classes that a worker does not own."""
        return GATES[self.gate](self.foreign_buckets)

    @property
    def grouping(self) -> Grouping:
        """How classes are put together."""
        return GROUPS[self.groups]() if isinstance(self.groups, str) else self.groups

    @property
    def shares(self) -> tuple[float, ...]:
        """The own shares to try, or the one that is given."""
        if isinstance(self.own_share, str):
            return SHARES if self.gate == Other.name else (0.0,)
        return (self.own_share,)

    @property
    def share(self) -> float:
        """The own share where nothing can be tried."""
        return AUTO if len(self.shares) > 1 else self.shares[0]

    def check_workers(self, workers: int) -> None:
        """Refuse numbers of workers and owners that do not fit each other."""
        self.gating.check(workers, self.owners)

    def deal(self, classes: int, workers: int, seed: int) -> ClassDeal:
        """Return who owns which classes.

        Raises:
            InvalidInput: more workers than classes, or groups that are not learned yet.
        """
        gate = self.gating
        group = self.grouping.group(classes, gate.experts(workers), seed)
        return ClassDeal(group, workers, gate, self.owners, seed)

    @property
    def identity(self) -> dict[str, Any]:
        """The record, and which groups were learned."""
        return {**self.record(), "groups": repr(self.grouping)}

    def record(self) -> dict[str, Any]:
        """Return the strategy as plain data; of groups how they are found."""
        return {**super().record(), "groups": self.grouping.name}

    @property
    def title(self) -> str:
        """The name, and what stands for other classes."""
        gate = f"{self.foreign_buckets} buckets" if self.foreign_buckets else self.gate
        together = ", clusters" if self.grouping.learned else ""
        return f"{self.name} ({gate}{together}{f', {self.owners} owners' if self.owners > 1 else ''})"

    @property
    def slug(self) -> str:
        """The same as part of a file's name."""
        parts = [self.gate] * (self.gate != Other.name) + [f"g{self.foreign_buckets}"] * (self.foreign_buckets > 0)
        parts += [self.grouping.name] * self.grouping.learned
        parts += [f"o{self.owners}"] * (self.owners > 1)
        parts += [] if isinstance(self.own_share, str) else [f"q{self.own_share:g}"]
        return "-".join([self.name, *parts])
