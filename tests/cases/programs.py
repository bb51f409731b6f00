"""Programs of all workers, run in step in this thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from isthmus.trainer.wire.exchange import Exchange, Program, Same


@dataclass(frozen=True)
class Place(Same):
    """A link that only says who this worker is; what a program asks for is performed by :func:`together`."""

    index: int
    workers: int
    shared: bool = True

    def exchange(self, request: Exchange) -> list[Tensor]:
        raise AssertionError("driven by together()")


def together(programs: Sequence[Program[Any]]) -> tuple[list[Any], list[list[tuple[int, ...]]]]:
    """Return the results of the programs, and for every exchange what every worker sent, in numbers for each other."""
    results: list[Any] = [None] * len(programs)
    replies: list[Any] = [None] * len(programs)
    sent: list[list[tuple[int, ...]]] = []
    while True:
        requests: list[Any] = []
        for worker, program in enumerate(programs):
            try:
                requests.append(program.send(replies[worker]))
            except StopIteration as stop:
                results[worker] = stop.value
        if not requests:
            return results, sent
        assert len(requests) == len(programs), "a worker asks for an exchange that another does not ask for"
        for worker, request in enumerate(requests):
            replies[worker] = [other.send[worker].clone() for other in requests]
            assert tuple(piece.numel() for piece in replies[worker]) == request.expect
        sent.append([tuple(piece.numel() for piece in request.send) for request in requests])
