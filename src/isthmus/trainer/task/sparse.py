"""Sparse data as a network takes it: the numbers of a sample's features and their values, and labels it has or not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from scipy.sparse import csr_array


@dataclass(frozen=True, eq=False)
class Rows:
    """Sparse rows on a device.

    Attributes:
        starts: [m + 1] where each row begins among the numbers.
        numbers: of the entries that are not 0, and one more, that of no entry.
        width: p, length of a row.
        most: at least as many as a row has entries.
    """

    starts: Tensor
    numbers: Tensor
    width: int
    most: int

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.starts.device

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return self.starts.nbytes + self.numbers.nbytes

    def places(self, index: Tensor) -> Tensor:
        """Return [k, most] places of the entries of some rows; behind a row's last one that of no entry."""
        first, behind = self.starts[index, None], self.starts[index + 1, None]
        places = first + torch.arange(self.most, device=self.device)
        return torch.where(places < behind, places, len(self.numbers) - 1)


@dataclass(frozen=True, eq=False)
class Bags(Rows):
    """Features as bags of a fixed length, as an embedding bag takes them.

    Attributes:
        values: of the entries.
    """

    values: Tensor

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return super().nbytes + self.values.nbytes

    def __getitem__(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return numbers [k, most] int64, p where there is no entry, and values, 0 there."""
        places = self.places(index)
        return self.numbers[places].long(), self.values[places]


@dataclass(frozen=True, eq=False)
class Labels(Rows):
    """Which labels samples have."""

    def __getitem__(self, index: Tensor) -> Tensor:
        """Return [k, classes] float32: 1 for a label that is there, 0 for another."""
        found = torch.zeros(len(index), self.width + 1, device=self.device)
        found.scatter_(1, self.numbers[self.places(index)].long(), 1.0)
        return found[:, : self.width].contiguous()


def bags(rows: csr_array, length: int, dtype: torch.dtype, device: torch.device) -> Bags:
    """Return features [m, p] as bags of a length."""
    values = torch.from_numpy(np.append(rows.data, 0)).to(device=device, dtype=dtype)
    return Bags(*_taken(rows, device), length, values)


def labels(rows: csr_array, device: torch.device) -> Labels:
    """Return the labels [m, classes] of samples."""
    return Labels(*_taken(rows, device), most=int(np.diff(rows.indptr).max(initial=0)))


def _taken(rows: csr_array, device: torch.device) -> tuple[Tensor, Tensor, int]:
    width = int(rows.shape[1])
    starts = torch.from_numpy(rows.indptr.astype(np.int64)).to(device)
    return starts, torch.from_numpy(np.append(rows.indices, width).astype(np.int32)).to(device), width
