"""Results that are dataclasses, opened so that the tensors in them are found and put back."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import torch.utils._pytree as pytree


@dataclasses.dataclass
class _Record:
    """A dataclass instance, field by field; pytree puts the instance itself together again."""

    cls: type
    fields: dict[str, Any]


def opened(result: Any) -> Any:
    """Return a result with the dataclasses that pytree does not know replaced by something it does.

    Unflattened again they are instances of their class with the same fields; ``__post_init__`` does not run anew.
    """
    return pytree.tree_map(_open, result)


def _open(leaf: Any) -> Any:
    if not dataclasses.is_dataclass(leaf) or isinstance(leaf, type):
        return leaf
    return _Record(type(leaf), {f.name: opened(getattr(leaf, f.name)) for f in dataclasses.fields(leaf)})


def _flatten(record: _Record) -> tuple[list[Any], Any]:
    return list(record.fields.values()), (record.cls, tuple(record.fields))


def _flatten_with_keys(record: _Record) -> tuple[list[tuple[Any, Any]], Any]:
    keyed = [(pytree.GetAttrKey(name), value) for name, value in record.fields.items()]
    return keyed, (record.cls, tuple(record.fields))


def _closed(values: Iterable[Any], context: Any) -> Any:
    cls, names = context
    instance = object.__new__(cls)
    for name, value in zip(names, values, strict=True):
        object.__setattr__(instance, name, value)
    return instance


pytree.register_pytree_node(_Record, _flatten, _closed, flatten_with_keys_fn=_flatten_with_keys)
