"""Running statistics of norms: those of the subnetworks are not those of the merged network."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from isthmus.errors import InvalidInput
from isthmus.nets.axes.structure import Structure
from isthmus.nets.scale.folding import arguments_of, name_of, parameter_uses
from isthmus.progress import progress

_FROM_BATCH: dict[Callable[..., Tensor], str] = {  # and the argument that says so
    functional.batch_norm: "training",
    functional.instance_norm: "use_input_stats",
    torch.ops.aten.batch_norm.default: "training",
    torch.ops.aten.instance_norm.default: "use_input_stats",
}
_OPERATORS: dict[Any, Callable[..., Tensor]] = {
    torch.batch_norm: torch.ops.aten.batch_norm.default,
    torch.instance_norm: torch.ops.aten.instance_norm.default,
}
_STATISTICS = ("running_mean", "running_var")


def statistics(coupling: Structure) -> frozenset[str]:
    """Return the names of the buffers in which norms keep running statistics, their counters of batches included.

    They are found in the graph. They need not travel: :func:`recalibrate` measures them on the merged network.

    >>> from isthmus import trace
    >>> net = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 1))
    >>> sorted(statistics(trace(net, (torch.zeros(3, 2),))))
    ['1.num_batches_tracked', '1.running_mean', '1.running_var']
    """
    found = set()
    for exported in coupling.exports.values():
        for name, uses in parameter_uses(exported).items():
            norms = (use for use in uses if name_of(use.consumer) in ("batch_norm", "instance_norm"))
            if any(arguments_of(use.consumer).get(key) is use.operand for use in norms for key in _STATISTICS):
                found.add(name)
    counters = {f"{name.rpartition('.')[0]}.num_batches_tracked".removeprefix(".") for name in found}
    return frozenset(found | counters) & frozenset(coupling.entries)


def recalibrate(model: nn.Module, loader: Iterable[Any], run: Callable[[Any], Any] | None = None) -> int:
    """Estimate the running means and variances of batch and instance norms anew, from one pass; return how many.

    The estimate is the plain average over the batches, whatever the momentum. Everything else of the network runs as
    in evaluation (no dropout), so that the same data give the same statistics, and does not change. A norm that stays
    in evaluation mode while the network trains (frozen, by a ``train`` of the network's own) keeps its statistics.

    Args:
        model: the merged network.
        loader: yields batches: the input, or a tuple or list whose first entry is the input or a tuple of inputs.
        run: passes a batch of any other kind through the network.

    Raises:
        InvalidInput: a network with buffers and a loader without a batch.
    """
    with progress("recalibrating norms", _length(loader)) as advance:
        return len(_measured(model, _told(loader, advance), run).calls)


def measure(model: nn.Module, loader: Iterable[Any], run: Callable[[Any], Any] | None = None) -> dict[str, int]:
    """Do as :func:`recalibrate`; return the names of the buffers measured, each with how many calls are its mean.

    What several workers have measured, each on its own batches, is put together by these weights.
    """
    found = _measured(model, loader, run)
    names = {id(buffer): name for name, buffer in model.named_buffers()}
    return {names[key]: found.calls[mean] for mean, pair in found.pairs.items() for key in pair if key in names}


def _measured(model: nn.Module, loader: Iterable[Any], run: Callable[[Any], Any] | None) -> _Measure:
    measured = _Measure(_frozen(model))
    if not any(True for _ in model.buffers()):
        return measured
    modes = {module: module.training for module in model.modules()}
    batches = 0
    try:
        model.eval()
        with torch.no_grad(), measured:
            for batch in loader:
                model(*_inputs(batch)) if run is None else run(batch)
                batches += 1
                if not measured.calls:
                    return measured
    finally:
        for module, training in modes.items():
            module.training = training
    if batches == 0:
        raise InvalidInput("`loader` must yield at least one batch, got none")
    return measured


def _told(loader: Iterable[Any], advance: Callable[[], object]) -> Iterator[Any]:
    """Yield the batches, and say after each that it is done."""
    for batch in loader:
        yield batch
        advance()


def _frozen(model: nn.Module) -> frozenset[int]:
    """Return the identities of the buffers of modules that stay in evaluation mode while the network trains."""
    modes = {module: module.training for module in model.modules()}
    model.train()
    frozen = [module for module in model.modules() if not module.training]
    for module, training in modes.items():
        module.training = training
    return frozenset(id(buffer) for module in frozen for buffer in module.buffers(recurse=False))


class _Measure(TorchFunctionMode):
    """Norms with running statistics, but for the frozen, use those of the batch and average them over their calls."""

    def __init__(self, frozen: frozenset[int]) -> None:
        super().__init__()
        self.frozen = frozen
        self.calls: dict[int, int] = {}  # by the mean
        self.pairs: dict[int, tuple[int, int]] = {}

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        func = _OPERATORS.get(func, func)
        if func not in _FROM_BATCH:
            return func(*args, **(kwargs or {}))
        call = _bound(func, args, kwargs or {})
        mean, variance = call.get("running_mean"), call.get("running_var")
        if mean is not None and variance is not None and id(mean) not in self.frozen:
            number = self.calls[id(mean)] = self.calls.get(id(mean), 0) + 1
            self.pairs[id(mean)] = id(mean), id(variance)
            if number == 1:
                mean.zero_()
                variance.fill_(1.0)
            call |= {_FROM_BATCH[func]: True, "momentum": 1.0 / number}
        return func(**call)


def _bound(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call by name."""
    schema = getattr(func, "_schema", None)
    if schema is None:
        return dict(inspect.signature(func).bind(*args, **kwargs).arguments)
    return {**dict(zip((argument.name for argument in schema.arguments), args, strict=False)), **kwargs}


def _inputs(batch: Any) -> tuple[Any, ...]:
    first = batch[0] if isinstance(batch, (tuple, list)) else batch
    return tuple(first) if isinstance(first, (tuple, list)) else (first,)


def _length(loader: Iterable[Any]) -> int:
    return len(loader) if isinstance(loader, Sized) else 0
