"""Merging what lies in memory in other ways: transposed, sparse, without numbers, index sets that are tensors."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from isthmus.errors import InvalidInput
from isthmus.nets.pieces import ownership
from isthmus.nets.pieces.ownership import (
    as_tensor,
    laid_out,
    mean_into,
    mean_of,
    merge_into,
    slice_tensor,
    view_slice,
    write_slice,
)


def test_transposed_tensors_are_averaged_as_others() -> None:
    first, second = torch.arange(12.0).view(3, 4), torch.arange(12.0).view(3, 4).flip(0) ** 2
    everything = (None, None)
    for whole, parts in (
        (torch.zeros(4, 3).t(), [first, second]),
        (torch.zeros(3, 4), [first.t().contiguous().t(), second]),
        (torch.zeros(3, 4), [first, second.t().contiguous().t()]),
    ):
        merge_into(whole, [(part, everything) for part in parts])
        assert torch.equal(whole, (first + second) / 2)


def test_large_tensors_are_averaged_to_their_last_entry() -> None:
    size = 2 * ownership._PIECE + 3
    parts = [torch.arange(float(size)), torch.arange(float(size)).flip(0) + 2]
    whole = torch.zeros(size)
    merge_into(whole, [(part, (None,)) for part in parts])
    assert torch.equal(whole, torch.full((size,), (size + 1) / 2))


@pytest.mark.parametrize("layout", ["coo", "csr", "csc"])
def test_sparse_tensors_are_averaged_by_their_entries(layout: str) -> None:
    dense = torch.tensor([[0.0, 2.0, 0.0], [4.0, 0.0, 6.0]])

    def sparse(values: torch.Tensor) -> torch.Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch says that its sparse layouts are young
            return {"coo": values.to_sparse_coo, "csr": values.to_sparse_csr, "csc": values.to_sparse_csc}[layout]()

    whole = sparse(dense)
    merge_into(whole, [(sparse(dense * factor), (None, None)) for factor in (2.0, 4.0)])
    assert torch.equal(whole.to_dense(), 3 * dense)
    places, entries = laid_out(whole)
    assert len(places) == (1 if layout == "coo" else 2)
    assert sorted(entries.tolist()) == [6.0, 12.0, 18.0]
    for other in (dense.roll(1, 1), torch.ones(2, 3)):  # as many entries elsewhere, and more of them
        with pytest.raises(InvalidInput, match="name other entries"):
            merge_into(whole, [(sparse(dense), (None, None)), (sparse(other), (None, None))])


def test_a_dense_tensor_is_its_own_entries() -> None:
    tensor = torch.ones(2)
    places, entries = laid_out(tensor)
    assert (places, entries is tensor) == ([], True)


def test_tensors_without_numbers_are_sliced_and_averaged_in_shape() -> None:
    empty = torch.empty(3, 2, device="meta")
    assert view_slice(empty, (torch.tensor([0, 2]), None)).shape == (2, 2)
    assert mean_of([empty, empty]).is_meta
    assert mean_of([empty, empty]).shape == (3, 2)


def test_index_sets_may_be_tensors_or_read_only() -> None:
    whole, indices = torch.arange(6.0).view(3, 2), np.array([0, 2])
    indices.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = as_tensor(indices)
    assert plain.tolist() == [0, 2]
    assert as_tensor(plain) is plain
    assert torch.equal(slice_tensor(whole, (plain, None)), slice_tensor(whole, (indices, None)))
    writeable = np.array([0, 2])
    assert as_tensor(writeable).numpy().base is writeable or np.shares_memory(as_tensor(writeable).numpy(), writeable)
    sets = [(plain, None), (torch.tensor([1, 2]), None)]
    merged = whole.clone()
    merge_into(merged, [(slice_tensor(whole, held) * 3, held) for held in sets])
    assert torch.equal(merged, 3 * whole)


def test_a_slice_of_everything_is_fresh_and_a_view_of_it_is_not() -> None:
    whole = torch.arange(4.0)
    assert slice_tensor(whole, (None,)) is not whole
    assert view_slice(whole, (None,)) is whole
    write_slice(whole, (np.array([1, 3]),), torch.tensor([8.0, 9.0]))
    assert whole.tolist() == [0.0, 8.0, 2.0, 9.0]
    write_slice(whole, (None,), torch.zeros(4))
    assert not whole.any()


def test_one_holder_has_the_word_and_two_that_differ_by_a_row_do_not_mix() -> None:
    whole = torch.zeros(4, 4)
    merge_into(whole, [(torch.full((2, 2), 5.0), (np.array([0, 1]), np.array([1, 3])))])
    assert whole.sum() == 20.0
    assert whole[0].tolist() == [0.0, 5.0, 0.0, 5.0]
    held = [(np.array([0, 1]), np.array([0, 1])), (np.array([1, 2]), np.array([1, 2]))]
    whole = torch.zeros(4, 4)
    merge_into(whole, [(torch.full((2, 2), value), one) for value, one in zip((2.0, 6.0), held, strict=True)])
    assert whole.tolist() == [[2, 2, 0, 0], [2, 4, 6, 0], [0, 6, 6, 0], [0, 0, 0, 0]]


def test_equal_short_and_long_numbers_keep_their_type() -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64):
        assert mean_of([torch.ones(2, dtype=dtype), torch.full((2,), 2, dtype=dtype)]).dtype == dtype


def test_a_number_beside_none_is_none_whoever_comes_first() -> None:
    nan = float("nan")
    found = mean_of([torch.tensor([1.0, nan, nan, 3.0]), torch.tensor([nan, 1.0, nan, 5.0])])
    assert found.isnan().tolist() == [True, True, True, False]
    assert found[3] == 4.0


NUMBERS = st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.1, 3e38, -3e38, 1e-45, -1e-45, math.inf, -math.inf, math.nan])


@given(st.integers(1, 5).flatmap(lambda n: st.lists(st.tuples(*[NUMBERS] * n), min_size=1, max_size=8)))
def test_the_mean_is_that_of_its_formula_and_may_be_written_into_one_of_its_parts(
    entries: list[tuple[float, ...]],
) -> None:
    parts = [torch.tensor(values) for values in zip(*entries, strict=True)]
    first, count = parts[0], len(parts)
    mean = first + sum((part - first for part in parts), torch.zeros_like(first)) / count
    apart = sum((part / count for part in parts), torch.zeros_like(first))
    agree = torch.stack([part.view(torch.int32) == first.view(torch.int32) for part in parts]).all(0)
    expected = torch.where(agree | (mean == first), first, torch.where(mean.isfinite(), mean, apart))
    for target in (torch.empty_like(first), parts[-1].clone()):
        found = [*parts[:-1], target.copy_(parts[-1])]
        mean_into(target, found)
        assert torch.equal(target.isnan(), expected.isnan())
        assert torch.equal(target[~target.isnan()], expected[~target.isnan()])  # of 0 and -0 the mean may be either
        assert torch.equal(target.view(torch.int32)[agree], first.view(torch.int32)[agree])
