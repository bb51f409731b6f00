"""Building a network without its weights: the function that makes it is run on tensors without memory, and recorded."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from isthmus.trainer.task.replay import Drawn, Op, Program, View, aten, blocks, resized

META, CPU = torch.device("meta"), torch.device("cpu")
FROM_OUTSIDE = 1 << 20  # bytes of values that are kept as they are


class NotRecorded(Exception):
    """A function does something that a recording cannot do again."""


class Recording:
    """What a function computed, without the values; every tensor it left can be computed, whole or in part.

    Attributes:
        result: what it returned, with tensors on the meta device.
        program: the operations.
    """

    def __init__(self, factory: Callable[[], Any]) -> None:
        """Run a function.

        Raises:
            NotRecorded: it does what cannot be done again.
            Exception: what it raises.
        """
        self._recorder = _Recorder()
        self.program = self._recorder.program
        with _Disguise(self._recorder), self._recorder:
            self.result = factory()
        if self._recorder.failure is not None:  # and the function went on
            raise self._recorder.failure

    def view(self, tensor: Tensor) -> View:
        """Return how the program knows a tensor.

        Raises:
            NotRecorded: it does not.
        """
        return self._recorder.view(tensor, known=True)

    def admit(self, size: int) -> None:
        """Count bytes of values that come from outside.

        Raises:
            NotRecorded: they are too many to be held all the time.
        """
        self._recorder.admit(size)


class _Disguise(TorchFunctionMode):
    """Makes tensors on the meta device look as if they were on the CPU: what looks initialises them all the same."""

    def __init__(self, recorder: _Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _MEMORY:
            raise self._recorder.fail(f"it looks at memory ({func.__name__})")
        seen = _LOOKS.get(func)
        if seen is not None and args[0].is_meta:
            return seen(args[0])
        return func(*args, **(kwargs or {}))


def _listed(tensor: Tensor) -> Any:
    return [_listed(each) for each in tensor.unbind()] if tensor.dim() else tensor.item()


_LOOKS: dict[Any, Callable[[Tensor], Any]] = {
    torch.Tensor.device.__get__: lambda tensor: CPU,
    torch.Tensor.is_meta.__get__: lambda tensor: False,  # type: ignore[attr-defined]
    torch.Tensor.is_cpu.__get__: lambda tensor: True,  # type: ignore[attr-defined]
    torch.Tensor.tolist: _listed,
}
_MEMORY = {torch.Tensor.data_ptr, torch.Tensor.numpy, torch.Tensor.__array__}
_MEMORY |= {torch.Tensor.untyped_storage, torch.Tensor.storage}


class _Recorder(TorchDispatchMode):
    """Runs every operation on the meta device, and keeps what it was; random numbers are drawn and dropped."""

    def __init__(self) -> None:
        super().__init__()
        self.program = Program()
        self.failure: NotRecorded | None = None
        self._storages: dict[int, int] = {}
        self._alive: list[Any] = []  # storages: or their addresses would be used again
        self._outside: dict[int, torch.UntypedStorage] = {}
        self._bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunction():
            try:
                return self._record(func, args, kwargs or {})
            except NotRecorded as failure:
                raise self.fail(str(failure)) from None

    def fail(self, why: str) -> NotRecorded:
        """Return what to raise; the recording is lost, also where the function catches it and goes on."""
        self.failure = self.failure or NotRecorded(why)
        return self.failure

    def view(self, tensor: Tensor, known: bool = False) -> View:
        """Return a tensor as a window on one of the program's storages."""
        if tensor.layout != torch.strided or tensor.is_conj() or tensor.is_neg() or tensor.is_quantized:
            raise NotRecorded(f"it makes tensors of layout {tensor.layout}")
        if tensor.device.type == "cpu":
            tensor = self._from_outside(tensor)
        elif tensor.device != META:
            raise NotRecorded(f"it makes tensors on {tensor.device}")
        key = tensor.untyped_storage()._cdata
        if key not in self._storages:
            if known:
                raise NotRecorded("a tensor of it was made unseen")
            self._storages[key] = len(self.program.sizes)
            self.program.sizes.append(tensor.untyped_storage().nbytes())
            self._alive.append(tensor.untyped_storage())
        return View(
            self._storages[key], tensor.dtype, int(tensor.storage_offset()), tuple(tensor.shape), tensor.stride()
        )

    def admit(self, size: int) -> None:
        """Count bytes of values that come from outside."""
        self._bytes += size
        if self._bytes > FROM_OUTSIDE:
            raise NotRecorded("it takes weights from elsewhere")

    def _record(self, func: Any, args: Any, kwargs: Any) -> Any:
        schema = func._schema
        self._check(func, args, kwargs)
        if func is aten._to_copy.default and _moves_only(args, kwargs):
            return aten.detach.default(args[0])
        taken = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if schema.returns and not any("Tensor" in str(each.type) for each in schema.returns):
            return self._read(func, args, kwargs)
        named = _named(func, args, kwargs)
        written = [
            leaf
            for argument, value in named
            if argument.alias_info is not None and argument.alias_info.is_write
            for leaf in pytree.tree_leaves(value)
            if isinstance(leaf, Tensor)
        ]
        if any(tensor.device != META for tensor in written):
            raise NotRecorded("it writes to a tensor from outside")
        viewed = pytree.tree_map(lambda leaf: self._stored(leaf), (args, kwargs))
        reads = tuple(self.view(tensor) for tensor in taken)
        writes = tuple(self.view(tensor) for tensor in written)
        known = len(self.program.sizes)
        drawing = torch.Tag.nondeterministic_seeded in func.tags
        try:
            result = func(*pytree.tree_map(self._light, args), **self._light_keywords(func, kwargs, taken))
        except (NotImplementedError, RuntimeError) as error:
            if written or drawing:
                raise NotRecorded(f"{func} cannot be run without values: {error}") from error
            return pytree.tree_map(
                lambda leaf: self._from_outside(leaf) if isinstance(leaf, Tensor) else leaf,
                self._for_real(func, *viewed),
            )
        makes = {}
        for place, leaf in enumerate(pytree.tree_leaves(result)):
            if isinstance(leaf, Tensor):
                view = self.view(leaf)
                if view.storage >= known:
                    makes[place] = view
        if makes or writes:
            op = Op(func, viewed[0], viewed[1], reads, writes, makes)
            if drawing:
                self._draw(op, kwargs.get("generator"))
            self.program.add(op)
        return result

    def _check(self, func: Any, args: Any, kwargs: Any) -> None:
        for leaf in pytree.tree_leaves((args, kwargs)):
            if isinstance(leaf, torch.device) and leaf.type not in ("cpu", "meta"):
                raise NotRecorded(f"it makes tensors on {leaf}")
        if _resizes(func):
            raise NotRecorded(f"it changes the memory of a tensor ({func})")

    def _light(self, leaf: Any) -> Any:
        """Return an argument for the meta device."""
        if isinstance(leaf, torch.device):
            return META
        if isinstance(leaf, Tensor) and leaf.device.type == "cpu":
            return self._from_outside(leaf)
        return leaf

    def _light_keywords(self, func: Any, kwargs: Any, taken: Any) -> dict[str, Any]:
        changed = {name: pytree.tree_map(self._light, value) for name, value in kwargs.items()}
        has = any(argument.name == "device" for argument in func._schema.arguments)
        if has and changed.get("device") is None and not taken:
            changed["device"] = META
        if changed.get("pin_memory"):
            changed["pin_memory"] = False
        return changed

    def _stored(self, leaf: Any) -> Any:
        """Return an argument as the program keeps it."""
        if isinstance(leaf, Tensor):
            return self.view(leaf)
        if isinstance(leaf, torch.Generator):
            return Drawn()
        return CPU if isinstance(leaf, torch.device) else leaf

    def _from_outside(self, tensor: Tensor) -> Tensor:
        """Return the stand-in of a tensor with values, which are kept as they are."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self._outside:
            self.admit(storage.nbytes())
            with _real():
                kept = torch.empty(0, dtype=torch.uint8).set_(storage.clone())
            stand_in = torch.UntypedStorage(storage.nbytes(), device="meta")
            self._outside[storage._cdata] = stand_in
            self._alive.append(storage)
            made = torch.empty(0, dtype=torch.uint8, device=META).set_(stand_in)
            self.program.add(Op(None, makes={0: self.view(made)}, value=kept))
        place = (tensor.storage_offset(), tensor.shape, tensor.stride())
        made = torch.empty(0, dtype=tensor.dtype, device=META)
        return made.set_(self._outside[storage._cdata], *place)

    def _read(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Return what an operation says of the values of tensors, which are computed for it."""
        if func is aten._local_scalar_dense.default:
            source = self.view(args[0])
            writer = self.program.writers(source.storage, len(self.program.ops))
            last = None if writer is None else self.program.ops[writer]
            if last is not None and last.func is aten.any.default:  # of a mask, block by block
                with _real():
                    return self.program.any(last.reads[0])
        return self._for_real(func, *pytree.tree_map(self._stored, (args, kwargs)))

    def _for_real(self, func: Any, args: Any, kwargs: Any) -> Any:
        with _real():
            valued = pytree.tree_map(
                lambda leaf: self.program.value(leaf) if isinstance(leaf, View) else leaf, (args, kwargs)
            )
            return func(*valued[0], **valued[1])

    def _draw(self, op: Op, generator: torch.Generator | None) -> None:
        """Draw an operation's random numbers, to leave the generator as they do, and keep its states."""
        source = torch.default_generator if generator is None else generator
        with _real():
            if op.by_block:
                self._draw_blocks(op, source)
                return
            seen = set(op.inputs())
            valued = pytree.tree_map(
                lambda leaf: self.program.value(leaf) if isinstance(leaf, View) and leaf in seen else _scratch(leaf),
                (op.args, op.kwargs),
            )
            op.states = source.get_state()[None]
            _call(op, valued, source)

    def _draw_blocks(self, op: Op, source: torch.Generator) -> None:
        bounds = blocks(op.target.numel)
        # first what stays, then what goes: small memory in the places of large would make the heap grow with each
        op.states = torch.empty(len(bounds) - 1, source.get_state().numel(), dtype=torch.uint8)
        scratch = torch.empty(max(high - low for low, high in pairwise(bounds)), dtype=op.target.dtype)
        for block, (low, high) in enumerate(pairwise(bounds)):
            op.states[block] = source.get_state()
            part = scratch[: high - low]
            arguments = resized(op, high - low)
            _call(op, pytree.tree_map(lambda leaf, p=part: p if isinstance(leaf, View) else leaf, arguments), source)


