"""Running statistics of norms: those of the subnetworks are not those of the merged network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from isthmus.errors import InvalidInput
from isthmus.progress import progress


def recalibrate(model: nn.Module, loader: Iterable[Any]) -> int:
    """Estimate the running means and variances of all batch norms anew, from one pass over data; return how many.

    The estimate is the plain average over the batches, whatever the momentum. Nothing else of the network changes.

    Args:
        model: the merged network.
        loader: yields batches: the input, or a tuple or list whose first entry is the input.

    Raises:
        InvalidInput: a network with batch norms and a loader without a batch.
    """
    batches = 0
    total = len(loader) if isinstance(loader, Sized) else 0
    with measuring(model) as norms:
        if not norms:
            return 0
        device = next(norms[0].buffers()).device
        with progress("recalibrating norms", total) as advance, torch.no_grad():
            for batch in loader:
                first = batch[0] if isinstance(batch, (list, tuple)) else batch
                model(first.to(device) if isinstance(first, Tensor) else first)
                batches += 1
                advance()
        if batches == 0:
            raise InvalidInput("`loader` must yield at least one batch, got none")
    return len(norms)


@contextmanager
def measuring(model: nn.Module) -> Iterator[list[_BatchNorm]]:
    """Let every forward pass inside the block count towards the running statistics, as their plain average.

    The batch norms normalise by their batch there and everything else is in evaluation mode, so that what is measured
    is what evaluation will see. If the block raises, the statistics are as before it.

    Yields:
        the batch norms that keep statistics.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    training = {module: module.training for module in model.modules()}
    momenta = [norm.momentum for norm in norms]
    before = [{name: value.clone() for name, value in norm.named_buffers()} for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    try:
        yield norms
    except BaseException:
        for norm, state in zip(norms, before, strict=True):
            norm.load_state_dict(state, strict=False)
        raise
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, flag in training.items():
            module.training = flag
