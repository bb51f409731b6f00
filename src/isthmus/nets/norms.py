"""Running statistics of norms: those of the subnetworks are not those of the merged network."""

from __future__ import annotations

from collections.abc import Iterable, Sized
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn

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
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not norms:
        return 0
    batches = 0
    total = len(loader) if isinstance(loader, Sized) else 0
    with progress("recalibrating norms", total) as advance:

        def counted() -> Iterable[Any]:
            nonlocal batches
            for batch in loader:
                batches += 1
                advance()
                yield batch

        before = [{k: v.clone() for k, v in m.named_buffers()} for m in norms]
        with torch.no_grad():
            update_bn(counted(), model)
    if batches == 0:
        for norm, state in zip(norms, before, strict=True):
            norm.load_state_dict(state, strict=False)
        raise InvalidInput("`loader` must yield at least one batch, got none")
    return len(norms)
