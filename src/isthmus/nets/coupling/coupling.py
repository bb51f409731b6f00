"""A coupling: what a network's computation says about its units, and what one may ask of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from torch import nn

from isthmus import partitions
from isthmus.nets.axes import choosing
from isthmus.nets.axes.blocks import Block
from isthmus.nets.axes.structure import Axis, Structure
from isthmus.nets.axes.terms import Atom, Indices
from isthmus.nets.axes.traits import chosen
from isthmus.nets.check.verdict import Verdict
from isthmus.nets.check.verify import verify
from isthmus.nets.coupling import display
from isthmus.nets.pieces import held as holdings
from isthmus.nets.pieces import laws
from isthmus.nets.pieces.laws import NetPartition
from isthmus.nets.pieces.ownership import Held
from isthmus.partitions import Law, law_of


class Coupling(Structure):
    """What a network's computation says about its units; made by :func:`isthmus.trace`.

    It is the plain data of :class:`~isthmus.nets.axes.structure.Structure`; each method is one call of a function.
    """

    def select(self, cut: Sequence[str | Axis]) -> Coupling:
        """Return the same coupling with other axes cut: by kind, by name or pattern ("layers.*.mlp*"), or by axis.

        Raises:
            InvalidInput: an entry that matches no axis.
        """
        return choosing.select(self, cut)

    def serving(self, workers: int, law: Law | str = "uniform") -> Coupling:
        """Return the coupling with those axes cut that have units enough for so many workers, under a law.

        An axis with too few is left whole, and its ``why`` says so; in its place the axes inside it are looked at, if
        it is cut by default. A law that deals one unit to several workers shares what nothing takes the place of.
        """
        return choosing.serving(self, workers, chosen(self, law_of(law))[0])

    def holding(self, partition: NetPartition) -> Coupling:
        """Return the coupling with the axes cut that a partition deals."""
        return choosing.holding(self, partition.held)

    @property
    def left_whole(self) -> dict[str, str]:
        """The axes that would be cut but for too few units (see :meth:`serving`), each with what it has."""
        return choosing.left_whole(self)

    def chosen(self, law: Law | str = "auto") -> tuple[Law, str]:
        """Return the law that ``auto`` stands for with this network, and why; any other law for no reason."""
        return chosen(self, law_of(law))

    def partition(
        self,
        workers: int,
        seed: int,
        round: int = 0,
        law: Law | str | Mapping[str, Law | str] = "uniform",
        capacities: Sequence[float] | None = None,
        core: float = 0.0,
        minimum: int | None = None,
    ) -> NetPartition:
        """Return which units of every cut axis each worker holds this round; the same for all who ask.

        An axis with too few units for the workers is left whole (:meth:`serving` says which).

        Args:
            workers: n.
            seed: of the run.
            round: 0, 1, ...
            law: a law, or its name: auto, uniform, fixed, rotated, block, weighted, rolling, overlapping or
                ``MODULE:CLASS``; or one for each kind of axis (:func:`isthmus.partitions.law_of`).
            capacities: relative speed of each worker, for ``weighted``.
            core: fraction of every axis that all workers hold.
            minimum: units a worker is dealt at least, for ``overlapping`` (blocks: the least depth).

        Raises:
            InvalidInput: an unknown law, parameters that it does not take, or no axis with units enough.
        """
        return laws.partition(self, workers, seed, round, law_of(law, core, capacities, minimum))

    @property
    def dealt_axes(self) -> tuple[partitions.Axis, ...]:
        """The axes that are cut as a law sees them: name, number of units and colour."""
        return laws.dealt_axes(self)

    def kept(self, held: Mapping[str, Indices]) -> dict[Atom, Indices]:
        """Return the units of every cut atom that a worker keeps, from those of every axis."""
        return holdings.kept(self, held)

    def missing_blocks(self, held: Mapping[str, Indices]) -> list[Block]:
        """Return the residual blocks that a worker lacks."""
        return holdings.missing_blocks(self, held)

    def missing_state(self, held: Mapping[str, Indices]) -> set[str]:
        """Return the parameters and buffers that a worker lacks altogether: of blocks, of experts in a list."""
        return holdings.missing_state(self, held)

    def index_map(self, held: Mapping[str, Indices]) -> dict[str, Held]:
        """Return for every parameter and buffer a worker holds its index set per dimension, None for all of it."""
        return holdings.index_map(self, held)

    def sizes(self, held: Mapping[str, Indices]) -> dict[str, int]:
        """Return parameters and bytes (with buffers) of what a worker holds, and the parameters all workers hold."""
        return holdings.sizes(self, held)

    def verify(
        self, model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any] | None = None, *, quick: bool = False
    ) -> Verdict:
        """Compare the trace with the network, cuts with the masked whole, merging with plain means; say what differs.

        See :func:`isthmus.nets.verify`; ``quick``: with two samples and one cut.
        """
        return verify(self, model, args, kwargs, quick=quick)

    def to_dot(self) -> str:
        """Return the coupling as a Graphviz graph: axes joined to the tensors whose dimensions they are."""
        return display.dot(self)

    def table(self) -> Table:
        """Return the axes as a table; those whose names differ in a number only are one row."""
        return display.axes_table(self)

    def reasons(self) -> dict[str, list[str]]:
        """Return for each reason to keep units whole the tensor dimensions it concerns."""
        return display.reasons(self)

    def __str__(self) -> str:
        return display.as_text(self)
