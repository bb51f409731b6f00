"""A law for each kind of axis."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from isthmus.errors import InvalidInput
from isthmus.partitions.law import Axis, Law, Traits
from isthmus.partitions.partition import Indices


@dataclass(frozen=True)
class Mixed(Law):
    """Every kind of axis is dealt by a law of its own.

    Beside another law ``block`` is ``rotated``: what lies between pieces starts at zero only where all laws want it.

    Args:
        laws: pairs of a kind (``head``, ``ffn``, ``block``, ...; ``*`` for all that are not named) and its law.

    Raises:
        InvalidInput: no kind, one that is named twice, a law with a core or kinds, or laws that take the same parameter
            and differ in it.
    """

    REST: ClassVar[str] = "*"

    laws: tuple[tuple[str, Law], ...]

    def __post_init__(self) -> None:
        kinds, members = [kind for kind, _ in self.laws], [law for _, law in self.laws]
        if not kinds or len(set(kinds)) < len(kinds):
            raise InvalidInput(f"`law` must name each kind of axis once, got {', '.join(kinds) or 'none'}")
        if any(isinstance(law, Mixed) for law in members):
            raise InvalidInput("`law` of a kind of axis must have no kinds of its own")
        self._parameters()
        for key in ("zero_cross_blocks", "few_units"):
            object.__setattr__(self, key, all(getattr(law, key) for law in members))
        # random weights that nobody trains count as much as the rest, those of `block` too unless they start at zero
        by_row = self.zero_cross_blocks or all(law.by_row and not law.zero_cross_blocks for law in members)
        object.__setattr__(self, "by_row", by_row)
        object.__setattr__(self, "name", ",".join(f"{kind}={law.name}" for kind, law in self.laws))
        for key in ("label", "meaning"):
            words = (f"{_said(kind)}: {getattr(law, key)}" for kind, law in self.laws)
            object.__setattr__(self, key, "; ".join(words))

    @classmethod
    def of(cls, laws: Mapping[str, Law]) -> Mixed:
        """Return the law from a mapping of kinds to laws."""
        return cls(tuple(laws.items()))

    def law_for(self, axis: Axis) -> Law:
        """Return the law by which an axis is dealt.

        Raises:
            InvalidInput: none is given for its kind.
        """
        found = dict(self.laws)
        if axis.kind not in found and self.REST not in found:
            wanted = f"how axis {axis.name!r} of kind {axis.kind!r} is dealt"
            raise InvalidInput(f"`law` must say {wanted}, got {', '.join(found)} only")
        return found.get(axis.kind) or found[self.REST]

    def check(self, workers: int) -> None:
        """Refuse what one of the laws refuses.

        Raises:
            InvalidInput: a number of workers that it is not made for.
        """
        for _, law in self.laws:
            law.check(workers)

    def among(self, workers: Sequence[int]) -> Mixed:
        """Return the laws for those who are left."""
        return replace(self, laws=tuple((kind, law.among(workers)) for kind, law in self.laws))

    @property
    def measures(self) -> bool:
        """Whether one of the laws does."""
        return any(law.measures for _, law in self.laws)

    def measured(self, capacities: Sequence[float]) -> Mixed:
        """Return the laws for workers of these capacities."""
        return replace(self, laws=tuple((kind, law.measured(capacities)) for kind, law in self.laws))

    @property
    def chooses(self) -> bool:
        """Whether one of the laws does."""
        return any(law.chooses for _, law in self.laws)

    def chosen(self, traits: Traits) -> tuple[Mixed, str]:
        """Return the laws that are chosen for a network, and why in one line."""
        kinds = [kind for kind, _ in self.laws]
        own = [traits.without(kinds) if kind == self.REST else traits.of(kind) for kind in kinds]
        found = [law.chosen(each) for (_, law), each in zip(self.laws, own, strict=True)]
        reasons = [f"{_said(kind)}: {why}" for kind, (_, why) in zip(kinds, found, strict=True) if why]
        laws = tuple((kind, law) for kind, (law, _) in zip(kinds, found, strict=True))
        return Mixed(laws), "; ".join(reasons)

    def too_few(self, axis: Axis, workers: int, what: str = "units") -> str | None:
        """Return why an axis has too few units for its law; None if it has enough."""
        return self.law_for(axis).too_few(axis, workers, what)

    def units(self, axis: Axis, workers: int, seed: int, round: int) -> Sequence[Indices]:
        """Return what the axis's law deals."""
        return self.law_for(axis).units(axis, workers, seed, round)

    def period(self, axes: Sequence[Axis], workers: int, seed: int) -> int | None:
        """Return the least common multiple of those of the laws; None where one never repeats itself."""
        groups: dict[Law, list[Axis]] = {}
        for axis in axes:
            groups.setdefault(self.law_for(axis), []).append(axis)
        periods = [law.period(group, workers, seed) for law, group in groups.items()]
        numbers = [each for each in periods if each is not None]
        return math.lcm(*numbers) if len(numbers) == len(periods) else None

    def record(self) -> dict[str, Any]:
        """Return the arguments of :func:`law_of`: kinds and names in one word, and what the laws take."""
        return {"law": self.name} | self._parameters()

    def _parameters(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for kind, law in self.laws:
            for name, value in law.record().items():
                if name == "core" or (name != "law" and found.get(name, value) != value):
                    raise InvalidInput(f"`law` of kind {kind!r} must have no {name} of its own, got {value!r}")
                found[name] = value
        found.pop("law", None)
        return found


def _said(kind: str) -> str:
    return "others" if kind == Mixed.REST else kind
