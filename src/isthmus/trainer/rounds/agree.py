"""Refuse, before anything is trained, workers that were given different settings."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch

from isthmus.errors import InvalidInput
from isthmus.trainer.wire.exchange import Link, Program, all_gather


def agree(settings: Mapping[str, object], link: Link, device: torch.device) -> Program[None]:
    """Compare settings, by their text, over all workers.

    Args:
        settings: by the name that messages call them.
        link, device: to the others, and where the numbers that travel are.

    Raises:
        InvalidInput: a worker has another value; the same line on every worker.
    """
    marks = [_mark(f"{name}={value!r}") for name, value in settings.items()]
    told = torch.tensor([len(marks), *marks], dtype=torch.int64, device=device)
    sizes = yield from all_gather(told[:1].clone(), link, counted=False)
    if any(size.item() != len(marks) for size in sizes):
        raise InvalidInput("the workers run different scripts or versions of isthmus: start the same on every one")
    found = yield from all_gather(told, link, counted=False)
    for other, marks_there in enumerate(found):
        for name, mine, theirs in zip(settings, found[0][1:].tolist(), marks_there[1:].tolist(), strict=True):
            if mine != theirs:
                raise InvalidInput(
                    f"`{name}` must be the same on all workers: that of worker {other} differs from that of worker 0"
                )


def _mark(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "little")
