"""The call a network is traced with: its tensors apart from everything else, which stays constant."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch.utils._pytree as pytree
from torch import Tensor, nn

from isthmus.errors import InvalidInput

_TENSOR = object()  # stands for any tensor


@dataclass(frozen=True)
class Example:
    """The call a network was traced with: tensors apart, everything else constant.

    Attributes:
        signature: of the network's ``forward``.
        tensors: the tensor leaves of the bound arguments, in order.
        leaves: all leaves, tensors replaced by None.
        slots: positions of the tensors among the leaves.
        spec: the tree of the bound arguments.
    """

    signature: inspect.Signature
    tensors: tuple[Tensor, ...]
    leaves: tuple[Any, ...]
    slots: tuple[int, ...]
    spec: Any

    def __deepcopy__(self, memo: dict[int, Any]) -> Example:
        return self  # nothing of it ever changes

    def call(self, tensors: Sequence[Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return (args, kwargs) with other tensors in the places of the example's."""
        bound = inspect.BoundArguments(self.signature, OrderedDict(self._filled(tensors)))
        return bound.args, bound.kwargs

    def tensors_of(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
        """Return the tensors of another call.

        Raises:
            InvalidInput: the call differs from the traced one in anything but its tensors.
        """
        names, leading = self._plain
        if len(args) <= leading and len(args) + len(kwargs) == len(names):  # most calls: nothing but tensors, in place
            tensors = [*args, *(kwargs.get(name) for name in names[len(args) :])]
            if all(isinstance(tensor, Tensor) for tensor in tensors):
                return tensors
        return self._bound(args, kwargs)

    @cached_property
    def _plain(self) -> tuple[tuple[str, ...], int]:
        """Names of the arguments if each is a tensor, and how many of them lead the signature; else ((), -1)."""
        traced = self._filled([_TENSOR] * len(self.slots))
        if any(value is not _TENSOR for value in traced.values()):
            return (), -1
        places = zip(traced, self.signature.parameters.values(), strict=False)
        positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        in_place = [name == parameter.name and parameter.kind in positional for name, parameter in places]
        return tuple(traced), in_place.index(False) if False in in_place else len(in_place)

    def _filled(self, values: Sequence[Any]) -> dict[str, Any]:
        leaves = list(self.leaves)
        for slot, value in zip(self.slots, values, strict=True):
            leaves[slot] = value
        return dict(pytree.tree_unflatten(leaves, self.spec))

    def _bound(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
        """Any call: one with constants, nested arguments, arguments that are left to their default."""
        try:
            given = dict(self.signature.bind(*args, **kwargs).arguments)
        except TypeError as error:
            raise InvalidInput(f"the network is called otherwise than it was traced: {error}") from None
        defaults = {name: parameter.default for name, parameter in self.signature.parameters.items()}
        traced = self._filled([_TENSOR] * len(self.slots))
        extra = [name for name, value in given.items() if name not in traced and not _same(value, defaults[name])]
        missing = [name for name in traced if name not in given and not _same(traced[name], defaults[name])]
        if extra or missing:
            what = f"without `{extra[0]}`" if extra else f"with `{missing[0]}`"
            raise InvalidInput(f"the network was traced {what}: trace it again with the arguments it is called with")
        leaves, spec = pytree.tree_flatten({name: given.get(name, defaults[name]) for name in traced})
        if spec != self.spec:
            raise InvalidInput("the arguments are nested otherwise than those the network was traced with")
        for position, (leaf, constant) in enumerate(zip(leaves, self.leaves, strict=True)):
            expected = _TENSOR if position in self.slots else constant
            if isinstance(leaf, Tensor) != (expected is _TENSOR) or not (expected is _TENSOR or _same(leaf, expected)):
                shown = "a tensor" if expected is _TENSOR else repr(constant)
                found = "a tensor" if isinstance(leaf, Tensor) else repr(leaf)
                raise InvalidInput(f"the network was traced with {shown} where {found} is given: trace it again")
        return [leaves[slot] for slot in self.slots]


def example_of(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any] | None) -> Example:
    """Return the example of a call ``model(*args, **kwargs)``.

    Raises:
        InvalidInput: arguments that ``forward`` does not take, or no tensor among them.
    """
    signature = inspect.signature(model.forward)
    try:
        bound = signature.bind(*args, **dict(kwargs or {}))
    except TypeError as error:
        raise InvalidInput(f"`args` must fit the network's forward: {error}") from None
    leaves, spec = pytree.tree_flatten(dict(bound.arguments))
    slots = tuple(i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor))
    if not slots:
        raise InvalidInput("`args` must hold at least one tensor, got none")
    rest = tuple(None if isinstance(leaf, Tensor) else leaf for leaf in leaves)
    return Example(signature, tuple(leaves[i] for i in slots), rest, slots, spec)


def call_of(batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return (args, kwargs) of the call that a batch stands for.

    A mapping is keyword arguments, ``model(**batch)``; a tuple or list positional ones; a pair of both is both;
    anything else is the only argument.

    >>> call_of({"input_ids": 1, "labels": 2})
    ((), {'input_ids': 1, 'labels': 2})
    >>> call_of(([1, 2], {"mask": 3}))
    ((1, 2), {'mask': 3})
    >>> call_of((1, 2)), call_of(1)
    (((1, 2), {}), ((1,), {}))
    """
    if isinstance(batch, Mapping):
        return (), dict(batch)
    if type(batch) not in (tuple, list):  # a named tuple is one argument
        return (batch,), {}
    if len(batch) == 2 and type(batch[0]) in (tuple, list) and isinstance(batch[1], Mapping):
        return tuple(batch[0]), dict(batch[1])
    return tuple(batch), {}


def _same(value: Any, other: Any) -> bool:
    if value is other:
        return True
    return not isinstance(value, Tensor) and not isinstance(other, Tensor) and bool(value == other)
