"""Plain data between workers, and what must succeed on all of them or on none."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import torch

from isthmus.errors import InvalidInput, IsthmusError, WorkerError
from isthmus.trainer.wire.exchange import Exchange, Link, Program


class NotDone(WorkerError):
    """What must succeed on all workers has failed on one; all of them know, and can go on."""


def together(what: str, action: Callable[[], Any], link: Link, device: torch.device) -> Program[list[Any]]:
    """Do something on every worker and return what it returned on each; where it fails on one, it fails on all.

    Args:
        what: it is, in a few words.
        action: returns JSON data.
        link, device: to the others, and where the numbers that travel are.

    Raises:
        InvalidInput: a worker raised it.
        NotDone: a worker could not do it.
    """
    try:
        said = {"done": action()}
    except (OSError, IsthmusError) as error:
        said = {"failed": " ".join(str(error).split()), "invalid": isinstance(error, InvalidInput)}
    told = yield from tell(said, link, device)
    for worker, each in enumerate(told):
        if "failed" in each:
            if each["invalid"]:
                raise InvalidInput(each["failed"])
            raise NotDone(f"worker {worker} could not {what}: {each['failed']}")
    return [each["done"] for each in told]


def tell(value: Any, link: Link, device: torch.device, root: bool = False) -> Program[list[Any]]:
    """Tell all workers, or worker 0 alone, something that JSON can say; return what each has said, [] to the others."""
    text = json.dumps(value, allow_nan=False).encode()
    own = torch.frombuffer(bytearray(text), dtype=torch.uint8).to(device)
    size = torch.tensor([len(text)], dtype=torch.int64, device=device)
    sizes = yield Exchange((size,) * link.workers, (1,) * link.workers, counted=False)
    heard = not root or link.index == 0
    send = tuple(own if worker == 0 or not root else own[:0] for worker in range(link.workers))
    replies = yield Exchange(send, tuple(int(each.item()) if heard else 0 for each in sizes), counted=False)
    return [json.loads(bytes(reply.cpu().numpy())) for reply in replies] if heard else []
