"""Fourier transforms mix places, which are kept whole; complex numbers as pairs of real ones."""

from __future__ import annotations

from isthmus.nets.axes.call import Call
from isthmus.nets.axes.records import Dims
from isthmus.nets.axes.registry import rule

_KINDS = ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft")


def _transformed(call: Call, numbers: list[int], reason: str) -> Dims:
    dims, shape = list(call.dims(call["self"])), call.shape()
    for number in numbers:
        call.freeze(dims[number], reason)
        dims[number] = call.whole(shape[number], reason)
    return tuple(dims)


@rule(*(f"aten::fft_{kind}" for kind in _KINDS))
def transform(call: Call) -> Dims:
    """Along one dimension, the last unless told otherwise."""
    return _transformed(call, [call["dim"]], "transformed along this axis")


@rule(*(f"aten::fft_{kind}{n}" for kind in _KINDS for n in ("2", "n")), "aten::fft_fftshift", "aten::fft_ifftshift")
def transform_many(call: Call) -> Dims:
    """Along several dimensions: those named, the last ones of ``s``, or all."""
    named, sizes = call["dim"], call["s"]
    rank = len(call.dims(call["self"]))
    numbers = list(range(-len(sizes), 0)) if sizes else list(range(rank))
    if named is not None:
        numbers = list(named) if isinstance(named, (list, tuple)) else [named]
    return _transformed(call, numbers, "transformed along this axis")


@rule("aten::view_as_complex")
def as_complex(call: Call) -> Dims:
    """The last dimension holds real and imaginary parts, and goes."""
    *rest, pair = call.dims(call["self"])
    call.freeze(pair, "real and imaginary part")
    return tuple(rest)


@rule("aten::view_as_real")
def as_real(call: Call) -> Dims:
    """A new last dimension for real and imaginary parts."""
    return (*call.dims(call["self"]), call.whole(2, "real and imaginary part"))


@rule("aten::real", "aten::imag", "aten::conj", "aten::_conj", "aten::resolve_conj", "aten::resolve_neg")
def component(call: Call) -> Dims:
    """Entry by entry."""
    return call.dims(call["self"])
