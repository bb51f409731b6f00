"""Where a factor on what units contribute can be folded into parameters, so that the network keeps its plain graph.

A parameter is followed through the graph as long as its entries only move (views, permutations, slices). What it meets
then is a *use*. A factor is folded into the entries of a parameter if all their uses ask for the same one.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from isthmus.nets.axes.blocks import Removal
from isthmus.nets.axes.call import operator_name
from isthmus.nets.graph.exported import ExportedGraph
from isthmus.nets.graph.flow import placeholders, region_of
from isthmus.nets.graph.moves import MOVES, SAME
from isthmus.nets.pieces.pattern import Pattern, distinct

_MERGES = {"view", "reshape", "_unsafe_view", "flatten", "unflatten"}  # dimensions of the parameter may become one
_PARTS = {"expand", "select", "slice", "narrow", "split_with_sizes", "unbind", "getitem"}  # not one entry for each
_PASSES = SAME | MOVES | {"dropout", "feature_dropout", "alpha_dropout"}
_AFFINE = {
    "linear": ("weight", "bias"),
    "addmm": ("mat2", "self"),
    **{f"conv{t}{d}d": ("weight", "bias") for t in ("", "_transpose") for d in (1, 2, 3)},
    **{f"{name}_norm": ("weight", "bias") for name in ("batch", "layer", "group", "rms", "instance")},
}
_PRODUCTS = {"mul", "matmul", "mm", "bmm", "mv", "einsum"}
_CHANNEL_NORMS = {"batch_norm", "instance_norm"}
_NORMS = _CHANNEL_NORMS | {"layer_norm", "group_norm", "rms_norm"}


class Unfoldable(Exception):
    """A factor cannot be folded, with the reason."""


@dataclass(frozen=True)
class Use:
    """``consumer`` computes with ``operand``, which is a parameter after some moves."""

    consumer: fx.Node
    operand: fx.Node
    moves: tuple[fx.Node, ...]


def parameter_uses(exported: ExportedGraph) -> dict[str, list[Use]]:
    """Return all uses of every parameter, buffer and constant of a graph, those in its regions included."""
    placeholders = [node for node in exported.module.graph.nodes if node.op == "placeholder"]
    found: dict[str, list[Use]] = {}
    for node, name in zip(placeholders, exported.state, strict=False):
        found.setdefault(name, []).extend(_follow(exported.module, node, ()))
    return found


def fold(shape: Sequence[int], wanted: Sequence[tuple[Use, Pattern]]) -> Pattern:
    """Return the factor of every entry of a parameter, broadcastable to its shape.

    Args:
        shape: of the parameter.
        wanted: for every use the factors on its operand, broadcastable to that.

    Raises:
        Unfoldable: an entry of which two uses want different factors.
    """
    moves = {name_of(node) for use, _ in wanted for node in use.moves} - SAME
    (_, first), *others = wanted
    if not others and not moves:
        return first
    if not moves & _PARTS and all(factors.table.numel() == 1 for _, factors in wanted):
        if any(factors.table.item() != first.table.item() for _, factors in others):
            raise Unfoldable(_TIED)
        return Pattern(first.table.reshape((1,) * len(shape)), (None,) * len(shape))
    if moves & _MERGES:
        return _entry_by_entry(shape, wanted)
    return _joined(shape, [_seen(use, factors, shape) for use, factors in wanted])


_TIED = "the weight is used more than once and needs different factors (tied)"
_Seen = tuple[NDArray[np.float64], list[NDArray[np.int64]]]


def _seen(use: Use, factors: Pattern, shape: Sequence[int]) -> _Seen:
    """Return a use's factors by the parameter's own dimensions: a table, and each index's place in it, -1 unseen."""
    table, rank = factors.table.numpy(), len(shape)
    free, order, places = set(range(table.ndim)), [], []
    for dim, size in enumerate(shape):
        along = torch.arange(size).reshape([-1 if d == dim else 1 for d in range(rank)]).expand(tuple(shape))
        moved = _moved(use, along)
        where = next((d for d in range(moved.dim()) if moved.shape[d] > 1 and moved.stride(d) != 0), None)
        found = moved[tuple(slice(None) if d == where else 0 for d in range(moved.dim()))].reshape(-1)
        labels = None if where is None else factors.labels[where]
        place = np.full(size, -1)
        if labels is not None:
            place[found] = labels
        else:
            place[found] = np.arange(len(found)) if where is not None and table.shape[where] > 1 else 0
        order.append(where)
        places.append(place)
        free.discard(-1 if where is None else where)
    for dim in free:  # an entry that meets several units of this dimension
        if np.any(table != table.take([0], axis=dim)):
            raise Unfoldable(_TIED)
    kept = [where for where in order if where is not None]
    table = table[tuple(slice(None) if d in kept else 0 for d in range(table.ndim))]
    table = table.transpose([sorted(kept).index(where) for where in kept])
    return table.reshape([1 if where is None else factors.table.shape[where] for where in order]), places


def _joined(shape: Sequence[int], uses: Sequence[_Seen]) -> Pattern:
    """Return the factors that all uses agree on, 1 where none sees an entry."""
    firsts, labels = zip(*(distinct(np.stack([p[dim] for _, p in uses], 1)) for dim in range(len(shape))), strict=True)
    result = np.full([len(first) for first in firsts], np.nan)
    for table, places in uses:
        here = [place[first] for place, first in zip(places, firsts, strict=True)]
        cells = np.ix_(*(np.flatnonzero(place >= 0) for place in here))
        values = table[np.ix_(*(place[place >= 0] for place in here))]
        if np.any(~np.isnan(result[cells]) & (result[cells] != values)):
            raise Unfoldable(_TIED)
        result[cells] = values
    return Pattern.compressed(np.where(np.isnan(result), 1.0, result), labels)


