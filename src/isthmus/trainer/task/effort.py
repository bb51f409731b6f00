"""How much there is to compute with each number of a network: what makes one piece slower than another."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from isthmus.nets.graph.example import Example
from isthmus.trainer.task.initial import copied, like

_log = logging.getLogger("isthmus")
_PASSES = 3  # forward, and twice as much backward
_STEP = 1.0  # operations of the optimizer for a number, in the least


def efforts(piece: nn.Module, example: Example) -> Mapping[str, float]:
    """Return the operations of a step for each number of each parameter of a piece.

    Counted are the products and convolutions that a parameter goes into, as one forward pass without memory shows them:
    a number of a convolution is used at every place of the image, one of a linear layer once a sample. A piece of other
    sizes has as many for each of its numbers, so the sum over its numbers is what it costs. Products of two things that
    are computed, as in attention, belong to no parameter and are left out.

    Args:
        piece: on no device.
        example: a call of it.

    Returns:
        By name; where the pass fails, with a line on the log, the same for all.
    """
    counted = _Counted()
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
            module = copied(piece, lambda name, tensor: like(tensor, torch.device("cpu")))
            parameters = dict(module.named_parameters())
            counted.names = {StorageWeakRef(p.untyped_storage()): name for name, p in parameters.items()}
            args, kwargs = example.call([torch.empty_like(tensor, device="cpu") for tensor in example.tensors])
            with counted:
                module(*args, **kwargs)
    except Exception as error:  # whatever a network of one's own may raise on tensors without values
        said = " ".join(f"{type(error).__name__}: {error}".split())
        _log.warning("isthmus: capacities go by how many numbers a piece has, not by its operations (%s)", said)
        return {name: 1.0 for name, _ in piece.named_parameters()}
    return {name: _STEP + _PASSES * counted.operations.get(name, 0) / p.numel() for name, p in parameters.items()}


class _Counted(TorchDispatchMode):
    """Adds up the operations that each of some tensors goes into.

    Attributes:
        names: of the tensors, by their memory; a copy, of another layout or type, is added when it is made.
        operations: by name.
    """

    def __init__(self) -> None:
        super().__init__()
        self.names: dict[StorageWeakRef, str] = {}
        self.operations: dict[str, int] = {}
        self._kept: list[Tensor] = []  # memory that is let go may be given to another tensor

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        known = [(self._name(tensor), tensor) for tensor in _tensors((args, kwargs))]
        inside = [name for name, tensor in known if name is not None and tensor.dim() > 1]  # no bias, which is added
        if func._overloadpacket in flop_registry:
            made = flop_registry[func._overloadpacket](*args, **kwargs, out_val=out)
            for name in set(inside):
                self.operations[name] = self.operations.get(name, 0) + made
        elif len(inside) == 1:
            self._follow(inside[0], args, out)
        return out

    def _follow(self, name: str, args: Any, out: Any) -> None:
        """Take what is made from one tensor alone, with as many numbers, for a copy of it."""
        for tensor in _tensors(out):
            if [tensor.numel()] == [given.numel() for given in _tensors(args)]:
                self.names[StorageWeakRef(tensor.untyped_storage())] = name
                self._kept.append(tensor)

    def _name(self, tensor: Tensor) -> str | None:
        return self.names.get(StorageWeakRef(tensor.untyped_storage()))


def _tensors(tree: Any) -> Iterator[Tensor]:
    return (leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor))
