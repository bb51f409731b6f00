"""Codes of classes: every worker trains a piece that tells the symbols of some tables, and nothing travels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from isthmus.nets.code_softmax import CodePiece, CodeSoftmax, Tables
from isthmus.partitions import Indices
from isthmus.partitions.codes import Code
from isthmus.strategies import HashedCodes, Mach, Strategy
from isthmus.trainer.strategies.apart import ApartPart, Pieces
from isthmus.trainer.strategies.interface import Worker
from isthmus.trainer.task.fitting import Fitting, class_axis, class_numbers


class CodedPart(ApartPart):
    """One worker that tells some tables of a code; what is right of a class is its symbols."""

    _pieces: CodedPieces

    def __init__(self, strategy: Strategy, worker: Worker) -> None:
        super().__init__(strategy, worker)
        self._symbols = torch.from_numpy(self._pieces.code.of(self._seat)).to(worker.device)

    def _lay_out(self, strategy: Strategy, worker: Worker) -> Pieces:
        coupling, seats = worker.network.coupling, worker.link.seats
        return CodedPieces(worker.network, Fitting(coupling, seats, worker.seed, strategy.name), strategy)

    def beside(self) -> Sequence[Tensor]:
        """Return the worker's code."""
        return (self._symbols,)

    def targets(self, targets: Any) -> Any:
        """Return the symbols of classes [...]: [...] in one table, [..., tables] in several; negative numbers stay.

        Raises:
            InvalidInput: targets that are no class numbers, or a number that is no class.
        """
        found = class_numbers(targets, self._pieces.fitting.classes, self._pieces.strategy.name)
        symbols = self._symbols[:, found.clamp(min=0)].movedim(0, -1)
        kept = torch.where(found.unsqueeze(-1) < 0, found.unsqueeze(-1), symbols)
        return kept if len(self._symbols) > 1 else kept.squeeze(-1)

    def _body(self, module: nn.Module) -> nn.Module:
        return module.body if isinstance(module, Tables) else module


@dataclass(frozen=True, eq=False)
class CodedPieces(Pieces):
    """The pieces that tell a code.

    Attributes:
        fitting: of bodies.
        strategy: what is chosen.
    """

    fitting: Fitting
    strategy: Strategy

    @cached_property
    def code(self) -> Code:
        """The code."""
        found, fitting = self.strategy, self.fitting
        common = fitting.workers, fitting.seed
        if isinstance(found, HashedCodes):
            return Code(fitting.classes, 2, found.bits, *common, pinned=True)
        assert isinstance(found, Mach)
        buckets = found.buckets
        if isinstance(buckets, str) and isinstance(found.width, str):
            buckets = max(2, fitting.classes // 4)
        elif isinstance(buckets, str):
            buckets = min(fitting.classes, fitting.rows(fitting.body(found.width)) // found.tables)  # type: ignore[arg-type]
        return Code(fitting.classes, max(2, buckets), found.tables, *common)

    @cached_property
    def _share(self) -> float:
        width = self.strategy.width  # type: ignore[attr-defined]
        return self.fitting.share(self.code.units) if isinstance(width, str) else width

    def held(self, seat: int) -> dict[str, Indices]:
        """Return the body's units, and of the last layer a row a unit; where there are more than classes, from the
        first again."""
        rows = np.arange(self.code.units) % self.fitting.classes
        name = class_axis(self.network.coupling, self.strategy.name).name
        return {**self.fitting.body(self._share, seat), name: rows}

    def headed(self, body: nn.Module) -> nn.Module:
        """Return the body, its scores told apart by tables; of one whole table the body itself."""
        code = self.code
        plain = code.tables == 1 and not code.pinned
        return body if plain else Tables(body, code.tables, code.symbols, code.pinned)

    def merged(self, present: Sequence[int], device: torch.device) -> CodeSoftmax:
        """Return the network that some pieces make up, its values still to be filled in."""
        code = self.code
        pieces = {
            seat: CodePiece(
                self.empty(seat, device), torch.from_numpy(code.of(seat)).to(device), code.symbols, code.pinned
            )
            for seat in present
        }
        return CodeSoftmax(pieces, code.classes, code.symbols, code.pinned)
