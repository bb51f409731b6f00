"""Weights from a file, for a network that a function makes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from isthmus.errors import DataError, InvalidInput

if TYPE_CHECKING:
    from torch import Tensor, nn


def load_weights(network: nn.Module, path: Path) -> None:
    """Give a network the weights of a file: safetensors (one, an index, a folder), or what torch.save wrote of a
    ``state_dict()``.

    Raises:
        DataError: no such file, one that is damaged, or one that holds more than tensors.
        InvalidInput: weights that are not this network's.
    """
    state = _read(path)
    own = network.state_dict(keep_vars=True)
    missing, further = own.keys() - state.keys(), state.keys() - own.keys()
    for names, what in ((missing, "lacks"), (further, "has, beside the network's,")):
        if names:
            raise InvalidInput(f"`init` {path} {what} {len(names)} tensors, {min(names)!r} first")
    for name, value in state.items():
        if value.shape != own[name].shape:
            raise InvalidInput(
                f"`init` {path}: {name!r} has shape {tuple(value.shape)}, in the network it is {tuple(own[name].shape)}"
            )
    network.load_state_dict(state, assign=any(tensor.is_meta for tensor in own.values()))


def _read(path: Path) -> dict[str, Tensor]:
    import torch

    if path.is_dir() or path.suffix in (".safetensors", ".json"):
        from isthmus.trainer.task.weights import Weights

        weights = Weights(path)
        lengths = {name: shape[0] if shape else 1 for name, (_, _, shape) in weights.tensors.items()}
        return {name: weights.rows(name, 0, length) for name, length in lengths.items()}
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    except Exception as error:  # torch raises half a dozen kinds for what is no such file
        raise DataError(f"{path} holds no tensors by name: save `network.state_dict()`, not the network") from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise DataError(f"{path} holds no tensors by name: save `network.state_dict()`")
    return state
