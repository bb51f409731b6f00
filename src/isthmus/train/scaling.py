"""Evaluation scales: what makes a merged network's pre-activations match those its pieces were trained with.

In training nothing is scaled. A worker that holds unit i adds up w_ij h_j over the units j it holds too; the merged
network adds up all j. It matches in the mean when w_ij is multiplied by

    s_ij = P(column j is held | row i is held)

where the columns are units of the hidden layer below. Without a core that is 1/n; units of a core are always held, so
there it is 1. Under ``uniform`` a core is drawn anew every round, so every unit is held with the same probability
c + (1 - c) / n. Under ``block`` the pieces of all layers go together: within a piece s is 1 (a unit sees exactly what
it saw in training), a core unit sees each piece 1/n of the time, and the output averages the pieces' logits. Where
batch norm follows, a factor common to a whole row is absorbed by its statistics; the output layer always needs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isthmus.nets.ownership import State
from isthmus.partitions import Partition

_CORE = -1


def evaluation_scales(law: str, partitions: Sequence[Partition]) -> dict[str, Tensor]:
    """Return s for every weight with a cut input, by name, to be multiplied with it: [1, in] or [out, in].

    >>> from isthmus.partitions import partition_at
    >>> evaluation_scales("fixed", [partition_at("fixed", 4, 2, 0, "hidden0")])["output.weight"].tolist()
    [[0.5, 0.5, 0.5, 0.5]]
    """
    scales = {}
    for layer, columns in enumerate(partitions):
        last = layer + 1 == len(partitions)
        scale = _held_probability(law, columns)[None, :]
        if law == "block" and not last:
            from_core_rows = _owners(partitions[layer + 1])[:, None] == _CORE
            scale = np.where(from_core_rows, scale, 1.0) if len(columns.core) else np.ones_like(scale)
        name = "output.weight" if last else f"hidden.{layer + 1}.weight"
        scales[name] = torch.from_numpy(scale.astype(np.float32))
    return scales


def zero_cross_blocks(state: State, partitions: Sequence[Partition]) -> None:
    """Set to zero, in place, the hidden weights between units of different pieces, which no worker ever holds."""
    for layer, (columns, rows) in enumerate(pairwise(partitions), start=1):
        of_rows, of_columns = _owners(rows)[:, None], _owners(columns)[None, :]
        crossing = (of_rows != of_columns) & (of_rows != _CORE) & (of_columns != _CORE)
        state[f"hidden.{layer}.weight"].masked_fill_(torch.from_numpy(crossing), 0.0)


def _held_probability(law: str, partition: Partition) -> NDArray[np.float64]:
    """Return, for every unit, the probability that a worker holds it."""
    workers, units = partition.workers, partition.units
    if law == "uniform":
        return np.full(units, sum(partition.sizes) / (workers * units))
    return np.where(_owners(partition) == _CORE, 1.0, 1.0 / workers)


def _owners(partition: Partition) -> NDArray[np.int64]:
    """Return the worker that holds each unit; -1 for the core."""
    owners = np.full(partition.units, _CORE, dtype=np.int64)
    for worker, block in enumerate(partition.blocks):
        owners[block] = worker
    return owners
