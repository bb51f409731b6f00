"""Refuse, before anything is trained, workers that were given different settings, data or networks."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping

import torch

from isthmus.errors import InvalidInput, everywhere
from isthmus.trainer.wire.alike import difference
from isthmus.trainer.wire.exchange import Link, Program, all_gather
from isthmus.trainer.wire.tell import tell


def agree(terms: Mapping[str, object], link: Link, device: torch.device) -> Program[None]:
    """Compare terms, by their text, over all workers: one exchange of 32 bytes where all are alike.

    Args:
        terms: by what messages call them.
        link, device: to the others, and where the numbers that travel are.

    Raises:
        InvalidInput: a worker has another value: which worker, of what, and both values; the same line on every worker.
    """
    texts = {name: "none" if value is None else str(value) for name, value in terms.items()}
    digest = hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).digest()
    own = torch.frombuffer(bytearray(digest), dtype=torch.int64).to(device)
    digests = yield from all_gather(own, link, counted=False)
    if all(torch.equal(each, digests[0]) for each in digests):
        return
    said = yield from tell(texts, link, device)
    raise everywhere(InvalidInput(difference(dict(enumerate(said)))))


def named(settings: Mapping[str, object]) -> dict[str, str]:
    """Return settings as terms; an object without a text of its own is not told by its address.

    >>> named({"law": "block", "lr": 0.1, "loss": object()})
    {'`law`': "'block'", '`lr`': '0.1', '`loss`': '<object object>'}
    """
    return {f"`{name}`": re.sub(r" at 0x[0-9a-f]+", "", repr(value)) for name, value in settings.items()}
