"""Where a network's initial values come from, a few rows of one tensor at a time: nobody needs to hold the whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from isthmus.errors import InvalidInput
from isthmus.trainer.task.deferred import NotRecorded, Recording
from isthmus.trainer.task.replay import View
from isthmus.trainer.wire.layout import digest


class Initial(Protocol):
    """The initial values of a network."""

    @property
    def in_turn(self) -> bool:
        """Whether :meth:`rows` may build the network whole: then workers ask one after another.

        Each calls :meth:`drop` before the next.
        """

    @property
    def note(self) -> str:
        """What is to be said of it, in one line: what it costs, what is rounded; "" where there is nothing."""

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Return rows start .. stop of the first dimension of a tensor; of one without dimensions, (0, 1), all.

        Args:
            name: of a parameter or buffer, or the path of a tensor that is a plain attribute of a submodule.
            start, stop: which rows.

        Returns:
            A contiguous tensor of its own, on the CPU.
        """

    def drop(self) -> None:
        """Let go of what is held to answer faster; it can be asked again, which then costs the same again."""

    def mark(self) -> str:
        """Return a digest that differs where workers may come to have other values; "" where they may not."""


class Held:
    """The values of a network that a user has made."""

    in_turn, note = False, ""

    def __init__(self, network: nn.Module) -> None:
        self._tensors = tensors_of(network)

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Return some rows of a tensor."""
        return rows_of(self._tensors[name], start, stop)

    def drop(self) -> None:
        """Do nothing."""

    def mark(self) -> str:
        """Return a digest of all values."""
        return digest(self._tensors)


class Deferred:
    """The values that a function gives the network it makes, computed when they are asked for.

    The function is run once on tensors without memory (:class:`Recording`); of what it computed, only what the asked
    rows depend on is computed again, if possible in blocks of 2 MiB, and with the random numbers it would have drawn.
    """

    in_turn, note = False, ""

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        """Run the function.

        Raises:
            NotRecorded: it does what cannot be done again without the values.
        """
        self._recording = Recording(make)
        self._views: dict[str, View] = {}
        self._real: dict[str, Tensor] = {}
        for name, tensor in tensors_of(self._recording.result).items():
            if tensor.is_meta:
                self._views[name] = self._recording.view(tensor)
            else:  # made from values, and never touched
                self._real[name] = tensor
        held = {tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in self._real.values()}
        self._recording.admit(sum(held.values()))
        self._recording.program.forget(self._views.values())

    @property
    def network(self) -> nn.Module:
        """What the function returned, on the meta device."""
        found: nn.Module = self._recording.result
        return found

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Return some rows of a tensor."""
        if name in self._real:
            return rows_of(self._real[name], start, stop)
        view = self._views[name]
        if not view.flat:
            return rows_of(self._recording.program.value(view), start, stop)
        row = view.numel // view.size[0] if view.size and view.size[0] else 1
        found = self._recording.program.elements(view, start * row, stop * row)
        return found.view(stop - start, *view.size[1:]) if view.size else found.view(())

    def drop(self) -> None:
        """Do nothing."""

    def mark(self) -> str:
        """Return "": every worker computes the same."""
        return ""


class Built:
    """The values of a network that has to be built whole to know them, and is built when they are asked for."""

    in_turn = True

    def __init__(self, make: Callable[[], nn.Module], size: int, why: str, called: str = "`network`") -> None:
        """Say what it will cost.

        Args:
            make: builds the network.
            size: bytes of its tensors.
            why: it cannot be known otherwise.
            called: what messages call the function.
        """
        self._make = make
        self._network: Held | None = None
        self._mark = ""
        self.note = (
            f"{called} cannot be built without its weights ({why}): each worker builds it whole once, in turn "
            f"({size / 1e6:.1f} MB)"
        )

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Return some rows of a tensor."""
        if self._network is None:
            self._network = Held(self._make())
            self._mark = self._network.mark()
        return self._network.rows(name, start, stop)

    def drop(self) -> None:
        """Let go of the network."""
        self._network = None

    def mark(self) -> str:
        """Return a digest of all values of the network that was built."""
        return self._mark


def deferred(make: Callable[[], nn.Module]) -> tuple[Deferred | None, str]:
    """Return the source of a function's values, or None and why it must be run for real."""
    try:
        return Deferred(make), ""
    except NotRecorded as failure:
        return None, str(failure)
    except InvalidInput:
        raise
    except Exception as error:  # whatever a function may raise that finds tensors without values
        return None, " ".join(f"{type(error).__name__}: {error}".split())[:120]


def whole(initial: Initial, name: str, tensor: Tensor) -> Tensor:
    """Return all rows of a tensor that looks like this one."""
    return initial.rows(name, 0, tensor.shape[0] if tensor.dim() else 1)


def rows_of(tensor: Tensor, start: int, stop: int) -> Tensor:
    """Return rows of a tensor as a contiguous one of its own on the CPU; one without dimensions is one row."""
    part = tensor.detach()[start:stop] if tensor.dim() else tensor.detach()
    return part.clone(memory_format=torch.contiguous_format).cpu()


def tensors_of(network: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of a network under all their names: parameters, buffers, and plain attributes by path."""
    found: dict[str, Tensor] = {**dict(network.named_parameters(remove_duplicate=False))}
    found |= dict(network.named_buffers(remove_duplicate=False))
    return found | attributes_of(network)


def attributes_of(network: nn.Module) -> dict[str, Tensor]:
    """Return the tensors that are neither parameters nor buffers but attributes, or in lists and dictionaries there.

    >>> layer = nn.Identity()
    >>> layer.tables = [torch.ones(2), {"half": torch.ones(1)}]
    >>> list(attributes_of(nn.Sequential(layer)))
    ['0.tables.0', '0.tables.1.half']
    """
    inner = {"_parameters", "_buffers", "_modules"}
    found: dict[str, Tensor] = {}
    for path, module in network.named_modules():
        for name, value in vars(module).items():
            if name not in inner:
                found |= dict(_inside(value, f"{path}.{name}" if path else name))
    return found


def like(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Return an empty tensor of the same shape and type, a parameter for a parameter."""
    made = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
    return nn.Parameter(made, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else made


def copied(network: nn.Module, value: Callable[[str, Tensor], Tensor]) -> nn.Module:
    """Return a copy of a network with other tensors in the places of its own, tied ones tied.

    Args:
        network: of the user's class; one on the meta device will do.
        value: returns what takes the place of a tensor, given its first name and the tensor: of the same kind, a
            parameter for a parameter.

    Raises:
        InvalidInput: an attribute that cannot be copied.
    """
    memo: dict[int, Any] = {}
    for name, tensor in tensors_of(network).items():
        if id(tensor) not in memo:
            memo[id(tensor)] = value(name, tensor)
    try:
        return deepcopy(network, memo)
    except Exception as error:  # whatever the copying of a user's own attributes may raise
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise InvalidInput(f"`network` must be one that copy.deepcopy can copy, but: {said}") from error


def _inside(value: Any, path: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from _inside(each, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for place, each in enumerate(value):
            yield from _inside(each, f"{path}.{place}")
