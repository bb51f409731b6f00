"""Parameters whose values are elsewhere: a network of the user's own class that nobody has to hold.

An :class:`Away` knows what it is (shape, type, device) and fetches its values when a torch function takes them. Under
the covers it is one number, not a number (NaN), expanded to its shape: what reads past this file sees that.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from isthmus.errors import InvalidInput

_NOT_WRITTEN = "the merged network is there to be looked at: its parameters cannot be changed"


class Values(Protocol):
    """Where values come from."""

    def value(self, name: str) -> Tensor:
        """Return all of a tensor, not to be written to."""
        ...

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Return some rows of a tensor."""
        ...

    def is_large(self, name: str) -> bool:
        """Whether a tensor had better be read in blocks."""
        ...

    def blocks(self, name: str, in_order: bool = False) -> Iterator[tuple[int, int]]:
        """Yield first row and end of blocks that are all of a tensor."""
        ...


class Away(Tensor):
    """A parameter whose values are elsewhere.

    It counts as a ``torch.nn.Parameter``. What is computed with it has no gradient for it.

    Attributes:
        called: the name it is asked for by.
        source: who is asked.
    """

    _is_param = True
    called: str
    source: Values

    @staticmethod
    def standing_for(tensor: Tensor, name: str, source: Values, device: torch.device) -> Away:
        """Return what stands for a parameter, which is looked at but not read: it may be on the meta device."""
        void = torch.full((), _void(tensor.dtype), dtype=tensor.dtype, device=device).expand(tensor.shape)
        found: Away = Tensor._make_subclass(Away, void, tensor.requires_grad)
        found.called, found.source = name, source
        return found

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        if _asks_what_it_is(func):
            with torch._C.DisableTorchFunctionSubclass():
                if func in _OF_A_TWIN:  # one number expanded is no evidence of how the real one lies in memory
                    return func(torch.empty(args[0].shape, dtype=args[0].dtype, device="meta"), *args[1:], **named)
                return func(*args, **named)
        if _writes_to_one(func, args, named):
            raise InvalidInput(_NOT_WRITTEN)
        if func in _BY_BLOCKS:
            found = _BY_BLOCKS[func](func, *args, **named)
            if found is not None:
                return found
        return func(*_real(tuple(args)), **_real(dict(named)))

    def __deepcopy__(self, memo: dict[int, Any]) -> nn.Parameter:
        """Return a parameter with the values, which are held from now on."""
        if id(self) not in memo:
            memo[id(self)] = nn.Parameter(self.detach().clone(), self.requires_grad)
        found: nn.Parameter = memo[id(self)]
        return found

    def __reduce_ex__(self, protocol: Any) -> Any:
        return copy.deepcopy(self).__reduce_ex__(protocol)


def in_rows(tensor: Tensor) -> Iterator[Tensor]:
    """Yield the rows of a tensor, the first ones first: of one that is away as many at a time as had better be held."""
    if not isinstance(tensor, Away):
        yield tensor.detach()
    elif tensor.source.is_large(tensor.called):
        for start, stop in tensor.source.blocks(tensor.called, in_order=True):
            yield tensor.source.rows(tensor.called, start, stop)
    else:
        yield tensor.source.value(tensor.called)


def _void(dtype: torch.dtype) -> float | int | bool:
    if dtype.is_floating_point or dtype.is_complex:
        return float("nan")
    return False if dtype == torch.bool else torch.iinfo(dtype).min


def _real(given: Any) -> Any:
    """Return arguments with the values in place of what is away."""
    if isinstance(given, Away):
        return given.source.value(given.called)
    if type(given) in (list, tuple):
        return type(given)(_real(each) for each in given)
    if type(given) is dict:
        return {key: _real(each) for key, each in given.items()}
    return given


# ------------------------------------------------------------------- what it is


def _those(*names: str) -> set[Any]:
    """Return torch's functions and methods of some names."""
    places = (torch, Tensor)
    return {getattr(place, name) for place in places for name in names if hasattr(place, name)}


_OF_A_TWIN = _those("stride", "is_contiguous", "dim_order", "storage_offset")
_METADATA = _OF_A_TWIN | _those(
    *("size", "dim", "ndimension", "numel", "nelement", "element_size", "get_device", "data_ptr", "untyped_storage"),
    *("is_floating_point", "is_complex", "is_signed", "is_inference", "is_conj", "is_neg", "is_shared", "is_pinned"),
    *("__len__", "__hash__", "has_names", "requires_grad_", "retain_grad", "register_hook", "storage_type"),
    *("new_empty", "new_zeros", "new_ones", "new_full", "new_tensor", "register_post_accumulate_grad_hook"),
    *("empty_like", "zeros_like", "ones_like", "full_like", "rand_like", "randn_like", "_typed_storage"),
)
_VALUES = {getattr(Tensor, name) for name in ("data", "T", "mT", "H", "mH", "real", "imag")}
_IN_PLACE = _those("__setitem__", "__delitem__", *(f"__i{name}__" for name in (
    "add", "sub", "mul", "matmul", "truediv", "div", "floordiv", "mod", "pow", "and", "or", "xor", "lshift", "rshift"
)))  # fmt: skip


