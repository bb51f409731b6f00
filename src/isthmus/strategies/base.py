"""What every strategy says about itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from isthmus.errors import InvalidInput
from isthmus.partitions import Law


@dataclass(frozen=True)
class Strategy:
    """A way to train one network by several workers.

    Class attributes:
        name: in commands and records.
        label, color, meaning: on pictures, and in one sentence.
        rival: whether it is there to be compared with.
        cuts: whether a worker trains a piece of the network.
        axes: which axes it cuts, where that is not left to the user.
        needs: what a network must have for these, in words.
        restarts: whether an optimizer's momentum may start anew every round.
        elastic: whether the others can go on when a worker is lost.
        processes: whether every worker needs a process of its own: torch's own parts do the work, and what travels
            is theirs. All workers must make the same number of steps.
        sends_pieces: whether workers are sent pieces of a network that no one of them holds.
        overlaps: whether a worker computes while its messages are on the way, within a step.
        by_class: whether workers train networks with other outputs: targets are renumbered, and what is merged is a
            network of another class.
        routed: whether samples are sent to the workers that own their classes.
        same_batches: whether all workers must take the same batches, and the same number of them.
        shortens: whether what travels may do so in a shorter type.
        travels: whether anything travels between workers while they train.
        lr: a peak learning rate that suits it with momentum that starts anew every round (measured on digits and
            Fashion-MNIST; without momentum that goes on, steps may be three times longer).
    """

    name: ClassVar[str]
    label: ClassVar[str]
    color: ClassVar[str]
    meaning: ClassVar[str]
    rival: ClassVar[bool] = True
    cuts: ClassVar[bool] = False
    axes: ClassVar[tuple[str, ...] | None] = None
    needs: ClassVar[str] = ""
    restarts: ClassVar[bool] = True
    elastic: ClassVar[bool] = True
    processes: ClassVar[bool] = False
    sends_pieces: ClassVar[bool] = False
    overlaps: ClassVar[bool] = False
    by_class: ClassVar[bool] = False
    routed: ClassVar[bool] = False
    same_batches: ClassVar[bool] = False
    shortens: ClassVar[bool] = True
    travels: ClassVar[bool] = True
    lr: ClassVar[float] = 0.3

    @property
    def dealt(self) -> Law | None:
        """How units are dealt to workers, None where nothing is cut."""
        return None

    def dealt_by(self, law: Law) -> Strategy:
        """Return the strategy with another law, where it has one."""
        return dataclasses.replace(self, law=law) if self.dealt is not None else self  # type: ignore[call-arg]

    @property
    def balances(self) -> bool:
        """Whether all classes are as frequent in batches, whatever they are in the data."""
        return False

    @property
    def scales(self) -> bool:
        """Whether the merged network's weights are scaled when it is used."""
        return False

    @property
    def title(self) -> str:
        """The name, and what sets this one apart."""
        return self.name

    @property
    def slug(self) -> str:
        """The same as part of a file's name."""
        return self.name

    def check_workers(self, workers: int) -> None:
        """Refuse a number of workers that does not fit.

        Raises:
            InvalidInput: it does not.
        """
        if self.dealt is not None:
            self.dealt.check(workers)

    def check_cut(self, cut: Sequence[str] | None) -> tuple[str, ...] | None:
        """Return which axes are to be cut, None for those that a network is cut at by default.

        Args:
            cut: as a user asks for it.

        Raises:
            InvalidInput: it would have no effect.
        """
        if cut is not None and tuple(cut) != self.axes:
            if not self.cuts:
                raise InvalidInput(f"`cut` has no effect with strategy {self.name!r}, which cuts nothing")
            if self.axes is not None:
                raise InvalidInput(f"`cut` has no effect with strategy {self.name!r}, which cuts {' '.join(self.axes)}")
        return self.axes if cut is None else tuple(cut)

    @property
    def identity(self) -> dict[str, Any]:
        """What a checkpoint must have been written with, as plain data."""
        return self.record()

    def record(self) -> dict[str, Any]:
        """Return the strategy as plain data: its fields, and those of its law where that is chosen."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        dealt = None if values.pop("law", None) is None else self.dealt
        return {"strategy": self.name, **values, **({} if dealt is None else dealt.record())}
