"""How much memory a worker will need at most, worked out before it takes any: its work is done once on tensors without
memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, astuple, dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim import Optimizer
from torch.utils import _pytree as pytree

from isthmus.trainer.local.optimizer import adopt
from isthmus.trainer.observe.account import held_bytes
from isthmus.trainer.plan.live import Live
from isthmus.trainer.store.reader import BLOCK, KEPT
from isthmus.trainer.strategies import Part
from isthmus.trainer.task.initial import copied, like
from isthmus.trainer.task.network import Network, bytes_of

_CPU = torch.device("cpu")
_log = logging.getLogger("isthmus")
_READING = KEPT + 4 * BLOCK  # bytes held to read the network from where it lives


@dataclass(frozen=True)
class Plan:
    """Bytes that one worker needs, beyond an interpreter that has loaded the same libraries.

    Attributes:
        home: what it keeps between rounds beside its piece: the rows it is home to, and tensors that never change.
        piece: parameters and buffers of what it trains.
        gradients: of the trained parameters.
        state: of the optimizer.
        activations: the most that a step holds at a time beside these: what the backward pass needs, and temporaries.
        way: the most that is on the way at a time: in an exchange, in an evaluation, or while it starts.
        data: its examples.
    """

    home: int
    piece: int
    gradients: int
    state: int
    activations: int
    way: int
    data: int = 0

    @property
    def held(self) -> int:
        """What stays from step to step: what ``Training.account().memory_bytes`` counts."""
        return self.home + self.piece + self.gradients + self.state

    @property
    def total(self) -> int:
        """The sum of all: never less than what is needed, as not all of it is needed at the same time."""
        return sum(astuple(self))

    @classmethod
    def of(cls, numbers: Mapping[str, int]) -> Plan:
        """Return the plan that these numbers, by name, are."""
        return cls(**{each.name: int(numbers[each.name]) for each in fields(cls)})

    def numbers(self) -> dict[str, int]:
        """Return its numbers by name."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Work:
    """What a worker does with its module.

    Attributes:
        optimizer: makes the optimizer of a module.
        loss: returns the loss of a module on a batch; called with nothing in memory.
        look: calls the merged network as an evaluation does; None if it is not known.
        data: bytes of the examples.
        step: brings the gradients of one step of a module with values; None if that is not known.
        passes: of the loss, in a step.
        device: where.
    """

    optimizer: Callable[[nn.Module], Optimizer]
    loss: Callable[[nn.Module], Tensor]
    look: Callable[[nn.Module], Any] | None = None
    data: int = 0
    step: Callable[[nn.Module], None] | None = None
    passes: int = 1
    device: torch.device = _CPU


@dataclass(frozen=True, eq=False)
class Ahead:
    """What is known of a worker before it starts.

    Attributes:
        plan: of its memory.
        piece: what it trains in the first round, on no device.
        parameters: that it holds of that between steps.
    """

    plan: Plan
    piece: nn.Module
    parameters: int


def look_ahead(part: Part, network: Network, work: Work, skeleton: nn.Module) -> Ahead:
    """Return what a worker will need in the first round, and while the network is looked at.

    Args:
        part: of the worker, which need not have started.
        network: that is trained.
        work: what is done with it.
        skeleton: of the network.
    """
    starting = bytes_of(network.outline) if network.initial.in_turn else 0
    with FakeTensorMode(allow_non_fake_inputs=True):
        needs = part.needs(skeleton)
        activations, trained = _step(needs.module, work.loss)
        looking = _looked(skeleton, network.device, work.look)
    looking += 0 if part.store is None else _READING
    twin = copied(needs.held or needs.module, lambda name, tensor: like(tensor, "meta"))
    piece, gradients = held_bytes(twin, None), _bytes(p for p in twin.parameters() if p.requires_grad)
    state, updating = _state(twin, work.optimizer, trained)
    twin.zero_grad()
    plan = Plan(
        needs.kept,
        piece - gradients,
        gradients,
        state,
        max(activations, updating),
        max(needs.moved, looking, starting),
        work.data,
    )
    parameters = sum(parameter.numel() for parameter in twin.parameters())
    whole = twin if needs.held is None else copied(needs.module, lambda name, tensor: like(tensor, "meta"))
    return Ahead(plan, whole, parameters)


def _step(module: nn.Module, loss: Callable[[nn.Module], Tensor]) -> tuple[int, set[str]]:
    """Return the most bytes that a pass forward and backward holds beside gradients, and what has got a gradient."""
    live = Live()
    for parameter in module.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(lambda each: live.leave_out(each.grad))
    try:
        with live:
            loss(module.train()).backward()
    except Exception as error:  # whatever a loss of one's own may raise where there are no values
        said = " ".join(f"{type(error).__name__}: {error}".split())
        _log.warning("isthmus: the plan of memory lacks activations, which cannot be known without values (%s)", said)
        return live.most, {name for name, _ in module.named_parameters()}
    return live.most, {name for name, p in module.named_parameters() if p.grad is not None}


def _looked(skeleton: nn.Module, device: torch.device, look: Callable[[nn.Module], Any] | None) -> int:
    """Return the most bytes that looking at the merged network holds, beside its weights."""
    if look is None:
        return 0
    shown = copied(skeleton, lambda name, tensor: like(tensor, device)).eval()
    live = Live()
    with live, torch.no_grad(), suppress(Exception):  # it is known once a result is read as a number
        look(shown)
    return live.most


def _state(module: nn.Module, make: Callable[[nn.Module], Optimizer], trained: set[str]) -> tuple[int, int]:
    """Return the bytes of an optimizer's state, and of what else a step of it holds, from two steps without memory."""
    try:
        optimizer = adopt(module, make)
        for name, parameter in module.named_parameters():
            parameter.grad = torch.empty_like(parameter) if name in trained and parameter.requires_grad else None
        optimizer.step()
        with Live() as live:
            optimizer.step()
    except Exception as error:  # whatever an optimizer of one's own may raise where there are no values
        said = " ".join(f"{type(error).__name__}: {error}".split())
        _log.warning("isthmus: the plan of memory lacks the optimizer, which cannot be known without values (%s)", said)
        return 0, 0
    return held_bytes(module, optimizer) - held_bytes(module, None), live.most


def tensor_bytes(tree: Any) -> int:
    """Return the bytes of all tensors of a tree."""
    return _bytes(leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor))


def _bytes(tensors: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
