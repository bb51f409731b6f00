"""What a network's computation says about its units, as plain data: axes, what is kept whole, the graphs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from isthmus.nets.axes.blocks import Block
from isthmus.nets.axes.records import Dims, Propagation
from isthmus.nets.axes.terms import Atom
from isthmus.nets.graph.example import Example
from isthmus.nets.graph.exported import ExportedGraph
from isthmus.nets.graph.state import StateEntry
from isthmus.nets.graph.writes import writes

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


@dataclass(frozen=True)
class LastLayer:
    """What makes the classes that a network returns scores of, along the last dimension of its first result.

    Attributes:
        axis: its units are the classes; None where they cannot be told apart.
        problem: why not, "" if they can.
    """

    axis: Axis | None
    problem: str = ""


@dataclass(frozen=True, eq=False)
class Structure:
    """Everything that cutting a network needs to know of it.

    Attributes:
        axes: everything that may be cut, cut here or not.
        whole: what is kept whole, with reasons.
        entries: parameters and buffers.
        dims: the term of every dimension of each of them, and of the constants.
        constants: tensors made while tracing, by name.
        exports, propagations: the graphs of "train" and "eval", and what they say about the axes.
        example: the call the network was traced with.
        classes: of the submodules that are torch's own, by path.
        fixed_inputs: input sizes a subnetwork is bound to (all others are open).
        problems: operators without a rule, and what else the trace wants to say.
        last: the layer that makes the classes' scores; its axis is not among the others, as it is cut in another way.
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
    fixed_inputs: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    last: LastLayer | None = field(default=None, repr=False)

    @property
    def all_axes(self) -> tuple[Axis, ...]:
        """The axes, and that of the last layer where it can be told."""
        found = None if self.last is None else self.last.axis
        return self.axes if found is None else (*self.axes, found)

    @property
    def cut_axes(self) -> tuple[Axis, ...]:
        """The axes that are cut."""
        return tuple(axis for axis in self.axes if axis.cut)


def written(structure: Structure) -> frozenset[str]:
    """Return the names of the parameters and buffers that a forward pass in training writes to."""
    exported = structure.exports["train"]
    targets = {origin for _, origin in writes(exported.module)}
    found = {name for node, name in exported.state_nodes.items() if node in targets and name in structure.entries}
    return frozenset(found | set(exported.mutated))
