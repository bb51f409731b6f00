"""Merge: the subnetworks' entries back into the whole, by ownership alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from isthmus.errors import InvalidInput
from isthmus.nets.axes.structure import Structure
from isthmus.nets.pieces.held import index_map
from isthmus.nets.pieces.laws import NetPartition
from isthmus.nets.pieces.ownership import IndexMap, merge_into
from isthmus.nets.pieces.pattern import Pattern, distinct
from isthmus.nets.pieces.subnetwork import Subnetwork, named_state


def merge(model: nn.Module, subnetworks: Sequence[Subnetwork]) -> nn.Module:
    """Write the subnetworks' parameters and buffers back into the network, in place, and return it.

    An entry that one worker holds is copied, one that several hold becomes the mean over its holders, one that none
    holds keeps its value.

    Raises:
        InvalidInput: no subnetwork, or one that does not fit the network.
    """
    if not subnetworks:
        raise InvalidInput("`subnetworks` must hold at least one, got none")
    whole = dict(named_state(model))
    parts = [(sub.state(), sub.indices) for sub in subnetworks]
    with torch.no_grad():
        for name in dict.fromkeys(name for state, _ in parts for name in state):
            if name not in whole:
                raise InvalidInput(f"`model` has no parameter or buffer {name!r}, which a subnetwork brings")
            merge_into(whole[name], [(state[name], indices[name]) for state, indices in parts if name in state])
    return model


def zero_cross_blocks(model: nn.Module, coupling: Structure, partition: NetPartition) -> nn.Module:
    """Set to zero, in place, every entry of a parameter that no worker holds this round."""
    whole = dict(named_state(model))
    maps = [index_map(coupling, partition.of(worker)) for worker in range(partition.workers)]
    with torch.no_grad():
        for name, entry in coupling.entries.items():
            if entry.is_parameter:
                for part, count in _count(name, entry.shape, maps).over(whole[name]):
                    part.masked_fill_((count == 0).to(part.device), 0.0)
    return model


@dataclass(frozen=True)
class Coverage:
    """How often the entries of the parameters were trained over some rounds.

    Attributes:
        rounds: number of rounds.
        least, mean: over all entries, the number of rounds in which at least one worker held it.
        never: fraction of entries that no worker ever held.
        by_tensor: (least, mean, never) of every parameter.
    """

    rounds: int
    least: int
    mean: float
    never: float
    by_tensor: Mapping[str, tuple[int, float, float]]


def coverage(coupling: Structure, partitions: Sequence[NetPartition]) -> Coverage:
    """Return how often each parameter's entries were trained over the rounds of the given partitions.

    Raises:
        InvalidInput: no partition.
    """
    if not partitions:
        raise InvalidInput("`partitions` must hold at least one, got none")
    totals: dict[str, np.ndarray] = {}
    for partition in partitions:
        for name, count in holders(coupling, partition).items():
            if coupling.entries[name].is_parameter:
                seen = (count > 0).astype(np.int64)
                totals[name] = totals[name] + seen if name in totals else seen
    by_tensor = {k: (int(t.min()), float(t.mean()), float((t == 0).mean())) for k, t in totals.items() if t.size}
    size = sum(t.size for t in totals.values())
    return Coverage(
        rounds=len(partitions),
        least=min(least for least, _, _ in by_tensor.values()),
        mean=sum(float(t.sum()) for t in totals.values()) / size,
        never=sum(int((t == 0).sum()) for t in totals.values()) / size,
        by_tensor=by_tensor,
    )


def holders(coupling: Structure, partition: NetPartition) -> dict[str, np.ndarray]:
    """Return for every entry of every parameter and buffer the number of workers that hold it."""
    maps = [index_map(coupling, partition.of(worker)) for worker in range(partition.workers)]
    counts = {name: _count(name, entry.shape, maps) for name, entry in coupling.entries.items()}
    return {name: count.tensor().expand(coupling.entries[name].shape).numpy() for name, count in counts.items()}


def _count(name: str, shape: tuple[int, ...], maps: Sequence[IndexMap]) -> Pattern:
    """Return the number of workers that hold each entry; indices that the same workers hold are one class."""
    sets = [index_map[name] for index_map in maps if name in index_map]
    firsts, labels, masks = [], [], []
    for dim, size in enumerate(shape):
        held = np.zeros((size, len(sets)), np.bool_)
        for worker, index_set in enumerate(sets):
            held[slice(None) if index_set[dim] is None else index_set[dim], worker] = True
        first, same = distinct(held)
        firsts.append(first)
        labels.append(same)
        masks.append(held[first])
    table = np.zeros([len(first) for first in firsts], np.int64)
    for worker in range(len(sets)):
        entry = np.ones((1,) * len(shape), np.int64)
        for dim, mask in enumerate(masks):
            entry = entry * mask[:, worker].reshape([-1 if d == dim else 1 for d in range(len(shape))])
        table += entry
    return Pattern.compressed(table, labels)
