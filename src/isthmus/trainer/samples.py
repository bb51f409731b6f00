"""Samples as a network takes them: features, windows of text, or the nodes of one graph."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from isthmus.data import Dataset
from isthmus.errors import InvalidInput

_BATCH = 1000  # samples of one forward pass without gradients,
_TARGETS = 8192  # and targets: fewer samples if they are long sequences


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples of one part of the data, on a device.

    Attributes:
        features: [m, ...] one sample as the network takes it: float32, or int64 for tokens and node numbers.
        targets: [m] class numbers, or [m, length] one for every position of a sequence; int64.
        graph: features of all nodes and the adjacency, where the samples are nodes of a graph: the network then takes
            the whole graph, and ``features`` says which of its outputs are meant.
    """

    features: Tensor
    targets: Tensor
    graph: tuple[Tensor, Tensor] | None = None

    @property
    def device(self) -> torch.device:
        """Where the samples are."""
        return self.features.device

    def predict(self, call: Callable[..., Any], positions: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Return logits [k, classes] and targets [k] of the samples at some positions.

        Args:
            call: a network, as a function of the tensors that change from batch to batch.
            positions: of the samples.
        """
        targets = self.targets[positions].reshape(-1)
        features = self.features[positions]
        if self.graph is not None:
            return logits_of(call(*self.graph))[features.reshape(-1)], targets
        logits = logits_of(call(features))
        return logits.reshape(-1, logits.shape[-1]), targets

    def batches(self, most: int | None = None) -> Iterator[slice]:
        """Yield positions that cover the first ``most`` samples (all), in even pieces that fit in memory.

        Even, because a statistic that is averaged over pieces must not hang on the few samples of a last one. A graph
        goes through the network as a whole, so its nodes are one piece.
        """
        count = len(self.targets) if most is None else min(most, len(self.targets))
        step = count if self.graph is not None else max(1, min(_BATCH, _TARGETS // self.targets[:1].numel()))
        pieces = math.ceil(count / step)
        for start, stop in pairwise(count * piece // pieces for piece in range(pieces + 1)):
            yield slice(start, stop)


def samples_of(data: Dataset, example: Tensor, device: torch.device) -> Samples:
    """Return a data set as samples like those of an example call: their shape, and its type of real numbers."""
    real = example.dtype if example.is_floating_point() else torch.float32
    features = torch.from_numpy(data.features)
    features = features.to(real if features.is_floating_point() else torch.int64)
    if data.graph is None:
        features = features.reshape(len(features), *example.shape[1:])
    targets = torch.from_numpy(data.targets).to(device=device, dtype=torch.int64)
    graph = None
    if data.graph is not None:
        both = (data.graph.features, data.graph.adjacency)
        graph = tuple(torch.from_numpy(part).to(device=device, dtype=real) for part in both)
    return Samples(features.to(device), targets, graph)  # type: ignore[arg-type]


def logits_of(output: Any) -> Tensor:
    """Return the logits among what a network returns: a tensor, something with ``logits``, or the first of several.

    Raises:
        InvalidInput: none of these.
    """
    if isinstance(output, (tuple, list)) and output and not hasattr(output, "logits"):
        output = output[0]
    found = output.get("logits") if isinstance(output, dict) else getattr(output, "logits", output)
    if not isinstance(found, Tensor):
        raise InvalidInput(
            f"`model` must return logits (a tensor, an object with `logits`, or a tuple that begins with them), "
            f"got {type(output).__name__}"
        )
    return found
