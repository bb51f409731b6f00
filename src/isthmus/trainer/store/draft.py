"""What some tensors are to become, as long as not every worker is ready for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor


class Draft(Mapping[str, Tensor]):
    """Tensors as they will be: those that nobody has begun to change are the old ones, of the others there are copies.

    Args:
        tensors: as they are; :meth:`take` puts the changed ones there.
        direct: whether they may be changed in place at once, as there is nobody who could fail.
    """

    def __init__(self, tensors: dict[str, Tensor], direct: bool) -> None:
        self._tensors = tensors
        self._new: dict[str, Tensor] = {}
        self._direct = direct

    def __getitem__(self, name: str) -> Tensor:
        return self._new[name] if name in self._new else self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def writable(self, name: str) -> Tensor:
        """Return a tensor to write to."""
        if self._direct:
            return self._tensors[name]
        if name not in self._new:
            self._new[name] = self._tensors[name].clone()
        return self._new[name]

    def take(self) -> None:
        """Make it so."""
        self._tensors.update(self._new)
        self._new = {}
