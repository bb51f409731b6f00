"""The network a run trains: described on every worker, held only where a strategy holds it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from isthmus.errors import InvalidInput
from isthmus.factories import call_factory, load_factory, network_and_call
from isthmus.nets.coupling import Coupling
from isthmus.nets.example import Example, example_of
from isthmus.nets.laws import NetPartition
from isthmus.nets.mlp import MLP, MLPSpec, initialize
from isthmus.nets.tracing import trace
from isthmus.randomness import generator
from isthmus.trainer.config import TrainConfig


@dataclass(frozen=True, eq=False)
class Network:
    """A network that can be made, traced and called; it holds none.

    Attributes:
        config: of the run.
        example: a call of it.
        make: returns it with its initial weights, the same for all who ask.
        skeleton: returns it to look at, without weights: on the meta device where its factory allows.
    """

    config: TrainConfig
    example: Example
    make: Callable[[], nn.Module]
    skeleton: Callable[[], nn.Module]

    @cached_property
    def coupling(self) -> Coupling:
        """What of it can be cut; the same on every worker, as all trace the skeleton."""
        args, kwargs = self.example.call(self.example.tensors)
        return trace(self.skeleton(), args, kwargs, cut=self.config.cut)

    def partition(self, round: int) -> NetPartition:
        """Return who holds which units in a round; every worker derives the same."""
        config = self.config
        return self.coupling.partition(config.workers, config.seed, round, config.dealing)

    def caller(self, network: nn.Module) -> Callable[..., Any]:
        """Return the network (this one, or a piece of it) as a function of the tensors that change between batches."""

        def call(*tensors: Tensor) -> Any:
            args, kwargs = self.example.call(tensors)
            return network(*args, **kwargs)

        return call


def perceptron(config: TrainConfig, inputs: int, classes: int) -> Network:
    """Return the multilayer perceptron of a configuration."""
    spec = MLPSpec(inputs, config.widths, classes, config.activation, config.norm)
    example = example_of(MLP(spec, "meta"), (torch.zeros(2, inputs, device="meta"),), None)
    return Network(config, example, lambda: initialize(MLP(spec), config.seed), lambda: MLP(spec, "meta"))


def named(config: TrainConfig) -> Network:
    """Return the network that ``config.model`` names.

    Its factory is called on the meta device; one that reads values while it builds is called for real, on every worker
    and before the first round, and what it made is dropped.

    Raises:
        InvalidInput: no such function, or it does not return (network, args) or (network, args, kwargs).
    """
    target = config.model or ""
    factory = load_factory(target)

    def make() -> tuple[nn.Module, tuple[Any, ...], dict[str, Any]]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(generator(config.seed, "init/model").integers(2**63)))
            made = network_and_call(factory(), target)
        if not isinstance(made[0], nn.Module):
            raise InvalidInput(f"`model` {target!r} must return a torch.nn.Module first, got {type(made[0]).__name__}")
        return made

    def describe() -> tuple[nn.Module, tuple[Any, ...], dict[str, Any]]:
        try:
            with torch.device("meta"):
                return make()
        except InvalidInput:
            raise
        except Exception:  # whatever a factory may raise on a device without values; for real it must succeed
            made: tuple[nn.Module, tuple[Any, ...], dict[str, Any]] = call_factory(make, target)
            return made

    network, args, kwargs = describe()
    device = next((p.device for p in network.parameters()), None)
    example = example_of(network, *((args, kwargs) if device is None else _on(device, args, kwargs)))
    return Network(config, example, lambda: make()[0], lambda: describe()[0])


def _on(device: torch.device, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Return the arguments with all tensors on a device."""
    moved: tuple[Any, Any] = torch.utils._pytree.tree_map(
        lambda leaf: leaf.to(device) if isinstance(leaf, Tensor) else leaf, (args, kwargs)
    )
    return moved
