"""Whether a network of one's own is cut right, before its first round."""

from __future__ import annotations

import logging

import numpy as np
import torch

from isthmus.errors import InvalidInput
from isthmus.nets.check.verdict import Unjudged, Verdict
from isthmus.trainer.config import Own
from isthmus.trainer.task.network import bytes_of
from isthmus.trainer.task.setup import Setup

LARGEST = (
    100_000_000  # bytes of a network that is verified without being asked for; it takes some fifteen times as many
)

_log = logging.getLogger("isthmus")


def check_cut(setup: Setup) -> None:
    """Verify how a network of one's own is cut, on two samples of its data, with its initial weights.

    One process does it, which holds the whole network meanwhile: the one that starts the workers, or worker 0 where
    torchrun has. Torch's random numbers are left as they are.

    Raises:
        InvalidInput: pieces or what is merged of them are not what they should be; or, where this is asked for,
            nothing can be said.
    """
    config = setup.config
    if not isinstance(config.model, Own) or not config.strategy.cuts or config.resume or config.verify is False:
        return
    size = bytes_of(setup.network.outline)
    if config.verify is None and size > LARGEST:
        _log.warning(
            "isthmus: how the network is cut is not verified: it has %.0f MB, more than %.0f (`verify` True does it)",
            size / 1e6,
            LARGEST / 1e6,
        )
        return
    try:
        verdict = _verdict(setup)
    except (
        Exception
    ) as failure:  # whatever a network may raise that is called, a batch that is made, memory that is out
        said = str(failure) if isinstance(failure, InvalidInput) else f"{type(failure).__name__}: {failure}"
        line = " ".join(said.split())
        if config.verify:
            raise failure if isinstance(failure, InvalidInput) else Unjudged(line) from failure
        _log.warning("isthmus: how the network is cut is not verified: %s", line)
        return
    if not verdict.passed:
        raise InvalidInput(f"`model` is not cut correctly: {verdict.summary()} (`verify` False trains it all the same)")


def _verdict(setup: Setup) -> Verdict:
    here, part = torch.device("cpu"), setup.shares.parts[0]
    with torch.random.fork_rng(devices=[]):  # a dataset may draw from it
        coupling = setup.network.valued
        fixed = [exported.fixed.get((0, 0), 2) for exported in coupling.exports.values()]
        few = np.arange(min(max(fixed), len(part)))
        batch = setup.shares.train(part[: len(few)], here).batch(few)
        return coupling.verify(setup.network.make().to(here), batch.args, batch.kwargs, quick=True)
