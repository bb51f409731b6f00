"""One network out of pieces that each tell symbols of the classes' codes: buckets of hashes, or bits."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from isthmus.errors import check_number
from isthmus.nets.coupling.tracing import trace
from isthmus.nets.models.block_softmax import body_of, read_pieces, scores_of

_KEY = "isthmus.code_softmax"  # in a file's metadata


class Tables(nn.Module):
    """What a worker trains: a body whose scores are told apart by tables.

    Args:
        body: returns scores [..., units], where units = tables (symbols - pinned).
        tables: that it scores.
        symbols: of a table.
        pinned: whether the score of the first symbol is 0.
    """

    def __init__(self, body: nn.Module, tables: int, symbols: int, pinned: bool) -> None:
        super().__init__()
        self.body, self.tables, self.symbols, self.pinned = body, tables, symbols, pinned

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return scores [..., tables, symbols]; of one table [..., symbols]."""
        scores = scores_of(self.body(*args, **kwargs)).unflatten(-1, (self.tables, self.symbols - self.pinned))
        if self.pinned:
            scores = torch.cat([torch.zeros_like(scores[..., :1]), scores], -1)
        return scores if self.tables > 1 else scores.squeeze(-2)


class CodePiece(nn.Module):
    """One piece, and the code that it tells.

    Attributes:
        body: returns scores, as of :class:`Tables`.
        symbols: [tables, V] of every class.
    """

    def __init__(self, body: nn.Module, symbols: Tensor, count: int, pinned: bool) -> None:
        super().__init__()
        self.body = body
        self.symbols: Tensor
        self.register_buffer("symbols", symbols)
        self.count, self.pinned = count, pinned

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return [..., V] the sum over tables of the logarithms of the probabilities of each class's symbols."""
        tables = len(self.symbols)
        scores = Tables(self.body, tables, self.count, self.pinned)(*args, **kwargs)
        known = (scores if tables > 1 else scores.unsqueeze(-2)).log_softmax(-1)
        return sum(known[..., table, :].index_select(-1, self.symbols[table]) for table in range(tables))


class CodeSoftmax(nn.Module):
    """The network that pieces which tell codes are merged into: it returns log-probabilities of all classes.

    With R tables of B symbols the score of class v is the sum over them of log p_t(symbol of v in t | x), divided by
    how many times over they tell the classes apart, and normalised over the classes::

        redundancy = max(1, R log B / log V)

    Undivided, the sum would be as sure of itself as if each table knew something that no other does. A table that is
    missing, as its worker was lost, is an opinion less.

    Args:
        pieces: by the number of the worker that trained each.
        classes: V.
        symbols: B, of a table.
        pinned: whether the score of the first symbol is 0.
        temperature: that scores are divided by before they are normalised.

    Reference:
        Medini, Huang, Wang, Mohan, Shrivastava, "Extreme classification in log memory using count-min sketch" (NeurIPS
        2019), "MACH"; Dietterich, Bakiri, "Solving multiclass learning problems via error-correcting output codes"
        (JAIR 1995).
    """

    def __init__(
        self, pieces: Mapping[int, CodePiece], classes: int, symbols: int, pinned: bool, temperature: float = 1.0
    ) -> None:
        super().__init__()
        self.pieces = nn.ModuleDict({str(number): piece for number, piece in pieces.items()})
        self.classes, self.symbols, self.pinned = classes, symbols, pinned
        self.temperature = check_number("temperature", temperature, above=0.0)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return log-probabilities [..., classes]."""
        total: Tensor = sum(piece(*args, **kwargs) for piece in self._pieces())
        return (total / (self.redundancy * self.temperature)).log_softmax(-1)

    @property
    def redundancy(self) -> float:
        """How many times over its tables tell the classes apart, at least once."""
        tables = sum(len(piece.symbols) for piece in self._pieces())
        return max(1.0, tables * math.log(self.symbols) / math.log(self.classes))

    def _pieces(self) -> Iterator[CodePiece]:
        yield from self.pieces.values()  # type: ignore[misc]

    def metadata(self) -> dict[str, str]:
        """Return what :func:`load_code_softmax` has to know beside the tensors, as text for a file's metadata."""
        names = ("classes", "symbols", "pinned", "temperature")
        return {_KEY: json.dumps({name: getattr(self, name) for name in names})}


def load_code_softmax(
    path: str | Path, network: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any] | None = None,
    temperature: float | None = None,
) -> CodeSoftmax:  # fmt: skip
    """Return the network that ``Training.export`` or ``isthmus train`` has written with mach or hashed-codes.

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
    said, tensors = read_pieces(path, _KEY, "mach or hashed-codes")
    coupling = trace(network, args, kwargs)
    pieces = {}
    for number, own in tensors.items():
        pieces[number] = CodePiece(body_of(coupling, own), own["symbols"], said["symbols"], said["pinned"])
    warm = said["temperature"] if temperature is None else temperature
    return CodeSoftmax(pieces, said["classes"], said["symbols"], said["pinned"], warm).eval()
