"""Which dimensions of which parameters share the same units, what may be cut, and what is kept whole and why."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table
from torch import Tensor, nn

from isthmus import partitions
from isthmus.errors import InvalidInput, check_integer
from isthmus.nets import display, terms
from isthmus.nets.blocks import Block
from isthmus.nets.example import Example
from isthmus.nets.exported import ExportedGraph, StateEntry
from isthmus.nets.laws import NetPartition, colours
from isthmus.nets.ownership import Held
from isthmus.nets.propagation import Dims, Propagation
from isthmus.nets.terms import Atom, Indices
from isthmus.partitions import Law, law_of

if TYPE_CHECKING:
    from isthmus.nets.last_layer import LastLayer
    from isthmus.nets.verdict import Verdict

Comparison = Callable[..., "Verdict"]  # of a coupling, a network and a call
NOT_ASKED = "not asked for"
KINDS = ("hidden", "channel", "head", "ffn", "expert", "stream", "block")


@dataclass(frozen=True)
class Member:
    """One dimension of one parameter or buffer that holds an axis.

    Attributes:
        name, dim: the tensor and its dimension.
        layout: how the dimension is made up, outermost first: "units", "units x 64", "3 x units x 64",
            "units | 10 | units".
        per_unit: entries of the dimension that one unit takes.
    """

    name: str
    dim: int
    layout: str
    per_unit: int


@dataclass(frozen=True)
class Axis:
    """A set of units that are kept or dropped together wherever they appear.

    Attributes:
        name: the submodule whose output they are.
        size: number of units.
        kind: hidden, channel, head, ffn, expert, stream or block; class, of the last layer.
        members: where they appear.
        cut: whether this coupling cuts it.
        why: the reason if it does not, "" if it does.
        outer: the axes, outermost first, that by default are cut rather than this one, which is inside them; it is cut
            for so many workers that they have too few units.
        least: units that a worker must hold (a router takes so many experts).
        own: parameters and buffers that belong to one unit alone, by unit (a list of experts).
        few: whether it is not cut for having too few units for the workers.
    """

    name: str
    size: int
    kind: str
    members: tuple[Member, ...] = field(repr=False)
    cut: bool = True
    why: str = ""
    outer: tuple[str, ...] = field(default=(), repr=False)
    least: int = field(default=1, repr=False)
    few: bool = False
    own: tuple[frozenset[str], ...] = field(default=(), repr=False, compare=False)
    atom: Atom | None = field(default=None, repr=False, compare=False)
    blocks: tuple[Block, ...] = field(default=(), repr=False, compare=False)


@dataclass(frozen=True)
class KeptWhole:
    """Units that no worker may lack, and why."""

    size: int
    reasons: tuple[str, ...]
    members: tuple[tuple[str, int], ...]


@dataclass(frozen=True, eq=False)
class Coupling:
    """What a network's computation says about its units; made by :func:`isthmus.trace`.

    Attributes:
        axes: everything that may be cut, cut here or not.
        whole: what is kept whole, with reasons.
        entries: parameters and buffers.
        dims: the term of every dimension of each of them.
        fixed_inputs: input sizes a subnetwork is bound to (all others are open).
        classes: of the submodules that are torch's own, by path.
        comparison: how cuts are verified.
        problems: operators without a rule, and what else the trace wants to say.
        graphs: those of subnetworks already built, by the sizes of the cut.
        last: the layer that makes the classes' scores; its axis is not among the others, as it is cut in another way.
        served: the couplings for numbers of workers already asked for, by the names of the axes they cut.
    """

    axes: tuple[Axis, ...]
    whole: tuple[KeptWhole, ...] = field(repr=False)
    entries: Mapping[str, StateEntry] = field(repr=False)
    dims: Mapping[str, Dims] = field(repr=False)
    constants: Mapping[str, Tensor] = field(repr=False)
    exports: Mapping[str, ExportedGraph] = field(repr=False)
    propagations: Mapping[str, Propagation] = field(repr=False)
    example: Example = field(repr=False)
    classes: Mapping[str, type[nn.Module]] = field(repr=False)
    comparison: Comparison = field(repr=False)
    fixed_inputs: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    graphs: dict[Any, Any] = field(default_factory=dict, repr=False)
    last: LastLayer | None = field(default=None, repr=False)
    served: dict[frozenset[str], Coupling] = field(default_factory=dict, repr=False)

    @property
    def all_axes(self) -> tuple[Axis, ...]:
        """The axes, and that of the last layer where it can be told."""
        found = None if self.last is None else self.last.axis
        return self.axes if found is None else (*self.axes, found)

    @property
    def cut_axes(self) -> tuple[Axis, ...]:
        """The axes that are cut."""
        return tuple(axis for axis in self.axes if axis.cut)

    def select(self, cut: Sequence[str | Axis]) -> Coupling:
        """Return the same coupling with other axes cut: by kind, by name or pattern ("layers.*.mlp*"), or by axis.

        Raises:
            InvalidInput: an entry that matches no axis.
        """
        chosen: set[str] = set()
        for wanted in cut:
            if isinstance(wanted, Axis):
                names = {axis.name for axis in self.axes if axis.name == wanted.name}
            elif wanted in KINDS:
                names = {axis.name for axis in self.axes if axis.kind == wanted}
            else:
                names = {axis.name for axis in self.axes if fnmatch.fnmatchcase(axis.name, wanted)}
            if not names:
                known = ", ".join(axis.name for axis in self.axes) or "none"
                if wanted in KINDS:
                    raise InvalidInput(f"`cut` names {wanted!r}, and the network has no axis of that kind: {known}")
                raise InvalidInput(f"`cut` must name a kind ({', '.join(KINDS)}) or an axis ({known}), got {wanted!r}")
            chosen |= names
        axes = (
            replace(axis, cut=axis.name in chosen, why="" if axis.name in chosen else axis.why or NOT_ASKED, outer=())
            for axis in self.axes
        )
        return replace(self, axes=tuple(axes), served={})

    def serving(self, workers: int, law: Law | str = "uniform") -> Coupling:
        """Return the coupling with those axes cut that have units enough for so many workers, under a law.

        An axis with too few is left whole, and its ``why`` says so; in its place the axes inside it are looked at, if
        it is cut by default. A law that deals one unit to several workers shares what nothing takes the place of.
        """
        chosen = law_of(law)
        wanted = [axis for axis in self.axes if axis.cut or axis.outer]
        lacking = {axis.name: chosen.too_few(_to_deal(axis), workers) for axis in wanted}
        cut: set[str] = set()
        for least in (workers, 1):
            for axis in wanted:
                inside = any(axis.name in other.outer for other in wanted if other.name in cut)
                enough = lacking[axis.name] is None and axis.size >= least * axis.least
                if enough and not inside and not cut & set(axis.outer):
                    cut.add(axis.name)
        key = frozenset(cut)
        if key not in self.served:
            self.served[key] = replace(self, axes=tuple(_served(axis, cut, lacking) for axis in self.axes), served={})
        return self.served[key]

    def holding(self, partition: NetPartition) -> Coupling:
        """Return the coupling with the axes cut that a partition deals."""
        held = [axis for axis in self.axes if axis.name in partition.held]
        return self if all(axis.cut == (axis in held) for axis in self.axes) else self.select(held)

    @property
    def left_whole(self) -> dict[str, str]:
        """The axes that would be cut but for too few units (see :meth:`serving`), each with what it has."""
        return {axis.name: axis.why for axis in self.axes if axis.few}

    def partition(
        self,
        workers: int,
        seed: int,
        round: int = 0,
        law: Law | str = "uniform",
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
            law: a law, or its name: uniform, fixed, rotated, block, weighted, rolling, overlapping or ``MODULE:CLASS``.
            capacities: relative speed of each worker, for ``weighted``.
            core: fraction of every axis that all workers hold.
            minimum: units a worker is dealt at least, for ``overlapping`` (blocks: the least depth).

        Raises:
            InvalidInput: an unknown law, parameters that it does not take, or no axis with units enough.
        """
        chosen = law_of(law, core, capacities, minimum)
        chosen.check(check_integer("workers", workers, at_least=1))
        if not self.cut_axes:
            raise InvalidInput("no axis of the network is cut by default: print the coupling, name some with `cut`")
        serving = self.serving(workers, chosen)
        if not serving.cut_axes:
            largest = max(self.cut_axes, key=lambda axis: axis.size).name
            why = serving.left_whole[largest]
            others = ", and no other axis has more" if len(self.cut_axes) > 1 else ""
            raise chosen.refusal(largest, f"{why}{others}")
        held = {axis.name: chosen.deal(axis, workers, seed, round) for axis in serving.dealt_axes}
        return NetPartition(workers, chosen, seed, round, held)

    @cached_property
    def dealt_axes(self) -> tuple[partitions.Axis, ...]:
        """The axes that are cut as a law sees them: name, number of units and colour."""
        colour = colours([axis.name for axis in self.cut_axes], self._neighbours())
        return tuple(_to_deal(axis, colour[axis.name]) for axis in self.cut_axes)

    def kept(self, held: Mapping[str, Indices]) -> dict[Atom, Indices]:
        """Return the units of every cut atom that a worker keeps, from those of every axis."""
        by_name = {axis.name: axis for axis in self.all_axes}
        pairs = ((by_name[name].atom, units) for name, units in held.items())
        return {terms.resolve(atom): units for atom, units in pairs if atom is not None}  # type: ignore[misc]

    def missing_blocks(self, held: Mapping[str, Indices]) -> list[Block]:
        """Return the residual blocks that a worker lacks."""
        lacking = []
        for axis in self.axes:
            if axis.blocks and axis.name in held:
                mine = set(held[axis.name].tolist())
                lacking += [block for number, block in enumerate(axis.blocks) if number not in mine]
        return lacking

    def missing_state(self, held: Mapping[str, Indices]) -> set[str]:
        """Return the parameters and buffers that a worker lacks altogether: of blocks, of experts in a list."""
        gone = {name for block in self.missing_blocks(held) for name in block.state}
        for axis in self.axes:
            if axis.own and axis.name in held:
                lacking = np.setdiff1d(np.arange(axis.size), held[axis.name])
                gone |= {name for unit in lacking for name in axis.own[unit]}
        return gone

    def index_map(self, held: Mapping[str, Indices]) -> dict[str, Held]:
        """Return for every parameter and buffer a worker holds its index set per dimension, None for all of it."""
        kept = self.kept(held)
        gone = self.missing_state(held)
        return {
            name: tuple(terms.evaluate(term, kept) for term in dims)
            for name, dims in self.dims.items()
            if name in self.entries and name not in gone
        }

    def sizes(self, held: Mapping[str, Indices]) -> dict[str, int]:
        """Return parameters and bytes (with buffers) of what a worker holds, and the parameters all workers hold."""
        given = [axis for axis in self.axes if axis.name in held]
        dealt = {name for axis in given for block in axis.blocks for name in block.state}
        dealt |= {name for axis in given for unit in axis.own for name in unit}
        result = {"parameters": 0, "bytes": 0, "replicated": 0}
        for name, maps in self.index_map(held).items():
            entry = self.entries[name]
            sizes = zip(entry.shape, maps, strict=True)
            count = math.prod(size if units is None else len(units) for size, units in sizes)
            result["bytes"] += count * entry.dtype.itemsize
            if entry.is_parameter:
                result["parameters"] += count
                result["replicated"] += count if name not in dealt and all(units is None for units in maps) else 0
        return result

    def verify(
        self, model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any] | None = None, *, quick: bool = False
    ) -> Verdict:
        """Compare the trace with the network, cuts with the masked whole, merging with plain means; say what differs.

        See :func:`isthmus.nets.verify`; ``quick``: with two samples and one cut.
        """
        return self.comparison(self, model, args, kwargs, quick=quick)

    def to_dot(self) -> str:
        """Return the coupling as a Graphviz graph: axes joined to the tensors whose dimensions they are."""
        return display.dot(self)

    def table(self) -> Table:
        """Return the axes as a table; those whose names differ in a number only are one row."""
        return display.axes_table(self)

    def reasons(self) -> dict[str, list[str]]:
        """Return for each reason to keep units whole the tensor dimensions it concerns."""
        result: dict[str, list[str]] = {}
        for whole in self.whole:
            short = whole.reasons[0].split(" (aten.")[0]
            result.setdefault(short, []).extend(f"{name}[{dim}]" for name, dim in whole.members)
        return result

    def __str__(self) -> str:
        return display.as_text(self)

    def _neighbours(self) -> dict[str, set[str]]:
        """Return for each cut axis those it shares a parameter with."""
        by_tensor: dict[str, set[str]] = {}
        for axis in self.cut_axes:
            for member in axis.members:
                if self.entries[member.name].is_parameter:
                    by_tensor.setdefault(member.name, set()).add(axis.name)
        result: dict[str, set[str]] = {}
        for names in by_tensor.values():
            for name in names:
                result.setdefault(name, set()).update(names - {name})
        return result


def _to_deal(axis: Axis, colour: int = 0) -> partitions.Axis:
    """Return an axis as a law sees it."""
    return partitions.Axis(axis.name, axis.size, colour, axis.least)


def _served(axis: Axis, cut: set[str], lacking: Mapping[str, str | None]) -> Axis:
    """Return an axis cut or not, with the reason if not."""
    if axis.name in cut:
        return replace(axis, cut=True, why="")
    few = lacking.get(axis.name)
    return replace(axis, cut=False, why=few or axis.why or "another axis serves", few=few is not None)
