"""The array type of the lab, float64 throughout, and the checks of shapes."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from isthmus.errors import InvalidInput

Array = NDArray[np.float64]
overflowing = np.errstate(over="ignore", invalid="ignore")  # decorates what gives infinity where numbers overflow


def check_array(name: str, value: ArrayLike, *shape: int | str) -> Array:
    """Return ``value`` as a finite, read-only float64 array of the given shape (a string leaves that axis free).

    Raises:
        InvalidInput: not numbers, another shape, or a value that is not finite (its place is named).

    >>> check_array("b", [[1, 2]], "n", 2)
    array([[1., 2.]])
    """
    try:
        array = np.asarray(value, dtype=np.float64).view()
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"`{name}` must be an array of numbers: {error}") from None
    fits = array.ndim == len(shape) and all(
        isinstance(want, str) or want == got for want, got in zip(shape, array.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join(str(size) for size in shape)
        raise InvalidInput(f"`{name}` must have shape [{wanted}], got {list(array.shape)}")
    if not np.isfinite(array.sum()):
        bad = np.argwhere(~np.isfinite(array))
        if len(bad):
            place = ", ".join(str(index) for index in bad[0])
            raise InvalidInput(f"`{name}` must be finite, got {array[tuple(bad[0])]} at [{place}]")
    array.flags.writeable = False
    return array


def diagonals(matrices: Array) -> Array:
    """Return the diagonals of [..., d, d] matrices as [..., d]."""
    return np.asarray(np.diagonal(matrices, axis1=-2, axis2=-1))


def off(matrix: Array) -> Array:
    """Return a copy of a [d, d] matrix with a zero diagonal."""
    result = matrix.copy()
    np.fill_diagonal(result, 0.0)
    return result


def in_range(number: float) -> float:
    """Return a positive number as it is, or the smallest or largest there is where it under- or overflowed.

    >>> in_range(0.0), in_range(2.0)
    (2.2250738585072014e-308, 2.0)
    """
    numbers = np.finfo(np.float64)
    return float(min(max(number, numbers.tiny), numbers.max))


def or_infinite(values: ArrayLike) -> Array:
    """Return values of what is never negative with inf in place of nan, the difference of two that overflowed.

    >>> or_infinite([1.0, np.nan])
    array([ 1., inf])
    """
    return np.where(np.isnan(values), np.inf, values)
