"""Cut: one worker's small dense network, with the index set of everything it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from isthmus.errors import InvalidInput
from isthmus.nets.axes.choosing import AnyStructure
from isthmus.nets.axes.evaluation import evaluate
from isthmus.nets.axes.structure import Structure
from isthmus.nets.axes.terms import Atom, Indices
from isthmus.nets.pieces.held import index_sets, kept, layout_of, missing_blocks, missing_state, placed
from isthmus.nets.pieces.laws import NetPartition
from isthmus.nets.pieces.ownership import MOVABLE, Held, as_tensor, slice_tensor
from isthmus.nets.pieces.rewrite import Rewriter
from isthmus.nets.pieces.runnable import GraphNetwork, Mode, Outline

Graphs = dict[Any, dict[str, Mode]]  # by the sizes of a cut

built_graphs: WeakKeyDictionary[Structure, Graphs] = WeakKeyDictionary()
"""Graphs of subnetworks already built: as long as the structure they are cut from lives."""

_GRAPHS = 64  # kept: units that do not divide evenly, or blocks drawn anew, come in ever new combinations of sizes

Source = nn.Module | Mapping[str, Tensor] | Callable[[str, Held], Tensor]


@dataclass(frozen=True, eq=False)
class Subnetwork:
    """A worker's part of a network.

    Attributes:
        module: runs and trains like the whole: same call, same parameter names, smaller.
        indices: for every parameter and buffer it holds, the index set per dimension (None: all of it).
        worker: whose it is.
        held: the units of each cut axis it holds.
    """

    module: GraphNetwork
    indices: Mapping[str, Held] = field(repr=False)
    worker: int = 0
    held: Mapping[str, Indices] = field(default_factory=dict, repr=False)

    def state(self) -> dict[str, Tensor]:
        """Return its parameters and buffers by name, tied ones once; detached, not copied."""
        tensors = dict(named_state(self.module))
        return {name: tensors[name].detach() for name in self.indices}

    def slice(self, name: str, tensor: Tensor) -> Tensor:
        """Return the entries it holds of any tensor shaped like a parameter (a gradient, a moment), fresh."""
        return slice_tensor(tensor, self.indices[name])


def cut(
    model: Source,
    coupling: Structure,
    partition: NetPartition,
    worker: int,
    factors: Mapping[str, float] | None = None,
) -> Subnetwork:
    """Return the subnetwork of one worker; only the entries it holds are copied.

    Args:
        model: the network; or its state by name; or a function from (name, index sets) to the slice, for networks
            that no machine holds whole.
        coupling: of the network, from :func:`isthmus.trace`.
        partition: from ``coupling.partition``.
        worker: 0 .. n-1.
        factors: by axis, multiplies what its units contribute (see ``isthmus.nets.scaling``); 1 where missing.

    Raises:
        InvalidInput: no such worker, or a state that does not fit the coupling.
    """
    return build(model, coupling, partition.of(worker), worker, factors)


def build(
    model: Source,
    coupling: Structure,
    held: Mapping[str, Indices],
    worker: int = 0,
    factors: Mapping[str, float] | None = None,
) -> Subnetwork:
    """Return the network restricted to given units of each axis.

    The graphs depend on the sizes of the cut alone and are shared between all subnetworks of the same sizes.
    """
    modes, state, indices = _parts(model, coupling, held, factors or {})
    network = GraphNetwork(Outline(coupling.entries, coupling.example, coupling.classes), modes, state)
    if isinstance(model, nn.Module) and network.training != model.training:
        network.train(model.training)
    return Subnetwork(network, indices, worker, dict(held))


def blank(coupling: AnyStructure, device: torch.device) -> tuple[Callable[[str, Held], Tensor], AnyStructure]:
    """Return what :func:`build` takes to make subnetworks without values, to look at; nothing of them is kept."""

    def read(name: str, held: Held) -> Tensor:
        entry = coupling.entries[name]
        sizes = zip(entry.shape, held, strict=True)
        shape = [size if indices is None else len(indices) for size, indices in sizes]
        return torch.empty(shape, dtype=entry.dtype, device=device)

    constants = {n: torch.empty(t.shape, dtype=t.dtype, device=device) for n, t in coupling.constants.items()}
    return read, replace(coupling, constants=constants)


def rebuild(
    subnetwork: Subnetwork,
    model: Source,
    coupling: Structure,
    held: Mapping[str, Indices],
    factors: Mapping[str, float] | None = None,
) -> Subnetwork:
    """Return what :func:`build` returns, around the same module: it becomes the network restricted to other units.

    Its parameters, submodules and hooks stay the objects they are; their shapes and values change, and gradients are
    dropped. Parameters of blocks that are not held leave the module, and are in ``module.parameter_objects`` still.

    Args:
        subnetwork: of the same network; it is not to be used any more.
        model, coupling, held, factors: as for :func:`build`.
    """
    modes, state, indices = _parts(model, coupling, held, factors or {})
    subnetwork.module.become(modes, state)
    return Subnetwork(subnetwork.module, indices, subnetwork.worker, dict(held))


def refill(subnetwork: Subnetwork, read: Callable[[str, Held], Tensor]) -> None:
    """Give a subnetwork other values of the entries it holds; its graphs stay, gradients are dropped.

    Args:
        subnetwork: to fill.
        read: returns the slice of a parameter or buffer, from its name and index sets; it becomes the subnetwork's own.
    """
    tensors = dict(named_state(subnetwork.module))
    for name, held in subnetwork.indices.items():
        tensor, values = tensors[name], read(name, held)
        tensor.grad = None
        if tensor.data_ptr() != values.data_ptr():
            tensor.data = values


def named_state(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Return parameters and buffers under every name they have."""
    return list(_tensors(module).items())


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return what :func:`named_state` returns, by name; torch's own iterators take longer than copying thin layers."""
    parameters: dict[str, Tensor] = {}
    buffers: dict[str, Tensor] = {}

    def visit(module: nn.Module, prefix: str) -> None:
        for table, found in ((module._parameters, parameters), (module._buffers, buffers)):
            for leaf, each in table.items():
                if each is not None:
                    found[prefix + leaf] = each
        for name, child in module._modules.items():
            if child is not None:
                visit(child, f"{prefix}{name}.")

    visit(module, "")
    parameters.update(buffers)
    return parameters


