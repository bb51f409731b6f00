"""What torch has to be told of a network: which layers are gathered together, and whether parameters are left out.

Both come from a call of it on tensors without values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from isthmus.nets.graph.example import Example
from isthmus.trainer.task.initial import copied, like

LEAST = 1 << 18  # bytes: what is smaller is dearer in hops than in memory


def layers_of(network: nn.Module, example: Example, least: int = LEAST) -> list[str]:
    """Return the names of the modules whose parameters are gathered apart from all others'.

    They are the outermost, but for the network itself, that have parameters of their own. Left to the root are small
    ones; those that share a parameter with another, which must be in one group; and those whose parameters are used
    outside of their own forward, as it is that which gathers them.

    Args:
        network: on any device.
        example: a call of it.
        least: bytes of parameters.
    """
    found = _outermost(network)
    users: dict[int, set[str]] = {}
    for name, module in found.items():
        for parameter in module.parameters():
            users.setdefault(id(parameter), set()).add(name)
    for parameter in network.parameters(recurse=False):
        users.setdefault(id(parameter), set()).add("")
    tied = {name for names in users.values() if len(names) > 1 for name in names}
    sizes = {n: sum(p.numel() * p.element_size() for p in module.parameters()) for n, module in found.items()}
    kept = [name for name in found if name not in tied and sizes[name] >= least]
    return [name for name in kept if name not in _used_outside(network, example, kept)]


def groups_of(network: nn.Module, layers: Sequence[str]) -> list[list[str]]:
    """Return the names of the parameters that are gathered together: first the root's, then those of each layer."""
    modules = dict(network.named_modules())
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    groups = [[names[id(parameter)] for parameter in modules[layer].parameters()] for layer in layers]
    apart = {name for group in groups for name in group}
    return [[name for name in names.values() if name not in apart], *groups]


def _outermost(network: nn.Module) -> dict[str, nn.Module]:
    found: dict[str, nn.Module] = {}
    for name, module in network.named_modules():
        inside = any(name.startswith(f"{other}.") for other in found)
        if name and not inside and any(True for _ in module.parameters(recurse=False)):
            found[name] = module
    return found


def _used_outside(network: nn.Module, example: Example, layers: Sequence[str]) -> set[str]:
    """Return which layers' parameters are used while none of their forwards runs, in a call without values."""
    if not layers:
        return set()
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        twin = copied(network, lambda name, tensor: like(tensor, "cpu"))
        modules = dict(twin.named_modules())
        seen = _Uses({id(p): layer for layer in layers for p in modules[layer].parameters()})
        for layer in layers:
            modules[layer].register_forward_pre_hook(seen.entering(layer))
            modules[layer].register_forward_hook(seen.leaving(layer), always_call=True)
        with suppress(Exception), seen:  # one that hangs on values is not known so: torch says it in the first step
            _call(twin, example)
    return seen.outside


def leaves_out(network: nn.Module, example: Example) -> bool:
    """Whether parameters that are trained have no part in what a network returns."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        twin = copied(network, lambda name, tensor: like(tensor, "cpu"))
        try:
            output = pytree.tree_leaves(_call(twin.train(), example))
            sums = [leaf.sum() for leaf in output if isinstance(leaf, Tensor) and leaf.requires_grad]
            torch.autograd.backward(sums)
        except Exception:  # not known so: torch says it in the second step
            return False
    return any(each.requires_grad and each.grad is None for each in twin.parameters())


def _call(network: nn.Module, example: Example) -> Any:
    args, kwargs = example.call([torch.empty(each.shape, dtype=each.dtype) for each in example.tensors])
    return network(*args, **kwargs)


class _Uses(TorchFunctionMode):
    """Notes whose parameters are used while their own layer does not run."""

    def __init__(self, layers: Mapping[int, str]) -> None:
        super().__init__()
        self._layers, self._running = layers, list[str]()
        self.outside: set[str] = set()

    def entering(self, layer: str) -> Any:
        return lambda *_: self._running.append(layer)

    def leaving(self, layer: str) -> Any:
        return lambda *_: self._running.remove(layer)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for leaf in pytree.tree_leaves((args, kwargs)):
            layer = self._layers.get(id(leaf)) if isinstance(leaf, Tensor) else None
            if layer is not None and layer not in self._running:
                self.outside.add(layer)
        return func(*args, **(kwargs or {}))
