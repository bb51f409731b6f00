"""Plain data with tensors in it, taken apart into JSON and tensors by name, and put together again.

Numbers come back to the bit; of the containers lists, tuples, dictionaries with any plain keys, and counters. Nothing
that is read back can run code.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isthmus.errors import InvalidInput

_KIND = "$"  # marks what JSON has no word for


def take_apart(value: Any, place: str) -> tuple[Any, dict[str, Tensor]]:
    """Return a value as JSON data, in which tensors are named, and the tensors by name, not copied.

    Args:
        value: None, numbers, text, tensors, arrays, lists, tuples and dictionaries of them; of an object that has
            ``state_dict`` what that returns.
        place: what it is called; the names of the tensors begin so.

    Raises:
        InvalidInput: anything else, named by its place.

    >>> take_apart({"rate": 0.1, "betas": (0.9, math.inf)}, "extra")[0]
    {'rate': 0.1, 'betas': {'$': 'tuple', 'items': [0.9, {'$': 'float', 'value': 'inf'}]}}
    """
    tensors: dict[str, Tensor] = {}
    return _said(value, place, tensors), tensors


def put_together(said: Any, read: Callable[[str], Tensor]) -> Any:
    """Return the value that was taken apart; tensors are read by their names.

    >>> put_together({"$": "tuple", "items": [1, {"$": "float", "value": "inf"}]}, read={}.__getitem__)
    (1, inf)
    """
    if isinstance(said, list):
        return [put_together(each, read) for each in said]
    if not isinstance(said, dict):
        return said
    if _KIND not in said:
        return {key: put_together(each, read) for key, each in said.items()}
    return _KINDS[said[_KIND]](said, read)


def _said(value: Any, place: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {_KIND: "float", "value": str(float(value))}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor | np.ndarray):
        return _named(value, place, tensors)
    if isinstance(value, list | tuple):
        items = [_said(each, f"{place}/{number}", tensors) for number, each in enumerate(value)]
        return items if isinstance(value, list) else {_KIND: "tuple", "items": items}
    if isinstance(value, Mapping):
        return _dictionary(value, place, tensors)
    if callable(getattr(value, "state_dict", None)) and not isinstance(value, type):
        return _said(value.state_dict(), place, tensors)
    raise InvalidInput(
        f"`{place}` must be numbers, text, tensors, lists or dictionaries of them, or have state_dict(), "
        f"got {type(value).__name__}"
    )


def _named(value: Tensor | np.ndarray, place: str, tensors: dict[str, Tensor]) -> dict[str, str]:
    array = isinstance(value, np.ndarray)
    try:
        tensor = torch.from_numpy(np.array(value)) if isinstance(value, np.ndarray) else value.detach()
    except TypeError:
        raise InvalidInput(f"`{place}` must be an array of numbers, got one of {value.dtype}") from None
    if tensor.layout != torch.strided or tensor.is_meta:
        raise InvalidInput(f"`{place}` must be a tensor with all its numbers, got one that is sparse or has none")
    name = place
    while name in tensors:  # keys 1 and "1" of one dictionary
        name += "'"
    tensors[name] = tensor
    return {_KIND: "array" if array else "tensor", "name": name}


def _dictionary(value: Mapping[Any, Any], place: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    counts = isinstance(value, Counter)
    if not counts and _KIND not in value and all(type(key) is str for key in value):
        return {key: _said(each, f"{place}/{key}", tensors) for key, each in value.items()}
    pairs = [
        [_said(key, f"a key of {place}", tensors), _said(each, f"{place}/{key}", tensors)]
        for key, each in value.items()
    ]
    return {_KIND: "counter" if counts else "dict", "items": pairs}


def _pairs(said: dict[str, Any], read: Callable[[str], Tensor]) -> dict[Any, Any]:
    return {put_together(key, read): put_together(each, read) for key, each in said["items"]}


_KINDS: dict[str, Callable[[dict[str, Any], Callable[[str], Tensor]], Any]] = {
    "float": lambda said, read: float(said["value"]),
    "tuple": lambda said, read: tuple(put_together(each, read) for each in said["items"]),
    "dict": _pairs,
    "counter": lambda said, read: Counter(_pairs(said, read)),
    "tensor": lambda said, read: read(said["name"]),
    "array": lambda said, read: read(said["name"]).numpy(),
}