def _parts(
    model: Source, coupling: Structure, held: Mapping[str, Indices], factors: Mapping[str, float]
) -> tuple[dict[str, Mode], dict[str, Tensor], dict[str, Held]]:
    """Return the graphs of a cut, what they take, and the index sets of that."""
    sets, gone = index_sets(coupling, held), missing_state(coupling, held)
    indices = placed(coupling, gone, sets)
    units = kept(coupling, held)
    if isinstance(model, nn.Module | Mapping):
        state = _sliced(model if isinstance(model, Mapping) else _tensors(model), coupling, indices, sets)
    else:
        state = {name: model(name, index) for name, index in indices.items()}
    device = next((tensor.device for tensor in state.values()), torch.device("cpu"))
    for name, tensor in coupling.constants.items():
        part = slice_tensor(tensor, tuple(evaluate(term, units) for term in coupling.dims[name]))
        state[name] = part.to(device) if part.device != device else part
    scaled = _by_atom(coupling, factors)
    lacking = tuple(sorted(gone))
    sizes = tuple((name, len(units)) for name, units in sorted(held.items()))
    key = (sizes, lacking, tuple(sorted(factors.items())), device)
    graphs = built_graphs.setdefault(coupling, {})
    modes = graphs.pop(key, None) or _modes(coupling, held, units, scaled, device)
    graphs[key] = modes  # the latest last
    if len(graphs) > _GRAPHS:
        del graphs[next(iter(graphs))]
    return modes, state, indices


def _modes(
    coupling: Structure,
    held: Mapping[str, Indices],
    units: Mapping[Atom, Indices],
    factors: Mapping[Atom, float],
    device: torch.device,
) -> dict[str, Mode]:
    modes = {}
    missing = missing_blocks(coupling, held)
    gone = missing_state(coupling, held)
    for name, exported in coupling.exports.items():
        removals = tuple(block.removals[name] for block in missing)
        takes = exported.state_nodes
        absent = frozenset(node for node, key in takes.items() if key in gone)
        rewriter = Rewriter(coupling.propagations[name], units, removals, absent, factors, device)
        graph = rewriter.copy(exported.module)
        state = tuple(key for node, key in takes.items() if node not in rewriter.dead)
        known = (exported.out_spec, exported.fixed, exported.limits, exported.remainders)
        modes[name] = Mode(graph, state, tuple(exported.mutated), *known)
    return modes


def _by_atom(coupling: Structure, factors: Mapping[str, float]) -> dict[Atom, float]:
    atoms = {axis.name: axis.atom for axis in coupling.axes}
    unknown = set(factors) - set(atoms)
    if unknown:
        raise InvalidInput(f"`factors` names {sorted(unknown)[0]!r}, which is no axis of the network")
    found = ((atoms[name], value) for name, value in factors.items() if value != 1.0)
    return {atom: value for atom, value in found if atom is not None}


def _sliced(
    whole: Mapping[str, Tensor], coupling: Structure, names: Iterable[str], sets: Sequence[Indices | None]
) -> dict[str, Tensor]:
    """Return what is held of a state, fresh: the tensors of some names, at the index sets of their dimensions.

    Raises:
        InvalidInput: a state that does not fit the coupling.
    """
    state, entries, layout = {}, coupling.entries, layout_of(coupling)
    found = [None if each is None else as_tensor(each) for each in (*sets, None)]  # once for all that share one
    cuts = {way: [(dim, units) for dim, place in enumerate(way) if (units := found[place]) is not None]
            for way in layout.ways}  # fmt: skip
    with torch.no_grad():
        for name in names:
            tensor, way = whole.get(name), layout.places[name]
            if tensor is None or tensor.shape != entries[name].shape:
                there = "nothing" if tensor is None else f"shape {tuple(tensor.shape)}"
                raise InvalidInput(f"`model` must hold {name!r} of shape {entries[name].shape}, got {there}")
            if tensor.dtype not in MOVABLE or tensor.is_cuda:
                state[name] = slice_tensor(tensor, [found[place] for place in way])
                continue
            part = tensor  # as slice_tensor does, without the two calls, which take longer than slicing thin layers
            for dim, units in cuts[way]:
                part = part.index_select(dim, units)
            state[name] = part.clone() if part is tensor else part
    return state
