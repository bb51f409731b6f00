"""Sizes of tensor dimensions: integers, or symbolic expressions where the export keeps a dimension open.

Symbolic sizes (batch, sequence length, image height) are only ever compared, multiplied and divided exactly.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, TypeAlias

import sympy
import torch

Size: TypeAlias = Any  # int | sympy.Expr; sympy is untyped


def size_of(value: int | torch.SymInt) -> Size:
    """Return a shape's entry as an int, or as the expression behind a symbolic one."""
    if isinstance(value, torch.SymInt):
        return _plain(value.node.expr)
    return int(value)


def product(sizes: Iterable[Size]) -> Size:
    """Return the product of sizes; 1 for none.

    >>> product([2, 3, 4])
    24
    """
    return _plain(math.prod(sizes))


def divide(size: Size, by: Size) -> Size | None:
    """Return size / by where that is exact, otherwise None.

    >>> divide(12, 4), divide(12, 5)
    (3, None)
    >>> s = sympy.Symbol("s", positive=True, integer=True)
    >>> divide(12 * s, 4 * s), divide(4, s)
    (3, None)
    """
    if isinstance(size, int) and isinstance(by, int):
        return size // by if by > 0 and size % by == 0 else None
    return _divide_symbolic(size, by)


@lru_cache(maxsize=65536)
def _divide_symbolic(size: Size, by: Size) -> Size | None:
    if isinstance(by, sympy.Expr) and not isinstance(size, sympy.Expr):
        return None
    quotient = sympy.sympify(size) / by
    if not _whole(quotient):
        quotient = sympy.cancel(quotient)
        if not _whole(quotient):
            return None
    return _plain(quotient)


def _whole(expression: sympy.Expr) -> bool:
    coefficient, rest = expression.as_coeff_Mul()
    if not coefficient.is_Integer:
        return False
    return bool(sympy.denom(rest) == 1)


def _plain(value: Size) -> Size:
    if isinstance(value, sympy.Integer):
        return int(value)
    return value
