"""The most memory that a computation holds at a time, of tensors that may have none."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Live(TorchDispatchMode):
    """Inside the block, adds up the bytes of what operators make, while it lives.

    Attributes:
        now: bytes that live now, of what was made inside.
        most: the largest value of that.
        made: bytes of all that was made inside.

    >>> with Live() as live:
    ...     x = torch.zeros(10, device="meta")
    ...     y = (x + 1).sum()
    >>> live.now, live.most, live.made
    (44, 84, 84)
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = self.made = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {_key(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and _key(leaf) not in given and _key(leaf) not in self._sizes:
                self._enter(leaf.untyped_storage())
        return result

    def leave_out(self, tensor: Tensor) -> None:
        """Count a tensor no longer: it is accounted for elsewhere."""
        self._leave(_key(tensor))

    def _enter(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        self._sizes[key] = size
        self.now += size
        self.made += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._leave, key)

    def _leave(self, key: int) -> None:
        self.now -= self._sizes.pop(key, 0)


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
