"""Examples as a network takes them: rows of arrays, windows of text, nodes of one graph, or items of a dataset."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils import _pytree as pytree

from isthmus.data import Dataset
from isthmus.errors import InvalidInput
from isthmus.nets.graph.example import Example
from isthmus.trainer.task.sparse import Bags, Labels, bags, labels

# Examples of one forward pass without gradients. Convolutions are faster with a few hundred, which stay in a core's
# caches; but every pass fetches what is with other workers of the network, over whatever line there is.
_BATCH = 1000
_TARGETS = 8192  # of one pass: fewer examples if they are long sequences
_LABELS = 1 << 22  # numbers of one pass that say which labels are there

Positions = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Batch:
    """One call of a network, and what should come out.

    Attributes:
        args, kwargs: of the call.
        targets: what a loss compares the output with; None where the network is given it itself.
        numbers: of the examples in the data they come from, for messages.
        outputs: which outputs are meant, where a network is given more than the batch (a graph).
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    targets: Any
    numbers: Positions
    outputs: Tensor | None = None

    def without_values(self, device: torch.device) -> Batch:
        """Return a batch of the same sizes, whose values do not matter."""

        def empty(leaf: Any) -> Any:
            return torch.empty(leaf.shape, dtype=leaf.dtype, device=device) if isinstance(leaf, Tensor) else leaf

        args, kwargs, targets, outputs = pytree.tree_map(
            empty, (self.args, dict(self.kwargs), self.targets, self.outputs)
        )
        return Batch(args, kwargs, targets, self.numbers, outputs)


class Examples(Protocol):
    """One part of the data, on a device."""

    @property
    def count(self) -> int:
        """Number of examples."""
        ...

    @property
    def held_bytes(self) -> int:
        """Bytes of the examples in memory; 0 where they are somebody else's."""
        ...

    def batch(self, positions: Positions) -> Batch:
        """Return the examples at some positions."""
        ...

    def pieces(self, most: int | None = None, parts: int = 1) -> Iterator[Positions]:
        """Yield positions that cover the first ``most`` examples (all), in even pieces that fit in memory, at least
        ``parts`` of them where there are as many examples that can be apart.

        Even, because a statistic that is averaged over pieces must not hang on the few examples of a last one.
        """
        ...


@dataclass(frozen=True, eq=False)
class ArrayExamples:
    """Rows of arrays.

    Attributes:
        call: an example call of the network, whose tensors change from batch to batch.
        features: [m, ...] one example as the network takes it: real numbers, or int64 for tokens and node numbers; or
            bags of sparse features.
        targets: [m] class numbers, or [m, length] one for every position of a sequence; int64; or labels.
        graph: features of all nodes and the adjacency, where the examples are nodes of a graph: the network then takes
            the whole graph, and ``features`` says which of its outputs are meant.
    """

    call: Example
    features: Tensor | Bags
    targets: Tensor | Labels
    graph: tuple[Tensor, Tensor] | None = None

    @property
    def count(self) -> int:
        """Number of examples."""
        return len(self.targets)

    @property
    def held_bytes(self) -> int:
        """Bytes of features, targets and graph."""
        return sum(each.nbytes for each in (self.features, self.targets, *(self.graph or ())))

    def batch(self, positions: Positions) -> Batch:
        """Return the examples at some positions."""
        index = torch.from_numpy(positions).to(self.targets.device)
        targets, features = self.targets[index], self.features[index]
        if self.graph is None:
            inputs = features if isinstance(features, tuple) else (features,)
            return Batch(*self.call.call(inputs), targets, positions)
        assert isinstance(features, Tensor)
        return Batch(*self.call.call(self.graph), targets, positions, features.reshape(-1))

    def pieces(self, most: int | None = None, parts: int = 1) -> Iterator[Positions]:
        """Yield positions in even pieces; a graph goes through the network as a whole, so its nodes are one."""
        count = self.count if most is None else min(most, self.count)
        size = count if self.graph is not None else max(1, min(_BATCH, self._at_once))
        yield from even_pieces(count, size if self.graph is not None else min(size, math.ceil(count / parts)))

    @property
    def _at_once(self) -> int:
        if isinstance(self.targets, Labels):
            return _LABELS // self.targets.width
        return _TARGETS // self.targets[:1].numel()


