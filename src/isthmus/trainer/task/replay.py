"""A recorded program of tensor operations, run again for a part of what it computed."""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, UntypedStorage
from torch.utils import _pytree as pytree

aten = torch.ops.aten
BLOCK = 1 << 19  # numbers that are computed at a time: 2 MiB of float32
SAME = 16  # a normal draw of at least as many contiguous numbers makes them in groups of as many

_EMPTY = {aten.empty.memory_format, aten.empty_strided.default, aten.empty_like.default, aten.new_empty.default}
_EMPTY |= {aten.new_empty_strided.default}
_BLANK = {aten.zeros.default, aten.ones.default, aten.full.default, aten.new_zeros.default, aten.new_ones.default}
_BLANK |= {aten.new_full.default}
_DRAWN = {aten.rand.default, aten.randn.default, aten.rand.generator, aten.randn.generator}
_DRAWS = {aten.uniform_.default, aten.normal_.default, *_DRAWN}
_FILLS = {aten.fill_.Scalar, aten.fill_.Tensor, aten.zero_.default, aten.copy_.default, *_DRAWS}
_COPIES = {aten.clone.default, aten._to_copy.default, aten.copy_.default}
_LIKE = {aten.zeros_like.default, aten.ones_like.default, aten.full_like.default}
_OVERWRITTEN = {  # they do not look at what they write to
    *_FILLS, aten.random_.default, aten.random_.to, getattr(aten.random_, "from"), aten.bernoulli_.float,
    aten.exponential_.default, aten.cauchy_.default, aten.log_normal_.default, aten.geometric_.default,
}  # fmt: skip


class _NotByElement(Exception):
    """A part of a tensor cannot be computed from the same part of others."""


@dataclass(frozen=True)
class View:
    """A tensor as a window on a storage.

    Attributes:
        storage: its number.
        dtype, offset, size, stride: as of a tensor.
    """

    storage: int
    dtype: torch.dtype
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def numel(self) -> int:
        """How many numbers it has."""
        return math.prod(self.size)

    @property
    def flat(self) -> bool:
        """Whether its numbers lie one after another."""
        expected = 1
        for size, stride in zip(reversed(self.size), reversed(self.stride), strict=True):
            if size != 1 and stride != expected:
                return False
            expected *= size
        return True

    def bytes(self, start: int, stop: int) -> tuple[int, int]:
        """Return where its numbers start .. stop lie in the storage, if it is flat."""
        return (self.offset + start) * self.dtype.itemsize, (self.offset + stop) * self.dtype.itemsize

    def on(self, storage: UntypedStorage) -> Tensor:
        """Return the tensor."""
        return torch.empty(0, dtype=self.dtype).set_(storage, self.offset, self.size, self.stride)

    def part(self, storage: UntypedStorage, base: int, start: int, stop: int) -> Tensor:
        """Return numbers start .. stop of it as a vector, in a storage that begins at byte ``base`` of the whole."""
        offset = self.offset + start - base // self.dtype.itemsize
        return torch.empty(0, dtype=self.dtype).set_(storage, offset, (stop - start,), (1,))


@dataclass(frozen=True)
class Drawn:
    """Stands for a generator in the arguments of an operation that was given one."""


