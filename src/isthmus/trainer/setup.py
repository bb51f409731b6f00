"""What every worker makes of a configuration before the first round: the data and the network, checked together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import nn

from isthmus.data import Dataset
from isthmus.errors import InvalidInput
from isthmus.trainer.config import TrainConfig
from isthmus.trainer.network import Network, named, perceptron
from isthmus.trainer.samples import Samples, samples_of
from isthmus.trainer.shards import Shards, load_shards


@dataclass(frozen=True, eq=False)
class Setup:
    """A run's data and network.

    Attributes:
        shards: the data.
        network: what is trained.
    """

    shards: Shards
    network: Network

    def samples(self, data: Dataset, device: torch.device) -> Samples:
        """Return a part of the data as the network takes it."""
        return samples_of(data, self.network.example.tensors[0], device)


@lru_cache(maxsize=2)
def set_up(config: TrainConfig) -> Setup:
    """Return the data and the network of a run.

    Raises:
        InvalidInput: data and network that do not fit each other, or a network with too few units for the workers.
        DataError: missing or malformed files.
    """
    if config.model is None:
        shards = load_shards(config)
        setup = Setup(shards, perceptron(config, shards.train.dim, shards.train.classes))
    else:
        network = named(config)
        shape = network.example.tensors[0].shape
        setup = Setup(load_shards(config, shape[1] if len(shape) == 2 else None), network)
        skeleton = network.skeleton()
        _check_inputs(setup, skeleton)
        _check_outputs(setup, skeleton)
    if config.cuts and (config.model or config.cut):  # a perceptron's own axes are known to do
        setup.network.partition(0)
    return setup


def _check_inputs(setup: Setup, skeleton: nn.Module) -> None:
    data, network = setup.shards.test, setup.network
    if not any(parameter.requires_grad for parameter in skeleton.parameters()):
        raise InvalidInput("`model` must have a parameter that is trained: it has none, or all of them are frozen")
    wanted, given = (1, "a batch") if data.graph is None else (2, "the features of all nodes and the adjacency")
    if len(network.example.tensors) != wanted:
        raise InvalidInput(
            f"`model` must take {given} when trained on {data.name!r}: {wanted} tensors in its example call, "
            f"got {len(network.example.tensors)}"
        )
    shape = tuple(network.example.tensors[0].shape[1:])
    if data.graph is None and math.prod(shape) != data.dim:
        raise InvalidInput(
            f"`model` takes samples of shape {shape} in its example call, but those of {data.name!r} have {data.dim} "
            f"numbers ({' x '.join(map(str, data.shape))}): give it an example call that fits"
        )


def _check_outputs(setup: Setup, skeleton: nn.Module) -> None:
    """Run the skeleton on two samples; on the meta device this costs nothing.

    A network that reads values in its forward cannot be checked there; what is wrong with it is seen by the workers.
    """
    data, network = setup.shards.test, setup.network
    device = network.example.tensors[0].device
    samples = setup.samples(data.take(torch.arange(min(2, data.samples)).numpy()), device)
    try:
        with torch.no_grad():
            logits, targets = samples.predict(network.caller(skeleton.eval()), slice(None))
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        said = " ".join(str(error).split())
        if "meta tensor" in said:
            return
        raise InvalidInput(f"`model` cannot be run on {data.name!r}: {said}") from error
    if logits.dim() != 2 or len(logits) != len(targets) or logits.shape[1] < data.classes:
        raise InvalidInput(
            f"`model` must return {data.classes} logits for each of {len(targets)} targets of {data.name!r}, "
            f"got shape {tuple(logits.shape)}"
        )
