"""The network that is trained: described on every worker, held only where a strategy holds it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from isthmus.errors import InvalidInput
from isthmus.factories import call_factory, network_and_call
from isthmus.nets import Coupling, trace
from isthmus.nets.axes.choosing import NoSuchKind
from isthmus.nets.graph.example import Example, call_of, example_of
from isthmus.nets.graph.state import read_state
from isthmus.randomness import derived_seed
from isthmus.strategies import Strategy
from isthmus.trainer.task.initial import Built, Deferred, Held, Initial, attributes_of, copied, deferred, whole
from isthmus.trainer.task.terms import Terms, modules_of, network_terms, weights_terms
from isthmus.trainer.task.weights import FromFile, Weights
from isthmus.trainer.wire.group import place_for, worker_device

Call = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True, eq=False)
class Network:
    """A network that can be made, traced and called; it holds none but one that a user made already.

    Attributes:
        example: a call of it.
        make: returns it with its initial weights, the same for all who ask.
        skeleton: returns it to look at, without weights where that is possible: on the meta device.
        device: where it is trained.
        outline: name, shape, type of every parameter and buffer, and whether it is trained: the same on all workers.
        source: returns where the initial values come from.
        cut: axes to cut instead of the default.
        init: a digest of the names, types and shapes in the file that its values come from, or None.
        modules: name and description of every module: the same on all workers.
        weights: the file.
    """

    example: Example
    make: Callable[[], nn.Module]
    skeleton: Callable[[], nn.Module]
    device: torch.device
    outline: tuple[tuple[str, tuple[int, ...], str, bool], ...]
    source: Callable[[], Initial]
    cut: tuple[str, ...] | None = None
    init: str | None = None
    modules: tuple[tuple[str, str], ...] = ()
    weights: Weights | None = None

    @cached_property
    def terms(self) -> Terms:
        """What of it must be the same on all workers."""
        started = {} if self.weights is None else weights_terms(self.weights)
        return network_terms(self.modules, self.outline, self.example) | started

    @cached_property
    def initial(self) -> Initial:
        """Its initial values, a few rows of a tensor at a time: what :attr:`make` returns, bit for bit."""
        return self.source()

    @cached_property
    def coupling(self) -> Coupling:
        """What of it can be cut; the same on every worker, as all trace the skeleton."""
        skeleton = self.skeleton()
        device = _device(skeleton) or self.device
        args, kwargs = self.example.call([tensor.to(device) for tensor in self.example.tensors])
        return trace(skeleton, args, kwargs, cut=self.cut)

    def chosen(self, strategy: Strategy) -> tuple[Strategy, str]:
        """Return a strategy with the law that this network's structure chooses, and why; else the same, for no reason.

        All workers trace the skeleton, so all choose the same.

        Raises:
            InvalidInput: a strategy that cuts what the network does not have.
        """
        if strategy.axes is not None:  # the user has not named them, so a message that does would not help
            try:
                _ = self.coupling
            except NoSuchKind:
                raise InvalidInput(f"strategy {strategy.name!r} needs {strategy.needs}: the network has none") from None
        if strategy.dealt is None or not strategy.dealt.chooses:
            return strategy, ""
        law, why = self.coupling.chosen(strategy.dealt)
        return strategy.dealt_by(law), why

    @cached_property
    def constants(self) -> dict[str, Tensor]:
        """The values of the tensors that are made in forward, traced on parameters that take no memory."""
        found = self.coupling.constants
        if not any(tensor.is_meta for tensor in found.values()):
            return dict(found)
        tensors = [torch.zeros(tensor.shape, dtype=tensor.dtype) for tensor in self.example.tensors]
        args, kwargs = self.example.call(tensors)
        traced = trace(copied(self.skeleton(), self._without_memory), args, kwargs, cut=self.cut)
        return {name: tensor.to(self.device) for name, tensor in traced.constants.items()}

    @cached_property
    def valued(self) -> Coupling:
        """What of it can be cut, with the values of what is made in forward: to build pieces of it."""
        return replace(self.coupling, constants=self.constants)

    def shell(self) -> nn.Module:
        """Return the network with memory for all its weights, whose values are still to be filled in."""
        skeleton = self.skeleton()
        if _device(skeleton) != torch.device("meta"):
            return skeleton
        plain = attributes_of(skeleton)

        def value(name: str, tensor: Tensor) -> Tensor:
            if name in plain:  # nobody sends its value
                return whole(self.initial, name, tensor).to(self.device)
            return _like(tensor, torch.empty_like(tensor, device=self.device))

        return copied(skeleton, value)

    def _without_memory(self, name: str, tensor: Tensor) -> Tensor:
        if isinstance(tensor, nn.Parameter):
            nothing = torch.full((), math.nan if tensor.is_floating_point() else 0, dtype=tensor.dtype)
            return _like(tensor, nothing.expand(tensor.shape))
        return whole(self.initial, name, tensor)


def given(network: nn.Module, example: Any, cut: Sequence[str] | None = None) -> Network:
    """Return the description of a network that a user has made; its tensors are its own store.

    Raises:
        InvalidInput: no example call, or one that does not fit.
    """
    if example is None:
        raise InvalidInput("`example` must be a call of the network, (args) or (args, kwargs), got none")
    args, kwargs = call_of(example)
    described = example_of(network, args, kwargs)
    device = _device(network) or torch.device("cpu")
    if device.type == "meta":
        raise InvalidInput("`network` is on the meta device and has no values: pass the function that makes it instead")
    axes = None if cut is None else tuple(cut)
    return Network(
        described,
        lambda: network,
        lambda: network,
        device,
        outline_of(network),
        lambda: Held(network),
        axes,
        modules=modules_of(network),
    )


def describe(
    network: nn.Module | Callable[[], Any],
    example: Any,
    seed: int,
    cut: Sequence[str] | None = None,
    device: torch.device | str | None = None,
    init: str | Path | None = None,
) -> Network:
    """Return the description of what a user passed: a network, or a function that makes one.

    Args:
        network, example, seed, cut, device: as in :func:`given` and :func:`made_by`.
        init: safetensors files that hold the weights a made network starts from.

    Raises:
        InvalidInput: neither, a device that is not here or has no effect, or what :func:`given` and :func:`made_by`
            refuse.
    """
    if isinstance(network, nn.Module):
        if device is not None:
            raise InvalidInput("`device` has no effect on a module: move it with .to(device)")
        if init is not None:
            raise InvalidInput("`init` has no effect on a module: load the file into it, or pass a function")
        return given(network, example, cut)
    if not callable(network):
        raise InvalidInput(f"`network` must be a torch.nn.Module or a function, got {type(network).__name__}")
    place = worker_device() if device is None else place_for(device)
    made = made_by(network, example, seed, place, cut)
    return made if init is None else started_from(made, init)


def made_by(
    factory: Callable[[], Any],
    example: Any,
    seed: int,
    device: torch.device,
    cut: Sequence[str] | None = None,
    called: str = "`network`",
) -> Network:
    """Return the description of the network that a function makes.

    It is called on the meta device first; one that fails there is recorded (:class:`Deferred`); one that cannot be
    recorded is called for real, before the first round, and what it made is dropped. Initial weights are drawn from
    torch's own generator, keyed by the seed.

    Args:
        factory: returns the network, or (network, args) or (network, args, kwargs) with an example call.
        example: a call, where the factory returns none.
        seed: of the run.
        device: where to train.
        cut: axes to cut instead of the default.
        called: what messages call the function.

    Raises:
        InvalidInput: a function that fails, or returns something else; no example call, or one that does not fit.
    """

    def make() -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed(seed, "init/model"))
            return _checked(factory(), called)

    shown: Call | None = None

    def first() -> nn.Module:
        nonlocal shown
        made, shown = make()
        return made

    @cache
    def recorded() -> tuple[Deferred | None, str]:
        return deferred(first)

    def describe() -> nn.Module:
        try:
            with torch.device("meta"):
                return first()
        except InvalidInput:
            raise
        except Exception:  # whatever a factory may raise on a device without values; for real it must succeed
            found, _ = recorded()
            return deepcopy(found.network) if found is not None else call_factory(first, called)

    network = describe()
    call = shown if example is None else call_of(example)
    if call is None:
        raise InvalidInput("`example` must be a call of the network, (args) or (args, kwargs), got none")
    args, kwargs = call
    on = _device(network)
    described = example_of(network, *((args, kwargs) if on is None else _moved(on, args, kwargs)))
    held = [network]  # until it is asked for: a network that had to be built for real is not built again at once

    def real() -> nn.Module:
        kept = held.pop() if held and on is not None and on.type != "meta" else make()[0]
        found: nn.Module = kept.to(device)
        return found

    def skeleton() -> nn.Module:
        found: nn.Module = held.pop() if held else describe()
        return found

    def source() -> Initial:
        found, why = recorded()
        return found or Built(lambda: make()[0], bytes_of(outline), why, called)

    axes, outline = None if cut is None else tuple(cut), outline_of(network)
    return Network(described, real, skeleton, device, outline, source, axes, modules=modules_of(network))


def started_from(network: Network, path: str | Path) -> Network:
    """Return a network whose persistent tensors start from files; the rest from where they did.

    Raises:
        DataError: files that are missing or damaged.
        InvalidInput: files that do not fit the network.
    """
    weights = Weights(path)
    source = FromFile(weights, read_state(network.skeleton()), network.source)
    return replace(
        network,
        make=lambda: source.load(network.make()),
        source=lambda: source,
        init=weights.identity,
        weights=weights,
    )


@contextmanager
def in_evaluation(network: nn.Module) -> Iterator[nn.Module]:
    """Put a network into evaluation mode inside the block; after it every submodule has its own mode again."""
    modes = {module: module.training for module in network.modules()}
    try:
        yield network.eval()
    finally:
        for module, training in modes.items():
            module.training = training


def outline_of(network: nn.Module) -> tuple[tuple[str, tuple[int, ...], str, bool], ...]:
    """Return what must be the same of a network on all workers."""
    entries = read_state(network).values()
    return tuple((entry.name, entry.shape, str(entry.dtype), entry.trained) for entry in entries)


def bytes_of(outline: Sequence[tuple[str, tuple[int, ...], str, bool]]) -> int:
    """Return the bytes of all tensors of an outline."""
    return sum(
        math.prod(shape) * getattr(torch, dtype.removeprefix("torch.")).itemsize for _, shape, dtype, _ in outline
    )


def _checked(made: Any, called: str) -> tuple[nn.Module, Call | None]:
    """Return a network and an example call from what a factory returned."""
    network, *rest = made if isinstance(made, tuple) else (made,)
    if not isinstance(network, nn.Module):
        raise InvalidInput(f"{called} must return a torch.nn.Module first, got {type(network).__name__}")
    if not rest:
        return network, None
    network, args, kwargs = network_and_call(made, called)
    return network, (args, kwargs)


def _like(tensor: Tensor, value: Tensor) -> Tensor:
    """Return a value as a parameter where a tensor is one."""
    return nn.Parameter(value, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else value


def _device(network: nn.Module) -> torch.device | None:
    tensors = [*network.parameters(), *network.buffers()]
    return tensors[0].device if tensors else None


def _moved(device: torch.device, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Return the arguments with all tensors on a device."""
    moved: tuple[Any, Any] = pytree.tree_map(
        lambda leaf: leaf.to(device) if isinstance(leaf, Tensor) else leaf, (args, kwargs)
    )
    return moved