def _entry_by_entry(shape: Sequence[int], wanted: Sequence[tuple[Use, Pattern]]) -> Pattern:
    """Return what :func:`fold` does for any moves, with an index for every entry of the parameter."""
    result = np.full(int(np.prod(shape)), np.nan)
    for use, factors in wanted:
        entries = _moved(use, torch.arange(len(result)).reshape(tuple(shape))).numpy()
        values = np.broadcast_to(factors.tensor().numpy(), entries.shape).ravel()
        places = entries.ravel()
        known = ~np.isnan(result[places])
        clash = bool(np.any(known & (result[places] != values)))
        result[places] = values
        if clash or np.any(result[places] != values):
            raise Unfoldable(_TIED)
    return Pattern.compressed(np.where(np.isnan(result), 1.0, result).reshape(shape), [np.arange(n) for n in shape])


def branch_parameters(removal: Removal, uses: Mapping[str, Sequence[Use]]) -> list[str]:
    """Return the parameters of the last affine operators of a residual branch: times p, they make the branch times p.

    Raises:
        Unfoldable: something else lies between them and the addition, or they are used elsewhere too.
    """
    by_operand: dict[fx.Node, list[str]] = {}
    for name, all_uses in uses.items():
        for use in all_uses:
            by_operand.setdefault(use.operand, []).append(name)
    operands = _last_affine(removal.branch, removal, by_operand)
    names = [name for operand in operands for name in by_operand.get(operand, [""])]
    if any(not name or len(uses[name]) > 1 for name in names):
        raise Unfoldable("the last weight of the branch is computed, or used twice")
    return names


def absorbed(node: fx.Node) -> bool:
    """Whether a factor common to the whole sum that ``node`` computes is absorbed by a norm right after it.

    Batch and instance norms shift every channel by itself, so a bias before them is absorbed with it; before the
    other norms it is not.
    """
    bias = arguments_of(node).get("self" if name_of(node) in ("addmm", "addmv", "baddbmm") else "bias")
    return _leads_to(node, _NORMS if bias is None else _CHANNEL_NORMS)


def _leads_to(node: fx.Node, norms: set[str]) -> bool:
    found = [name_of(user) in norms or (name_of(user) in _PASSES and _leads_to(user, norms)) for user in node.users]
    return bool(found) and all(found)


def _last_affine(node: fx.Node, removal: Removal, known: Container[fx.Node]) -> list[fx.Node]:
    """Return the operands to multiply so that ``node`` is multiplied; ``known`` are parameters after some moves."""
    if node in known:
        return [node]
    if node not in removal.dead or len(node.users) > 1:
        raise Unfoldable("the branch is used elsewhere too")
    name, arguments = name_of(node), arguments_of(node)
    inputs = [each for each in node.all_input_nodes if isinstance(each.meta.get("val"), Tensor)]
    if name in _AFFINE:
        wanted = [arguments.get(key) for key in _AFFINE[name]]
        if wanted[0] is None:
            raise Unfoldable(f"the last operator of the branch ({name}) has no weight")
        return [operand for operand in wanted if isinstance(operand, fx.Node)]
    if name in _PRODUCTS and any(each in known for each in inputs):
        return [next(each for each in inputs if each in known)]
    if name in ("add", "sub") and len(inputs) == 2:
        return [operand for each in inputs for operand in _last_affine(each, removal, known)]
    if inputs == list(node.args[:1]) and (name in _PASSES or name in ("mul", "div", "neg")):
        return _last_affine(inputs[0], removal, known)
    raise Unfoldable(f"{name} lies between the last weight of the branch and the addition")


def _follow(owner: fx.GraphModule, node: fx.Node, moves: tuple[fx.Node, ...]) -> Iterator[Use]:
    for user in node.users:
        name = name_of(user)
        if name in SAME | MOVES | {"getitem"} and user.all_input_nodes == [node]:
            yield from _follow(owner, user, (*moves, user))
            continue
        places = [place for place, each in enumerate(_flat(user)) if each is node]
        region = region_of(owner, user)
        if region is not None:
            for placeholder, operand in zip(placeholders(region.graph), region.given, strict=True):
                if operand is node:
                    yield from _follow(region.graph, placeholder, moves)
        else:
            yield from (Use(user, node, moves) for _ in places)


def _moved(use: Use, value: Any) -> Tensor:
    """Return a tensor of the parameter's shape after the moves of a use."""
    for node in use.moves:
        if name_of(node) not in SAME:
            step = partial(_instead, value)
            value = node.target(*fx.map_arg(node.args, step), **fx.map_arg(node.kwargs, step))  # type: ignore[operator]
    moved: Tensor = value
    return moved


def _instead(value: Any, _: fx.Node) -> Any:
    return value


def name_of(node: fx.Node) -> str:
    """Return the plain name of one of torch's operators, the same for its form in place; others keep their namespace.

    A view as another type does not move entries and has a name of its own.
    """
    name = operator_name(node).removeprefix("aten.")
    if name == "view" and not isinstance(arguments_of(node).get("size"), (list, tuple)):
        return "view as a type"
    return name[:-1] if name.endswith("_") and not name.endswith("__") else name


def arguments_of(node: fx.Node) -> dict[str, Any]:
    """Return the arguments of an operator by the names of its schema."""
    schema = getattr(node.target, "_schema", None)
    names = [] if schema is None else [argument.name for argument in schema.arguments]
    return {**dict(zip(names, node.args, strict=False)), **node.kwargs}


def _flat(node: fx.Node) -> list[Any]:
    found: list[Any] = []
    fx.map_arg((node.args, node.kwargs), found.append)
    return found
