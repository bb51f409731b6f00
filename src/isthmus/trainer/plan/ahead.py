"""The plan of memory of every worker of a run that has not been started, in one process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils import _pytree as pytree

from isthmus.errors import check_integer
from isthmus.partitions import Law
from isthmus.strategies import Strategy, strategy_of
from isthmus.trainer.config.run import check_wire
from isthmus.trainer.plan.plan import Plan, Work, look_ahead
from isthmus.trainer.plan.traffic import Nobody
from isthmus.trainer.strategies import Worker, part_of
from isthmus.trainer.task.network import describe
from isthmus.trainer.wire.exchange import TYPES


def memory_plan(
    network: nn.Module | Callable[[], Any],
    example: Any = None,
    optimizer: Callable[[nn.Module], Optimizer] | None = None,
    strategy: Strategy | str = "ist",
    law: Law | str | Mapping[str, Law | str] | None = None,
    core: float | None = None,
    *,
    workers: int = 4,
    seed: int = 0,
    cut: Sequence[str] | None = None,
    wire: str | None = None,
    loss: Callable[[Any], Tensor] | None = None,
    copies: bool = True,
) -> list[Plan]:
    """Return the bytes that every worker of an ``isthmus.Training`` with these arguments will need at most.

    Nothing is started, and of the network, if a function makes it, nothing is held.

    Args:
        network, optimizer, strategy, law, core, seed, cut, wire: as for ``isthmus.Training``; without an optimizer, of
            SGD without momentum.
        example: as for ``isthmus.Training``, with as many samples as a step has; the merged network is taken to be
            called on as many.
        workers: number of workers.
        loss: of the network's output; by default its mean.
        copies: whether each keeps a copy of its neighbour's rows, as workers in processes of their own do by default.

    Raises:
        InvalidInput: as ``isthmus.Training``.

    >>> network, x = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), torch.zeros(16, 4)
    >>> memory_plan(network, (x,), workers=2)[0].piece  # 4 inputs, 4 of 8 hidden units, 2 outputs
    120
    """
    check_integer("workers", workers, at_least=1)
    chosen = strategy_of(strategy, law, core)
    check_wire(wire, workers, chosen)
    chosen.check_workers(workers)
    described = describe(network, example, seed, cut)
    chosen, _ = described.chosen(chosen)
    sizes = described.example.tensors

    def call(module: nn.Module) -> Any:
        like = [torch.empty(each.shape, dtype=each.dtype, device=described.device) for each in sizes]
        args, kwargs = described.example.call(like)
        return module(*args, **kwargs)

    work = Work(optimizer or _plain, lambda module: (loss or _mean)(call(module)), call)
    kind = None if wire is None else TYPES[wire]
    skeleton = described.skeleton()
    parts = [part_of(chosen, Worker(Nobody(w, workers, True), described, seed, kind, copies)) for w in range(workers)]
    return [look_ahead(part, described, work, skeleton).plan for part in parts]


def _plain(module: nn.Module) -> Optimizer:
    return torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=1.0)


def _mean(output: Any) -> Tensor:
    leaves = [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
    return sum((leaf.mean() for leaf in leaves), torch.zeros(()))
