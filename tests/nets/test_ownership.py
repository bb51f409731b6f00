"""Slicing and merging by index sets against entry-by-entry twins."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.errors import InvalidInput
from isthmus.nets import ownership
from isthmus.nets.ownership import Held, mean_of, merge_into, slice_tensor


def naive_slice(array: np.ndarray, held: Held) -> np.ndarray:
    return array[np.ix_(*(np.arange(size) if h is None else h for size, h in zip(array.shape, held, strict=True)))]


def naive_merge(whole: np.ndarray, parts: list[tuple[np.ndarray, Held]]) -> np.ndarray:
    """Entry by entry: the mean over its holders, in float64; the old value where there is none."""
    result = whole.astype(np.float64)
    for place in itertools.product(*(range(size) for size in whole.shape)):
        values = []
        for part, held in parts:
            where = [place[d] if h is None else np.flatnonzero(h == place[d]) for d, h in enumerate(held)]
            if all(np.size(w) for w in where):
                values.append(float(part[tuple(int(np.ravel(w)[0]) for w in where)]))
        if values:
            result[place] = sum(values) / len(values)
    return result


@st.composite
def cuts(draw: st.DrawFn) -> tuple[tuple[int, ...], list[Held]]:
    shape = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    held = []
    for _ in range(draw(st.integers(1, 4))):
        sets = [draw(st.none() | st.sets(st.integers(0, size - 1), min_size=1)) for size in shape]
        held.append(tuple(None if s is None else np.array(sorted(s), dtype=np.int64) for s in sets))
    return tuple(shape), held


@given(cuts())
@settings(max_examples=150, deadline=None)
def test_slice_and_merge_equal_the_naive_twins(case: tuple[tuple[int, ...], list[Held]]) -> None:
    shape, maps = case
    random = np.random.Generator(np.random.Philox(len(shape)))
    whole = torch.from_numpy(random.standard_normal(shape))
    parts = []
    for held in maps:
        piece = slice_tensor(whole, held)
        assert np.array_equal(piece.numpy(), naive_slice(whole.numpy(), held))
        parts.append((piece + torch.from_numpy(random.standard_normal(piece.shape)), held))
    expected = naive_merge(whole.numpy(), [(part.numpy(), held) for part, held in parts])
    for at_once in (1 << 22, 16):  # all of it, and two rows at a time, or one
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ownership, "_ROWS_AT_ONCE", at_once)
            merged = whole.clone()
            merge_into(merged, parts)
        np.testing.assert_allclose(merged.numpy(), expected, rtol=0, atol=1e-14)


@given(cuts())
@settings(max_examples=100, deadline=None)
def test_merging_what_was_cut_gives_back_the_very_bits(case: tuple[tuple[int, ...], list[Held]]) -> None:
    shape, maps = case
    whole = torch.from_numpy(np.random.Generator(np.random.Philox(1)).standard_normal(shape).astype(np.float32)) / 3
    merged = whole.clone()
    merge_into(merged, [(slice_tensor(whole, held), held) for held in maps])
    assert torch.equal(merged, whole)


def test_holders_are_averaged_and_the_rest_is_kept() -> None:
    """Three workers hold units {0, 1}, {1, 2}, {1}; nobody holds 3."""
    held = [np.array([0, 1]), np.array([1, 2]), np.array([1])]
    parts = [torch.tensor([10.0, 20.0]), torch.tensor([30.0, 40.0]), torch.tensor([70.0])]
    merged = torch.tensor([1.0, 2.0, 3.0, 4.0])
    merge_into(merged, [(part, (indices,)) for part, indices in zip(parts, held, strict=True)])
    assert merged.tolist() == [10.0, 40.0, 40.0, 4.0]


def test_integer_and_boolean_buffers_keep_their_type() -> None:
    steps, mask = torch.tensor(0), torch.tensor([True, False])
    merge_into(steps, [(torch.tensor(n), ()) for n in (5, 6, 7)])
    merge_into(mask, [(torch.tensor([False, True]), (None,))] * 3)
    assert steps.dtype == torch.int64
    assert steps.item() == 6
    assert mask.tolist() == [False, True]


@pytest.mark.parametrize("dtype", [torch.complex64, torch.float64, torch.bfloat16])
def test_every_type_of_number_is_averaged_in_itself(dtype: torch.dtype) -> None:
    """Two hold entries 0 and 1, one holds 1 and 2."""
    whole = torch.tensor([1.0, 2.0, 4.0, 8.0]).to(dtype) * (1j if dtype.is_complex else 1)
    held = [np.array([0, 1]), np.array([1, 2])]
    again = whole.clone()
    merge_into(again, [(slice_tensor(whole, (indices,)), (indices,)) for indices in held])
    assert torch.equal(again, whole)
    parts = [slice_tensor(whole, (indices,)) * factor for indices, factor in zip(held, (3, 1), strict=True)]
    merge_into(again, [(part, (indices,)) for part, indices in zip(parts, held, strict=True)])
    assert torch.equal(again, whole * torch.tensor([3, 2, 1, 1]).to(dtype))


def test_the_mean_of_equal_tensors_is_that_tensor() -> None:
    tensor = torch.tensor([0.1, 1 / 3, 1e-30, 3e30])
    for copies in range(1, 12):
        assert torch.equal(mean_of([tensor] * copies), tensor)
    assert mean_of([torch.tensor([1.0]), torch.tensor([2.0]), torch.tensor([6.0])]).item() == 3.0


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"shape \(1, 2\), got \(2, 2\)"):
        merge_into(torch.zeros(3, 2), [(torch.zeros(2, 2), (np.array([1]), None))])
