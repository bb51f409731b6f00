"""Features brought to mean 0 and deviation 1 by constants that belong to the network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor, nn

from isthmus.errors import DataError, InvalidInput

_KEY = "isthmus.standardize"


class Standardize(nn.Module):
    """(x - mean) / deviation, to put in front of a network that was trained on standardized features.

    ::

        front = Standardize.load("model.safetensors")
        network = nn.Sequential(front, network)      # takes the data as they are

    Attributes:
        mean, deviation: buffers that broadcast to a sample.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: Tensor, deviation: Tensor) -> None:
        super().__init__()
        if bool((deviation == 0).any()) if deviation.device.type != "meta" else False:
            raise InvalidInput("`deviation` must not be 0")
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)

    @classmethod
    def identity(cls, features: int, device: torch.device | str = "cpu") -> Standardize:
        """Return one that changes nothing."""
        return cls(torch.zeros(features, device=device), torch.ones(features, device=device))

    @classmethod
    def of(cls, features: NDArray[np.floating] | NDArray[np.integer], by_feature: bool = True) -> Standardize:
        """Return the constants of [m, p] features: of each of them, or one pair for all.

        One pair suits images: a pixel that is almost always dark must not become a huge number. Constant features have
        deviation 1.
        """
        axis = 0 if by_feature else None
        mean = np.asarray(features.mean(axis=axis, dtype=np.float64))
        deviation = np.asarray(features.std(axis=axis, dtype=np.float64))
        deviation = np.where(deviation > 0, deviation, 1.0)
        return cls(torch.from_numpy(mean).float(), torch.from_numpy(deviation).float())

    def forward(self, x: Tensor) -> Tensor:
        """Return standardized features."""
        return (x - self.mean) / self.deviation

    def apply_to(self, features: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return standardized features of an array [m, p]."""
        mean, deviation = self.mean.double().numpy(), self.deviation.double().numpy()
        result: NDArray[np.floating] = (features - mean) / deviation
        return result

    def metadata(self) -> dict[str, str]:
        """Return the constants as metadata of a safetensors file."""
        return {_KEY: json.dumps({"mean": self.mean.tolist(), "deviation": self.deviation.tolist()})}

    @classmethod
    def load(cls, path: str | Path) -> Standardize:
        """Return the constants kept with a saved network.

        Raises:
            DataError: no such file, or one without them: the network takes the data as they are.
        """
        try:
            with safe_open(str(path), "pt") as file:
                kept = (file.metadata() or {}).get(_KEY)
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error})") from error
        if kept is None:
            raise DataError(f"{path}: keeps no constants: its network takes the data as they are")
        constants = json.loads(kept)
        return cls(torch.tensor(constants["mean"]), torch.tensor(constants["deviation"]))