@dataclass(frozen=True, eq=False)
class ItemExamples:
    """Items of a dataset of one's own, put together by its own rule.

    Attributes:
        items: the dataset.
        chosen: which of its items belong here.
        collate: makes a batch of items: (input, target), or a dictionary of named arguments.
        device: where batches go.
        size: items of one forward pass without gradients.
    """

    items: Sequence[Any]
    chosen: Positions
    collate: Callable[[list[Any]], Any]
    device: torch.device
    size: int

    @property
    def count(self) -> int:
        """Number of examples."""
        return len(self.chosen)

    @property
    def held_bytes(self) -> int:
        """Return 0: the dataset is the user's."""
        return 0

    def batch(self, positions: Positions) -> Batch:
        """Return the examples at some positions.

        Raises:
            InvalidInput: a batch that is neither a pair nor a dictionary.
        """
        numbers = self.chosen[positions]
        made = self.collate([self.items[int(number)] for number in numbers])
        moved = pytree.tree_map(lambda leaf: leaf.to(self.device) if isinstance(leaf, Tensor) else leaf, made)
        if isinstance(moved, Mapping):
            return Batch((), dict(moved), moved.get("labels"), numbers)
        if isinstance(moved, (tuple, list)) and len(moved) == 2:
            inputs, targets = moved
            if isinstance(inputs, Mapping):
                return Batch((), dict(inputs), targets, numbers)
            return Batch(tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,), {}, targets, numbers)
        raise InvalidInput(
            "a batch of `data` must be (input, target) or a dictionary of named arguments, got "
            f"{type(made).__name__}{f' of {len(made)}' if isinstance(made, (tuple, list)) else ''}"
        )

    def pieces(self, most: int | None = None, parts: int = 1) -> Iterator[Positions]:
        """Yield positions in even pieces."""
        count = self.count if most is None else min(most, self.count)
        yield from even_pieces(count, min(self.size, math.ceil(count / parts)))


def even_pieces(count: int, size: int) -> Iterator[Positions]:
    """Yield 0 .. count - 1 in pieces of at most a size, which differ by at most one.

    >>> [piece.tolist() for piece in even_pieces(5, 3)]
    [[0, 1], [2, 3, 4]]
    """
    pieces = math.ceil(count / size)
    for start, stop in pairwise(count * piece // pieces for piece in range(pieces + 1)):
        yield np.arange(start, stop)


def rows(data: Dataset, call: Example, device: torch.device) -> ArrayExamples:
    """Return a data set as the network takes it in its example call: its shape, and its type of number.

    Whole numbers (bytes of an image, say) are numbers where the example has real ones, and tokens where it has whole
    ones, which a network embeds. Sparse features are bags, of the example's length.
    """
    targets = _targets(data, device)
    if not isinstance(data.features, np.ndarray):
        numbers, values = call.tensors
        return ArrayExamples(call, bags(data.features, numbers.shape[1], values.dtype, device), targets)
    example = call.tensors[0]
    features = torch.from_numpy(data.features)
    if data.graph is not None:
        features = features.to(torch.int64)
    else:
        real = example.dtype if example.is_floating_point() else torch.int64
        features = features.to(real).reshape(len(features), *example.shape[1:])
    graph = None
    if data.graph is not None:
        dtype = example.dtype if example.is_floating_point() else torch.float32
        graph = (
            torch.from_numpy(data.graph.features).to(device=device, dtype=dtype),
            torch.from_numpy(data.graph.adjacency).to(device=device, dtype=dtype),
        )
    return ArrayExamples(call, features.to(device), targets, graph)


def _targets(data: Dataset, device: torch.device) -> Tensor | Labels:
    if not isinstance(data.targets, np.ndarray):
        return labels(data.targets, device)
    return torch.from_numpy(data.targets).to(device=device, dtype=torch.int64)
