"""A network without values: whatever a strategy makes of it takes no memory, and has the sizes it would have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property

import torch
from torch import Tensor, nn

from isthmus.nets import Coupling
from isthmus.nets.pieces.subnetwork import blank
from isthmus.trainer.task.initial import copied, like, tensors_of
from isthmus.trainer.task.network import Network

NOWHERE = torch.device("meta")


@dataclass(frozen=True, eq=False)
class Hollow(Network):
    """A network of which nothing is anywhere.

    Attributes:
        full: the network that it looks like.
    """

    full: Network | None = None

    @cached_property
    def coupling(self) -> Coupling:
        """What of it can be cut."""
        assert self.full is not None
        return blank(self.full.coupling, NOWHERE)[1]

    @cached_property
    def constants(self) -> dict[str, Tensor]:
        """The sizes of the tensors that are made in forward."""
        return dict(self.coupling.constants)


@dataclass(frozen=True, eq=False)
class Nothing:
    """Initial values that nobody knows."""

    tensors: Mapping[str, Tensor]
    in_turn: bool = False
    note: str = ""

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Return room for some rows of a tensor."""
        tensor = self.tensors[name]
        shape = (stop - start, *tensor.shape[1:]) if tensor.dim() else ()
        return torch.empty(shape, dtype=tensor.dtype, device=NOWHERE)

    def drop(self) -> None:
        """Do nothing."""

    def mark(self) -> str:
        """Return "": there are no others."""
        return ""


def hollow(network: Network) -> Hollow:
    """Return a network that looks like another and holds nothing."""
    outside = copied(network.skeleton(), lambda name, tensor: like(tensor, NOWHERE))
    found = {each.name: getattr(network, each.name) for each in fields(Network)}

    def make() -> nn.Module:
        return copied(outside, lambda name, tensor: like(tensor, NOWHERE))

    tensors = tensors_of(outside)
    found |= {"make": make, "skeleton": make, "device": NOWHERE, "source": lambda: Nothing(tensors)}
    return Hollow(**found, full=network)