@dataclass(eq=False)
class Op:
    """One operation.

    Attributes:
        func: it; None for a value that came from outside.
        args, kwargs: its arguments, views in the place of tensors.
        reads, writes: the tensors it takes, and those of them that it writes to.
        makes: the tensors with new storages that it returns, with their places among the results.
        value: of one from outside.
        states: of the generator before every block, or before the whole operation: [blocks, bytes].
    """

    func: Any
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    reads: tuple[View, ...] = ()
    writes: tuple[View, ...] = ()
    makes: dict[int, View] = field(default_factory=dict)
    value: Tensor | None = None
    states: Tensor | None = None

    @property
    def target(self) -> View:
        """What it writes first."""
        return next(iter((*self.writes, *self.makes.values())))

    @property
    def by_block(self) -> bool:
        """Whether its random numbers can be drawn block by block, in the same order."""
        if self.func not in _DRAWS or not self.target.flat or not self.target.dtype.is_floating_point:
            return False
        return self.target.numel >= SAME or self.func in (aten.uniform_.default, aten.rand.default)

    @property
    def elementwise(self) -> bool:
        """Whether every number it writes depends on the numbers in the same place alone."""
        known = self.func is None or torch.Tag.pointwise in self.func.tags or self.by_block
        known = known or self.func in _EMPTY | _BLANK | _LIKE | _COPIES | (_FILLS - _DRAWS)
        views = (*self.writes, *self.makes.values())
        return known and all(view.flat and view.numel == views[0].numel for view in views)

    def inputs(self) -> tuple[View, ...]:
        """Return the tensors whose values it looks at."""
        if self.func in _EMPTY | _BLANK | _LIKE:
            return ()
        return tuple(v for v in self.reads if v not in self.writes or self.func not in _OVERWRITTEN)

    def covers(self, view: View, size: int) -> bool:
        """Whether it sets all bytes of a storage, whatever was there."""
        return self.func in _OVERWRITTEN and view.flat and view.bytes(0, view.numel) == (0, size)


def blocks(count: int) -> list[int]:
    """Return where blocks of numbers begin, and where the last ends; it is not too short for a normal draw."""
    starts = list(range(0, max(count, 1), BLOCK))
    if len(starts) > 1 and count - starts[-1] < SAME:
        starts.pop()
    return [*starts, count]


@dataclass
class Program:
    """Operations in order.

    Attributes:
        ops: they.
        sizes: bytes of every storage.
    """

    ops: list[Op] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    _writers: dict[int, list[int]] = field(default_factory=dict)

    def add(self, op: Op) -> None:
        """Append an operation."""
        for storage in {view.storage for view in (*op.writes, *op.makes.values())}:
            self._writers.setdefault(storage, []).append(len(self.ops))
        self.ops.append(op)

    def knows(self, storage: int) -> bool:
        """Whether anything was written to a storage."""
        return storage in self._writers

    def forget(self, kept: Iterable[View]) -> None:
        """Drop what no tensor that is kept depends on."""
        needed: set[int] = set()
        for view in kept:
            needed |= set(_Whole(self, view).ops)
        for number, op in enumerate(self.ops):
            if number not in needed:
                op.states, op.value = None, None

    def value(self, view: View) -> Tensor:
        """Return a tensor as it stands now; the program must not change it."""
        return _Whole(self, view).run()

    def elements(self, view: View, start: int, stop: int) -> Tensor:
        """Return numbers start .. stop of a tensor, in the order of a contiguous one, as a vector."""
        if not view.flat or view.numel <= BLOCK:
            return self.value(view).reshape(-1)[start:stop].clone()
        result = torch.empty(stop - start, dtype=view.dtype)
        try:
            for low, high in _cuts(view.numel, start, stop):
                result[low - start : high - start] = _Part(self, view, low, high).run()
        except _NotByElement:
            return self.value(view).reshape(-1)[start:stop].clone()
        return result

    def any(self, view: View) -> bool:
        """Return whether any number of a tensor is not 0, looking at a block at a time."""
        return any(bool(self.elements(view, low, high).any()) for low, high in _cuts(view.numel, 0, view.numel))

    def writers(self, storage: int, before: int) -> int | None:
        """Return the last operation before another that writes to a storage."""
        found = self._writers.get(storage, [])
        place = bisect_left(found, before)
        return found[place - 1] if place else None


def run_op(op: Op, args: tuple[Any, ...], kwargs: dict[str, Any], block: int = 0) -> Any:
    """Run an operation on real tensors, with the random numbers it had."""
    if op.states is None:
        return op.func(*args, **kwargs)
    state = op.states[block].clone()  # a generator takes no view
    if any(isinstance(leaf, Drawn) for leaf in pytree.tree_leaves((args, kwargs))):
        own = torch.Generator()
        own.set_state(state)
        args, kwargs = pytree.tree_map(lambda leaf: own if isinstance(leaf, Drawn) else leaf, (args, kwargs))
        return op.func(*args, **kwargs)
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(state)
        return op.func(*args, **kwargs)


