"""Slicing and merging by index sets against entry-by-entry twins."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.errors import InvalidInput
from isthmus.nets.pieces import ownership
from isthmus.nets.pieces.ownership import Held, mean_of, merge_into, slice_tensor


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
@settings(max_examples=150)
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
@settings(max_examples=100)
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


DTYPES = [
    torch.bool, torch.uint8, torch.int8, torch.uint16, torch.int16, torch.uint32, torch.int32, torch.uint64,
    torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex32, torch.complex64,
    torch.complex128, torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz,
    torch.float8_e8m0fnu,
]  # fmt: skip


def any_bits(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> torch.Tensor:
    """Numbers of any bits: infinities, nan, the smallest, the largest, both zeros."""
    random = np.random.Generator(np.random.Philox(seed))
    size = torch.empty((), dtype=dtype).element_size()
    raw = random.integers(0, 2 if dtype == torch.bool else 256, (*shape, size), dtype=np.uint8)
    found = torch.from_numpy(raw.copy()).view(dtype).reshape(shape)
    if dtype.is_floating_point and dtype != torch.float8_e8m0fnu:
        found.view(-1)[:3] = torch.tensor([0.0, -0.0, float("-inf")])[: found.numel()].to(dtype)
    return found


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


@pytest.mark.filterwarnings("ignore:ComplexHalf")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@given(case=cuts())
@settings(max_examples=30)
def test_what_all_agree_on_keeps_its_bits_whatever_its_type(
    dtype: torch.dtype, case: tuple[tuple[int, ...], list[Held]]
) -> None:
    shape, maps = case
    whole = any_bits(shape, dtype, len(maps))
    merged = whole.clone()
    merge_into(merged, [(slice_tensor(whole, held), held) for held in maps])
    assert torch.equal(bits(merged), bits(whole))
    assert torch.equal(bits(mean_of([whole] * 3)), bits(whole))


@pytest.mark.parametrize(
    "dtype", [each for each in DTYPES if not each.is_floating_point and not each.is_complex], ids=str
)
@given(case=cuts(), seed=st.integers(0, 99))
@settings(max_examples=30)
def test_the_mean_of_integers_is_exact(dtype: torch.dtype, case: tuple[tuple[int, ...], list[Held]], seed: int) -> None:
    shape, maps = case
    whole = any_bits(shape, dtype, seed)
    parts = [(any_bits(tuple(slice_tensor(whole, held).shape), dtype, seed + n), held) for n, held in enumerate(maps)]
    expected = np.array(whole.tolist(), dtype=object)
    for place in np.ndindex(*shape):
        values = [part.tolist() for part, _ in parts]
        found = []
        for value, (_, held) in zip(values, parts, strict=True):
            try:
                at = [i if s is None else list(s).index(i) for i, s in zip(place, held, strict=True)]
            except ValueError:
                continue
            for index in at:
                value = value[index]
            found.append(value)
        if found:
            expected[place] = found[0] if dtype == torch.bool else round(Fraction(sum(found), len(found)))
    merge_into(whole, parts)
    assert whole.tolist() == expected.tolist()


@pytest.mark.parametrize("cut", [False, True])
def test_infinities_win_over_numbers_and_meet_in_nan(cut: bool) -> None:
    inf, nan, most = float("inf"), float("nan"), torch.finfo(torch.float32).max
    parts = [
        torch.tensor([inf, -inf, inf, 1.0, inf, nan, most, -0.0]),
        torch.tensor([inf, -inf, 1.0, -inf, -inf, 1.0, -most, -0.0]),
    ]
    expected = torch.tensor([inf, -inf, inf, -inf, nan, nan, 0.0, -0.0])
    held = [np.array([*range(8), 8]), np.array([*range(8), 9])] if cut else [None, None]
    if cut:
        parts = [torch.cat([part, torch.tensor([number])]) for part, number in zip(parts, (5.0, 7.0), strict=True)]
        expected = torch.cat([expected, torch.tensor([5.0, 7.0])])
    whole = torch.full((len(expected),), 3.0)
    merge_into(whole, [(part, (indices,)) for part, indices in zip(parts, held, strict=True)])
    torch.testing.assert_close(whole, expected, rtol=0, atol=0, equal_nan=True)
    assert bool(whole[7].signbit())


def test_short_numbers_are_rounded_once() -> None:
    parts = [
        torch.tensor([1.0, 2049.0]).half(),
        torch.tensor([1.0, 2050.0]).half(),
        torch.tensor([1.001, 2052.0]).half(),
    ]
    assert torch.equal(mean_of(parts), (sum(part.double() for part in parts) / 3).half())


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"shape \(1, 2\), got \(2, 2\)"):
        merge_into(torch.zeros(3, 2), [(torch.zeros(2, 2), (np.array([1]), None))])


def test_large_tensors_are_merged_some_rows_at_a_time_where_their_rows_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two thirds of the memory; the values are those of all at once."""
    monkeypatch.setattr(ownership, "_ROWS_AT_ONCE", 64)
    whole = torch.zeros(8, 4)  # 128 bytes

    def blocks(*held: Held) -> list[tuple[int, ...]]:
        parts = [(slice_tensor(whole, one), one) for one in held]
        return [tuple(rows.shape) for rows, _ in ownership._by_rows(whole, parts)]

    rows = np.array([0, 1, 2, 3])
    assert blocks((rows, None)) == [(4, 4)]  # nobody holds the others
    assert blocks((rows, None), (rows + 4, None)) == [(4, 4), (4, 4)]
    assert blocks((None, None), (rows, None)) == [(4, 4), (4, 4)]
    assert blocks((None, None)) == [(8, 4)]  # copied, not averaged by entries
    assert blocks((np.array([0, 2, 1, 3]), None)) == [(8, 4)]


def test_holders_are_disjoint_where_one_dimension_keeps_them_apart() -> None:
    low, high, middle = np.array([0, 1]), np.array([2, 3]), np.array([1, 2])
    for first, second, apart in ((low, high, True), (low, middle, False), (low, low, False)):
        assert ownership._disjoint([(first, None), (second, None)], (4, 2)) is apart
        assert ownership._disjoint([(low, first), (low, second)], (4, 4)) is apart
    assert not ownership._disjoint([(None,), (low,)], (4,))
