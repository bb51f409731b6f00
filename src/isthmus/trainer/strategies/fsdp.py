"""torch's fully sharded data parallel: ``fully_shard``; around it, where rows live, and what is moved."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from isthmus.errors import InvalidInput
from isthmus.nets.pieces.ownership import Held
from isthmus.strategies import FSDP
from isthmus.trainer.local.sharded import local
from isthmus.trainer.store.homes import Homes
from isthmus.trainer.store.start import overwrite, take
from isthmus.trainer.strategies.interface import Commit, Merged, Needs, Round, State, Worker, closed
from isthmus.trainer.strategies.layers import groups_of, layers_of
from isthmus.trainer.strategies.local_sgd import LocalSGDPart, trained_parameters
from isthmus.trainer.task.initial import copied, like, whole
from isthmus.trainer.wire.exchange import Program
from isthmus.trainer.wire.meter import Traffic
from isthmus.trainer.wire.native import Native, all_gather, all_reduce
from isthmus.trainer.wire.tensors import differing


@dataclass(eq=False)
class Shards:
    """Where the parameters live that torch has sharded: in rows, as ``Homes`` has them; buffers every worker has.

    Attributes:
        homes: who is home to what.
        types: of the parameters.
        fixed: buffers.
    """

    homes: Homes
    types: Mapping[str, torch.dtype]
    fixed: dict[str, Tensor] = field(default_factory=dict)

    @property
    def statistics(self) -> Collection[str]:
        """Any buffer may be one that a norm measures."""
        return self.fixed

    @property
    def names(self) -> Collection[str]:
        """Of parameters and buffers."""
        return {*self.types, *self.fixed}


class FSDPPart(LocalSGDPart):
    """One worker of torch's fully sharded data parallel. All must make the same number of steps.

    No worker ever holds the network: its rows are filled with their initial values one tensor at a time, and what it
    gathers for a step are groups of layers. One worker alone trains the network as it is.
    """

    def __init__(self, strategy: FSDP, worker: Worker) -> None:
        super().__init__(strategy, worker)
        self._shards: Shards | None = None
        if worker.link.workers > 1:
            skeleton = worker.network.skeleton()
            parameters = dict(skeleton.named_parameters())
            shapes = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
            types = {name: parameter.dtype for name, parameter in parameters.items()}
            self._shards = self.store = Shards(Homes(worker.link.workers, shapes), types)
            self._layers = layers_of(skeleton, worker.network.example)
            self._groups = groups_of(skeleton, self._layers)

    def accumulating(self) -> AbstractContextManager[None]:
        """Have torch keep gradients whole inside the block, unsynchronized."""
        return nullcontext() if self.store is None else self._unsynchronized()

    @contextmanager
    def _unsynchronized(self) -> Iterator[None]:
        module: Any = self.module
        module.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            module.set_requires_gradient_sync(True)

    def needs(self, skeleton: nn.Module) -> Needs:
        """Return what it will hold: its rows, and of a step the largest group gathered, and those at the root."""
        shards, device = self._shards, self._worker.device
        if shards is None:
            return super().needs(skeleton)
        module = copied(skeleton, lambda name, tensor: like(tensor, device))
        held = copied(skeleton, lambda name, tensor: like(self._own(shards.homes, name, tensor), "meta"))
        size = {name: each.numel() * each.element_size() for name, each in module.named_parameters()}
        root, *others = (sum(size[name] for name in group) for group in self._groups)
        # A group is gathered in one piece and then taken apart; so are its gradients put together. The next one may
        # come meanwhile, and the root's stays from the first layer to the last.
        return Needs(module, 0, 3 * root + 4 * max(others, default=0), held)

    def _own(self, homes: Homes, name: str, tensor: Tensor) -> Tensor:
        """Return a tensor as large as this worker's rows of one, a parameter for a parameter."""
        if name not in homes.shapes:
            return tensor
        start, stop = homes.rows(name, self._worker.link.index)
        rows = torch.empty((stop - start, *tensor.shape[1:]), dtype=tensor.dtype, device="meta")
        return nn.Parameter(rows, tensor.requires_grad)

    def start(self) -> Program[State]:
        """Shard the network while it has no values, and fill this worker's rows."""
        shards, worker = self._shards, self._worker
        if shards is None:
            return (yield from super().start())
        scalars = [name for name, shape in shards.homes.shapes.items() if not shape]
        if scalars:
            raise InvalidInput(
                f"strategy 'fsdp' cannot shard {scalars[0]!r}, a parameter without dimensions: give it the shape (1,)"
            )
        self.native = worker.link.native()
        initial, device, here = worker.network.initial, worker.device, worker.link.index

        def build() -> nn.Module:
            skeleton = worker.network.skeleton()
            named = {**dict(skeleton.named_parameters(remove_duplicate=False)),
                     **dict(skeleton.named_buffers(remove_duplicate=False))}  # fmt: skip

            def value(name: str, tensor: Tensor) -> Tensor:
                return like(tensor, "meta") if name in named else whole(initial, name, tensor).to(device)

            made = self._sharded(copied(skeleton, value), worker)
            for name, buffer in made.named_buffers():
                buffer.copy_(whole(initial, name, buffer))
            for name, parameter in made.named_parameters():
                start, stop = shards.homes.rows(name, here)
                if start < stop:
                    with torch.no_grad():
                        local(parameter).copy_(initial.rows(name, start, stop))
            return made

        self.module = yield from take(initial, build, worker.link, device)
        shards.fixed = {name: buffer.detach() for name, buffer in self.module.named_buffers()}
        state = State(self._rows(shards))
        others = yield from differing(initial.mark(), worker.link, device)
        if others:
            yield from overwrite(worker.network, worker.link, shards.homes, state.tensors, shards.fixed, others)
        return state

    def _rows(self, shards: Shards) -> dict[str, Tensor]:
        """Return this worker's rows of all parameters of which it has some."""
        here = self._worker.link.index
        found = {name: local(parameter.detach()) for name, parameter in self.module.named_parameters()}
        return {name: rows for name, rows in found.items() if shards.homes.shard(name, here) is not None}

    def _sharded(self, module: nn.Module, worker: Worker) -> nn.Module:
        """Have torch shard a network without memory; give memory to its rows and buffers."""
        from torch.distributed.device_mesh import DeviceMesh  # half a second, which other strategies need not pay
        from torch.distributed.fsdp import FSDPModule, fully_shard

        native = self.native
        assert native is not None
        mesh = DeviceMesh.from_group(native.group, worker.device.type)
        modules = dict(module.named_modules())
        for name in self._layers:
            fully_shard(modules[name], mesh=mesh)
        fully_shard(module, mesh=mesh)
        gather: Any = _Gather(native)
        reduce: Any = _Reduce(native)
        for each in module.modules():
            if isinstance(each, FSDPModule):
                each.set_custom_all_gather(gather)
                each.set_custom_reduce_scatter(reduce)
        return module.to_empty(device=worker.device)

    def open(self, state: State, round: Round) -> Program[Commit]:
        """Note that the round is open."""
        opened = yield from super().open(state, round)

        def commit() -> None:
            opened()
            state.held = round

        return commit

    def block(self) -> dict[str, Tensor]:
        """Return nothing: gradients are averaged, and no worker has a block of its own."""
        return {}

    def close(self, state: State, module: nn.Module, refused: Sequence[int]) -> Program[Commit]:
        """Do nothing: the optimizer has changed the rows in their place."""
        yield from ()
        return closed(state)

    def step_traffic(self, module: nn.Module) -> Traffic:
        """Return that of gathering all groups, those but the root's once more, and of reducing their gradients.

        Rows are filled up, so that all workers have as many. To clip gradients a norm more travels, which is not in it.
        """
        shards, found = self._shards, Traffic()
        if shards is None:
            return found
        homes, trained = shards.homes, trained_parameters(module)
        headers = self._worker.device.type == "cpu"
        for number, names in enumerate(self._groups):
            sizes = {n: homes.workers * homes.most_numbers(n) * shards.types[n].itemsize for n in names}
            gathered = all_gather(sum(sizes.values()), homes.workers, headers)
            reduced = all_reduce(sum(size for name, size in sizes.items() if name in trained), homes.workers, headers)
            found += (gathered.times(1 if number == 0 else 2) + reduced) if names else Traffic()
        return found

    def merged(self, state: State) -> Merged:
        """Return the network where one worker is alone; else no worker holds it."""
        return super().merged(state) if self.store is None else Merged(None)

    def restore(self, state: State, piece: Callable[[str, Held], Tensor]) -> None:
        """Take up buffers; the state's tensors are the module's own rows."""
        if self._shards is not None:
            for name, buffer in self._shards.fixed.items():
                buffer.copy_(piece(name, (None,) * buffer.dim()))


