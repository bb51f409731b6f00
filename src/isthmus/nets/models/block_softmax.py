"""One network out of pieces that each know their own classes: bodies side by side, a softmax for each."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from isthmus.errors import DataError, InvalidInput, check_number
from isthmus.nets.coupling.coupling import Coupling
from isthmus.nets.coupling.tracing import trace
from isthmus.nets.pieces.ownership import Held
from isthmus.nets.pieces.subnetwork import build

_KEY = "isthmus.block_softmax"  # in a file's metadata
_BODY = "body."  # what names of a body's tensors begin with, beside those of what stands on it
_LEAST = 1e-12  # that a share counts as at least, and one minus it
_REST = 1e-6  # that is left at least to classes which are on no piece


class ClassPiece(nn.Module):
    """One piece, and what it has been trained on.

    Attributes:
        body: returns scores [..., k + g]: of its k own classes, then of the g units that stand for others.
        owned: [k] its classes, sorted; none of a gate, whose units stand for the groups of the other pieces.
        prior: P, the share of its own classes among all samples.
        drawn: q', that among the samples it was trained on.
    """

    def __init__(self, body: nn.Module, owned: Tensor, prior: Tensor, drawn: Tensor) -> None:
        super().__init__()
        self.body = body
        self.owned: Tensor
        self.prior: Tensor
        self.drawn: Tensor
        for name, tensor in (("owned", owned), ("prior", prior), ("drawn", drawn)):
            self.register_buffer(name, tensor)

    @property
    def shift(self) -> Tensor:
        """How much the scores of other classes are raised: logit q' - logit P."""
        return torch.logit(self.drawn, _LEAST) - torch.logit(self.prior, _LEAST)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the logarithms of probabilities [..., k + g], other classes as likely as they are, in float64."""
        scores = self.raw(*args, **kwargs).double()  # many pieces are added up: float32 would be 2e-6 off
        own = len(self.owned)
        raised = torch.cat([scores[..., :own], scores[..., own:] + self.shift.to(scores)], -1)
        return (raised if own and own < scores.shape[-1] else scores).log_softmax(-1)

    def raw(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the body's scores as they are."""
        return scores_of(self.body(*args, **kwargs))


class BlockSoftmax(nn.Module):
    """The network that pieces of a class cut are merged into: it returns log-probabilities of all classes.

    Bodies stand side by side, the last layer is block-diagonal, and every block has a normaliser of its own::

        score of v = log p_i(v | x), i the piece that owns v (of several the mean)     gate "other"
        score of v = log p_gate(group of v | x) + log p_i(v | x)                       gate "worker"

    The scores are then normalised over all classes: at the optimum of every piece they sum to 1 already, but pieces
    that over-fit drift apart. Classes that are on no piece get what is left of 1, evenly.

    Args:
        pieces: by the number of the worker that trained each.
        classes: number of classes V.
        normalized: False for several labels a sample: then it returns every piece's own scores, and no more.
        temperature: that scores are divided by before they are normalised.

    Attributes:
        absent: the classes that no piece owns: those of workers that were lost.
    """

    def __init__(
        self, pieces: Mapping[int, ClassPiece], classes: int, normalized: bool = True, temperature: float = 1.0
    ) -> None:
        super().__init__()
        self.pieces = nn.ModuleDict({str(number): piece for number, piece in pieces.items()})
        self.classes, self.normalized = classes, normalized
        self.temperature = check_number("temperature", temperature, above=0.0)
        owned = {int(each) for piece in pieces.values() for each in piece.owned}
        self.absent = tuple(each for each in range(classes) if each not in owned)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return log-probabilities [..., classes]; of several labels a sample, each one's logit."""
        total, count = self._sums(args, kwargs)
        scores = total / count.clamp(min=1)
        if not self.normalized:
            return scores.masked_fill(count == 0, -math.inf)
        if self.absent:
            rest = (1 - scores.masked_fill(count == 0, -math.inf).exp().sum(-1, keepdim=True)).clamp(min=_REST)
            scores = torch.where(count == 0, (rest / len(self.absent)).log(), scores)
        return (scores / self.temperature).log_softmax(-1).to(next(self.parameters(), scores).dtype)

    def _sums(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Return [..., classes] the sum of the scores that owners give each class, and [classes] how many do."""
        groups = [piece.owned for piece in self._experts()]
        total, count = torch.zeros(()), torch.zeros(self.classes)
        gates: list[Tensor] = []
        for piece in self._pieces():
            scores = piece(*args, **kwargs) if self.normalized else piece.raw(*args, **kwargs)
            if total.dim() == 0:
                total = scores.new_zeros((*scores.shape[:-1], self.classes))
                count = count.to(scores)
            if len(piece.owned):
                total.index_add_(-1, piece.owned, scores[..., : len(piece.owned)].to(total))
                count[piece.owned] += 1
            else:
                gates.append(scores)
        for scores in gates:
            for number, group in enumerate(groups):
                total[..., group] += scores[..., number, None]
        return total, count

    def _pieces(self) -> Iterator[ClassPiece]:
        yield from self.pieces.values()  # type: ignore[misc]

    def _experts(self) -> list[ClassPiece]:
        return [piece for piece in self._pieces() if len(piece.owned)]

    def metadata(self) -> dict[str, str]:
        """Return what :func:`load_block_softmax` has to know beside the tensors, as text for a file's metadata."""
        said = {"classes": self.classes, "normalized": self.normalized, "temperature": self.temperature}
        return {_KEY: json.dumps(said)}


def best_temperature(scores: Tensor, targets: Tensor) -> float:
    """Return the temperature with the least cross-entropy on held-out samples, among 2^(-4), 2^(-3.75), ..., 2^4.

    Args:
        scores: [m, classes] log-probabilities at temperature 1.
        targets: [m] class numbers.
    """
    tried = [2.0 ** (step / 4) for step in range(-16, 17)]
    losses = [nn.functional.cross_entropy(scores / each, targets).item() for each in tried]
    return tried[losses.index(min(losses))]


def load_block_softmax(
    path: str | Path, network: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any] | None = None,
    temperature: float | None = None,
) -> BlockSoftmax:  # fmt: skip
    """Return the network that ``Training.export`` or ``isthmus train`` has written with strategy class-cut.

    Args:
        path: of the safetensors file.
        network: the whole one, of the class that was trained; only its computation is looked at, so that it may be on
            the meta device.
        args, kwargs: an example call of it.
        temperature: instead of the one that is in the file.

    Raises:
        DataError: a file that is missing or damaged, or that holds no such network.
        InvalidInput: one of another network.
    """
    plain, tensors = read_pieces(path, _KEY, "class-cut")
    coupling = trace(network, args, kwargs)
    pieces = {}
    for number, own in tensors.items():
        pieces[number] = ClassPiece(body_of(coupling, own), own["owned"], own["prior"], own["drawn"])
    warm = plain["temperature"] if temperature is None else temperature
    return BlockSoftmax(pieces, plain["classes"], plain["normalized"], warm).eval()


