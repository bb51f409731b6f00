"""What one worker sends, receives and spends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass
class Meter:
    """Bytes without what stays with the worker itself; seconds computing, moving payload, and waiting for others."""

    sent: int = 0
    received: int = 0
    compute: float = 0.0
    move: float = 0.0
    wait: float = 0.0

    def count(
        self, send: Sequence[Tensor], expect: Sequence[int], worker: int, counted: bool, seconds: float
    ) -> None:
        """Add one exchange: its bytes as the tensors have them, and how long it took."""
        if not counted:
            self.wait += seconds
            return
        size = send[0].element_size()
        self.sent += size * sum(piece.numel() for to, piece in enumerate(send) if to != worker)
        self.received += size * sum(number for source, number in enumerate(expect) if source != worker)
        self.move += seconds
