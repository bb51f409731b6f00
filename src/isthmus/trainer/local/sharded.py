"""Tensors of which a worker holds its rows only, as torch's sharded strategies have them (DTensor)."""

from __future__ import annotations

from torch import Tensor


def local(tensor: Tensor) -> Tensor:
    """Return what this worker holds of a tensor: its rows of a sharded one, else the tensor."""
    held: Tensor = getattr(tensor, "_local_tensor", tensor)  # so torch.distributed.tensor need not be loaded
    return held


def sharded_as(held: Tensor, tensor: Tensor) -> Tensor:
    """Return this worker's rows as those of a sharded tensor like another."""
    from torch.distributed.tensor import DTensor

    assert isinstance(tensor, DTensor)
    return DTensor.from_local(
        held, tensor.device_mesh, tensor.placements, run_check=False, shape=tensor.shape, stride=tensor.stride()
    )
