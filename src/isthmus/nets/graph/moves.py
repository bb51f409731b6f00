"""Operators that move entries and do not change them, by their plain names."""

from __future__ import annotations

SAME = {"to", "_to_copy", "contiguous", "alias", "clone", "detach", "lift_fresh_copy"}
MOVES = {"view", "reshape", "_unsafe_view", "flatten", "unflatten", "transpose", "swapaxes", "swapdims", "permute"}
MOVES |= {"movedim", "moveaxis", "t", "numpy_T", "mT", "unsqueeze", "squeeze", "expand", "select", "slice", "narrow"}
MOVES |= {"split_with_sizes", "unbind"}