@contextmanager
def _real() -> Any:
    """Inside the block operations are what they are."""
    with _disable_current_modes(), torch._C.DisableTorchFunction(), torch.no_grad():
        yield


def _call(op: Op, arguments: Any, source: torch.Generator) -> None:
    args, kwargs = pytree.tree_map(lambda leaf: source if isinstance(leaf, Drawn) else leaf, arguments)
    op.func(*args, **kwargs)


def _scratch(leaf: Any) -> Any:
    if not isinstance(leaf, View):
        return leaf
    return torch.empty_strided(leaf.size, leaf.stride, dtype=leaf.dtype)


def _named(func: Any, args: Any, kwargs: Any) -> list[tuple[Any, Any]]:
    """Return an operation's arguments, each with its description."""
    described = {argument.name: argument for argument in func._schema.arguments}
    found = list(zip(func._schema.arguments, args, strict=False))
    return [*found, *((described[name], value) for name, value in kwargs.items())]


def _moves_only(args: Any, kwargs: Any) -> bool:
    """Whether a copy is one to the CPU of what looks as if it were there."""
    given = {name for name, value in kwargs.items() if value is not None and name not in ("non_blocking", "layout")}
    same = kwargs.get("dtype") in (None, args[0].dtype)
    return args[0].device == META and "device" in given and same and "memory_format" not in given


def _resizes(func: Any) -> bool:
    return func.overloadpacket in (aten.resize_, aten.set_, aten.resize_as_)