def _asks_what_it_is(func: Any) -> bool:
    if func in _METADATA:
        return True
    return getattr(func, "__name__", "") in ("__get__", "__set__", "__delete__") and func.__self__ not in _VALUES


def _writes_to_one(func: Any, args: Sequence[Any], named: Mapping[str, Any]) -> bool:
    """Whether a function writes to an argument that is away: torch ends the names of those with an underscore."""
    if _holds(named.get("out")):
        return True
    name = getattr(func, "__name__", "")
    writes = (name.endswith("_") and not name.endswith("__")) or name == "__set__" or func in _IN_PLACE
    return (writes or bool(named.get("inplace"))) and _holds(args[0] if args else named.get("input"))


def _holds(given: Any) -> bool:
    return isinstance(given, Away) or (isinstance(given, (list, tuple)) and any(_holds(each) for each in given))


# ------------------------------------------------------------------- products, a block of the weight at a time


def _is_large(weight: Any, *others: Any) -> bool:
    return isinstance(weight, Away) and weight.source.is_large(weight.called) and not _holds(others)


def _rows_of(vector: Any, start: int, stop: int) -> Any:
    return None if vector is None else vector[start:stop]


def _joined(weight: Away, dim: int, compute: Callable[[Tensor, int, int], Tensor]) -> Tensor:
    """Return what blocks of rows give, side by side along a dimension."""
    joined: Tensor | None = None
    for start, stop in weight.source.blocks(weight.called):
        part = compute(weight.source.rows(weight.called, start, stop), start, stop)
        if joined is None:
            sizes = list(part.shape)
            sizes[dim] = len(weight)
            joined = part.new_empty(sizes)
        joined.narrow(dim, start, stop - start).copy_(part)
    assert joined is not None
    return joined


def _linear(func: Any, input: Any, weight: Any, bias: Any = None) -> Tensor | None:
    if not _is_large(weight, input) or weight.dim() != 2:
        return None
    bias = _real(bias)
    return _joined(weight, -1, lambda rows, start, stop: func(input, rows, _rows_of(bias, start, stop)))


def _convolution(
    func: Any, input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
    groups: int = 1,
) -> Tensor | None:  # fmt: skip
    if not _is_large(weight, input) or groups != 1:
        return None
    bias = _real(bias)
    return _joined(
        weight,
        1 - weight.dim(),
        lambda rows, start, stop: func(input, rows, _rows_of(bias, start, stop), stride, padding, dilation),
    )


def _embedding(
    func: Any, input: Any, weight: Any, padding_idx: Any = None, max_norm: Any = None, *rest: Any, **named: Any
) -> Tensor | None:
    if not _is_large(weight, input) or max_norm is not None:
        return None
    wanted = input.reshape(-1)
    found = torch.full((len(wanted), *weight.shape[1:]), _void(weight.dtype), dtype=weight.dtype, device=weight.device)
    if len(wanted) and not 0 <= int(wanted.min()) <= int(wanted.max()) < len(weight):
        raise IndexError("index out of range in self")  # as torch says it
    for start, stop in weight.source.blocks(weight.called):
        here = (wanted >= start) & (wanted < stop)
        if here.any():
            first, last = int(wanted[here].min()), int(wanted[here].max())
            found[here] = weight.source.rows(weight.called, first, last + 1)[wanted[here] - first]
    return found.reshape(*input.shape, *weight.shape[1:])


def _product(func: Any, *args: Any, **named: Any) -> Tensor | None:
    return None if named or len(args) != 2 else _times(*args)


def _sum_and_product(func: Any, *args: Any, **named: Any) -> Tensor | None:
    product = None if named or len(args) != 3 else _times(*args[1:])
    return None if product is None else torch.add(_real(args[0]), product)


def _times(left: Any, right: Any) -> Tensor | None:
    """Return a matrix product with a right matrix that is away: the sum over blocks of its rows, in their order."""
    if not _is_large(right, left) or right.dim() != 2 or left.dim() == 0 or left.shape[-1] != len(right):
        return None
    total: Tensor | None = None
    for start, stop in right.source.blocks(right.called, in_order=True):
        part = left[..., start:stop] @ right.source.rows(right.called, start, stop)
        total = part if total is None else total + part
    return total


_BY_BLOCKS: dict[Any, Callable[..., Tensor | None]] = {
    functional.linear: _linear,
    functional.embedding: _embedding,
    **dict.fromkeys((functional.conv1d, functional.conv2d, functional.conv3d), _convolution),
    **dict.fromkeys((torch.matmul, torch.mm, Tensor.matmul, Tensor.mm, Tensor.__matmul__), _product),
    **dict.fromkeys((torch.addmm, Tensor.addmm), _sum_and_product),
}