def resized(op: Op, count: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of an operation with those that give a size giving another."""
    names = [argument.name for argument in op.func._schema.arguments]
    args = tuple([count] if name == "size" else arg for name, arg in zip(names, op.args, strict=False))
    return args, {name: [count] if name == "size" else value for name, value in op.kwargs.items()}


class _Whole:
    """What one tensor depends on, computed whole."""

    def __init__(self, program: Program, view: View) -> None:
        self._program, self._view = program, view
        waiting: list[int] = []
        found: set[int] = set()

        def ask(storage: int, before: int) -> None:
            writer = program.writers(storage, before)
            if writer is not None and writer not in found:
                found.add(writer)
                heapq.heappush(waiting, -writer)

        ask(view.storage, len(program.ops))
        while waiting:
            number = -heapq.heappop(waiting)
            op = program.ops[number]
            for written in op.writes:
                if not op.covers(written, program.sizes[written.storage]):
                    ask(written.storage, number)
            for read in op.inputs():
                ask(read.storage, number)
        self.ops = sorted(found)

    def run(self) -> Tensor:
        """Compute it, dropping what is no longer needed on the way."""
        last = {view.storage: number for number in self.ops for view in _touched(self._program.ops[number])}
        last[self._view.storage] = len(self._program.ops)
        held: dict[int, UntypedStorage] = {}

        def storage(number: int) -> UntypedStorage:
            if number not in held:
                held[number] = UntypedStorage(self._program.sizes[number])
            return held[number]

        with torch.no_grad():
            for number in self.ops:
                op = self._program.ops[number]
                if op.func is None:
                    assert op.value is not None
                    held[op.target.storage] = op.value.untyped_storage().clone()
                elif op.func not in _EMPTY:
                    args, kwargs = pytree.tree_map(
                        lambda leaf: leaf.on(storage(leaf.storage)) if isinstance(leaf, View) else leaf,
                        (op.args, op.kwargs),
                    )
                    for view, made in _results(op, self._run(op, args, kwargs)):
                        held[view.storage] = made
                for view in _touched(op):
                    if last[view.storage] == number:
                        held.pop(view.storage, None)
            return self._view.on(storage(self._view.storage))

    @staticmethod
    def _run(op: Op, args: Any, kwargs: Any) -> Any:
        if not op.by_block:
            return run_op(op, args, kwargs)
        made = args[0] if op.writes else torch.empty(op.target.size, dtype=op.target.dtype)
        flat, bounds = made.view(-1), blocks(op.target.numel)
        for block, (low, high) in enumerate(pairwise(bounds)):
            if op.writes:
                run_op(op, (flat[low:high], *args[1:]), kwargs, block)
            else:
                flat[low:high] = run_op(op, *resized(op, high - low), block)
        return made


class _Part:
    """What some numbers of one tensor depend on, computed for these alone."""

    def __init__(self, program: Program, view: View, start: int, stop: int) -> None:
        self._program, self._view, self._range = program, view, (start, stop)
        self._steps: list[tuple[int, int, int]] = []
        self._extent: dict[int, tuple[int, int]] = {}
        demand: dict[int, tuple[int, int]] = {}
        waiting: list[int] = []
        found: set[int] = set()

        def ask(storage: int, before: int, part: tuple[int, int] | None = None) -> None:
            if part is not None:
                demand[storage] = _hull(demand.get(storage), part)
                self._extent[storage] = _hull(self._extent.get(storage), part)
            writer = program.writers(storage, before)
            if writer is not None and writer not in found:
                found.add(writer)
                heapq.heappush(waiting, -writer)

        ask(view.storage, len(program.ops), view.bytes(start, stop))
        while waiting:
            number = -heapq.heappop(waiting)
            op = program.ops[number]
            low, high = self._wanted(op, demand)
            if low < high:
                self._steps.append((number, low, high))
            for view in (*op.writes, *op.makes.values()) if low < high else ():
                self._extent[view.storage] = _hull(self._extent.get(view.storage), view.bytes(low, high))
            for written in op.writes:
                part, wanted = written.bytes(low, high), demand.get(written.storage)
                if wanted is not None and op.func in _OVERWRITTEN and part[0] <= wanted[0] and wanted[1] <= part[1]:
                    del demand[written.storage]
                elif wanted is not None:
                    ask(written.storage, number)
            for made in op.makes.values():
                demand.pop(made.storage, None)
            for read in op.inputs() if low < high else ():
                if read.numel == 1:
                    ask(read.storage, number, read.bytes(0, 1))
                elif read.flat and read.numel == op.target.numel:
                    ask(read.storage, number, read.bytes(low, high))
                else:
                    raise _NotByElement

    def _wanted(self, op: Op, demand: dict[int, tuple[int, int]]) -> tuple[int, int]:
        """Return which of the numbers that an operation writes are needed."""
        if not op.elementwise:
            raise _NotByElement
        low, high = op.target.numel, 0
        for view in (*op.writes, *op.makes.values()):
            if view.storage in demand:
                (first, end), size = demand[view.storage], view.dtype.itemsize
                low = min(low, max(0, first // size - view.offset))
                high = max(high, min(view.numel, -(-end // size) - view.offset))
        if low < high and op.by_block:
            bounds = blocks(op.target.numel)
            low, high = bounds[bisect_right(bounds, low) - 1], bounds[bisect_left(bounds, high)]
        return (low, high) if low < high else (0, 0)

    def run(self) -> Tensor:
        """Compute them."""
        held = {number: UntypedStorage(high - low) for number, (low, high) in self._extent.items()}
        with torch.no_grad():
            for number, low, high in reversed(self._steps):
                op = self._program.ops[number]
                if op.func is None:
                    assert op.value is not None
                    self._vector(op.target, held, low, high).copy_(
                        op.target.on(op.value.untyped_storage()).view(-1)[low:high]
                    )
                elif op.func not in _EMPTY:
                    self._run(op, held, low, high)
            return self._vector(self._view, held, *self._range)

    def _run(self, op: Op, held: dict[int, UntypedStorage], low: int, high: int) -> None:
        if not op.by_block:
            self._step(op, held, low, high, 0)
            return
        bounds = blocks(op.target.numel)
        for block, (first, end) in enumerate(pairwise(bounds)):
            if low <= first and end <= high:
                self._step(op, held, first, end, block)

    def _step(self, op: Op, held: dict[int, UntypedStorage], low: int, high: int, block: int) -> None:
        looked = (*op.inputs(), *op.writes)

        def part(leaf: Any) -> Any:
            if not isinstance(leaf, View):
                return leaf
            if leaf not in looked:  # only its type is looked at
                return torch.empty(high - low, dtype=leaf.dtype)
            if leaf.numel == 1 and leaf not in op.writes:
                return self._vector(leaf, held, 0, 1).view(leaf.size)
            return self._vector(leaf, held, low, high)

        args, kwargs = pytree.tree_map(part, resized(op, high - low))
        results = pytree.tree_leaves(run_op(op, args, kwargs, block))
        for place, view in op.makes.items():
            self._vector(view, held, low, high).copy_(results[place])

    def _vector(self, view: View, held: dict[int, UntypedStorage], low: int, high: int) -> Tensor:
        return view.part(held[view.storage], self._extent[view.storage][0], low, high)


def _touched(op: Op) -> Iterator[View]:
    yield from op.reads
    yield from op.writes
    yield from op.makes.values()


def _results(op: Op, results: Any) -> Iterator[tuple[View, UntypedStorage]]:
    """Yield the storages that an operation has made, laid out as they were recorded."""
    leaves = pytree.tree_leaves(results)
    for place, view in op.makes.items():
        made = leaves[place]
        if (tuple(made.stride()), made.storage_offset()) != (view.stride, view.offset):
            laid = torch.empty_strided(view.size, view.stride, dtype=view.dtype)
            made = laid.copy_(made)
        yield view, made.untyped_storage()


def _cuts(count: int, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Yield the parts of start .. stop that lie in one block each."""
    for low, high in pairwise(blocks(count)):
        if low < stop and start < high:
            yield max(low, start), min(high, stop)


def _hull(one: tuple[int, int] | None, other: tuple[int, int]) -> tuple[int, int]:
    return other if one is None else (min(one[0], other[0]), max(one[1], other[1]))