class _Gather:
    """torch's all-gather, with a note of what it moves and how long it takes."""

    def __init__(self, native: Native) -> None:
        from torch.distributed.fsdp._fully_shard._fsdp_collectives import DefaultAllGather

        self._native, self._torch = native, DefaultAllGather()
        self.allocate = self._torch.allocate

    def __call__(self, output_tensor: Tensor, input_tensor: Tensor, group: Any, async_op: bool = False) -> Any:
        """Gather."""
        self._native.expect(all_gather(output_tensor.nbytes, self._native.workers, output_tensor.device.type == "cpu"))
        with self._native.waiting():
            return self._torch(output_tensor, input_tensor, group, async_op)


class _Reduce:
    """torch's reduce-scatter, with a note of what it moves and how long it takes."""

    def __init__(self, native: Native) -> None:
        from torch.distributed.fsdp._fully_shard._fsdp_collectives import DefaultReduceScatter

        self._native, self._torch = native, DefaultReduceScatter()
        self.allocate = self._torch.allocate

    def __call__(self, output_tensor: Tensor, input_tensor: Tensor, group: Any, op: Any, async_op: bool = False) -> Any:
        """Sum, and keep this worker's part."""
        self._native.expect(all_reduce(input_tensor.nbytes, self._native.workers, input_tensor.device.type == "cpu"))
        with self._native.waiting():
            return self._torch(output_tensor, input_tensor, group, op, async_op)