def read_tensors(path: str | Path, key: str, strategy: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return what a file of a merged network says of itself, and its tensors.

    Args:
        path: of the file.
        key: of its metadata.
        strategy: that writes such files.

    Raises:
        DataError: a file that is missing or damaged, or that holds no such network.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), "pt") as file:
            said = (file.metadata() or {}).get(key)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if said is None:
        raise DataError(f"{path}: holds no network of strategy {strategy}")
    return json.loads(said), tensors


def read_pieces(path: str | Path, key: str, strategy: str) -> tuple[dict[str, Any], dict[int, dict[str, Tensor]]]:
    """Return the same, the tensors by the number of their piece.

    Raises:
        DataError: as :func:`read_tensors`.
    """
    said, tensors = read_tensors(path, key, strategy)
    pieces: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        _, number, rest = name.split(".", 2)
        pieces.setdefault(int(number), {})[rest] = tensor
    return said, dict(sorted(pieces.items()))


def body_of(coupling: Coupling, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Return the piece of a network that holds the parameters and buffers under ``body.``; how large it is, they say.

    Raises:
        InvalidInput: no piece of the network has such tensors.
    """
    tensors = {name.removeprefix(_BODY): tensor for name, tensor in tensors.items() if name.startswith(_BODY)}
    held = {}
    for axis in coupling.all_axes:
        for member in axis.members:
            if member.name in tensors and "|" not in member.layout:
                held[axis.name] = np.arange(tensors[member.name].shape[member.dim] // member.per_unit)
                break

    def read(name: str, indices: Held) -> Tensor:
        entry = coupling.entries[name]
        sizes = zip(entry.shape, indices, strict=True)
        shape = tuple(size if each is None else len(each) for size, each in sizes)
        found = tensors.get(name)
        if found is None and not entry.persistent:
            return torch.zeros(shape, dtype=entry.dtype)
        if found is None or tuple(found.shape) != shape:
            what = "nothing" if found is None else f"shape {tuple(found.shape)}"
            raise InvalidInput(f"`network` must be the one that was trained: {name!r} of a piece should have {what}")
        return found

    return build(read, coupling, held).module


def scores_of(output: Any) -> Tensor:
    """Return the scores among what a network returns: a tensor, ``logits`` of it, or the first of several."""
    found = output
    if isinstance(output, Mapping):
        found = output.get("logits", next(iter(output.values()), None))
    elif hasattr(output, "logits"):
        found = output.logits
    elif isinstance(output, (tuple, list)):
        with suppress(IndexError):
            found = output[0]
    if not isinstance(found, Tensor):
        raise InvalidInput(f"`network` must return scores first, got {type(found).__name__}")
    return found
