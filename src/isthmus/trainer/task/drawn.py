"""The initial values of the perceptron that is trained where no other network is named, drawn by name."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from isthmus.nets.models.mlp import MLP, MLPSpec, initial_rows
from isthmus.trainer.task.initial import rows_of, tensors_of

_STARTS = {"weight": 1, "bias": 0, "running_mean": 0, "running_var": 1, "num_batches_tracked": 0}


class Drawn:
    """Values of an MLP as :func:`isthmus.nets.models.mlp.initialize` sets them, a few rows at a time."""

    in_turn, note = False, ""

    def __init__(self, spec: MLPSpec, seed: int, given: Mapping[str, Tensor]) -> None:
        """Note what they follow from.

        Args:
            spec, seed: of the network and the run.
            given: the values of other tensors, by name.
        """
        self._shapes, self._seed, self._given = tensors_of(MLP(spec, "meta")), seed, given

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Return some rows of a tensor."""
        tensor = self._shapes[name]
        if name in self._given:
            return rows_of(self._given[name].to(tensor.dtype).expand(tensor.shape), start, stop)
        if tensor.dim() == 2:
            return initial_rows(name, tensor, self._seed, start, stop)
        value = _STARTS[name.rpartition(".")[2]]
        return torch.full((stop - start, *tensor.shape[1:]) if tensor.dim() else (), value, dtype=tensor.dtype)

    def drop(self) -> None:
        """Do nothing."""

    def mark(self) -> str:
        """Return "": every worker computes the same."""
        return ""
