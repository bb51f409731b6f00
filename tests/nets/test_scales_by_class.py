"""Scales by classes of units: equal to the slow twins under all laws, small in memory, right for laws of one's own."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import isthmus
from cases.laws import LAW_CASES, OWN_CASES, with_core
from cases.networks import GPT, tokens
from isthmus.errors import InvalidInput
from isthmus.nets.coupling.coupling import Coupling
from isthmus.nets.pieces.merge import zero_cross_blocks
from isthmus.nets.pieces.pattern import Pattern
from isthmus.nets.scale.scaling import scaled, scaling
from isthmus.partitions import Core, Law
from nets.dense import DensePresence, dense_fold
from nets.memory import peak_bytes
from nets.test_scaling import COMPARED, SINGLE, Autocast, Fused, Repeated, SharedLayer, Steps, TiedAutoencoder, single

MODULE = "isthmus.nets.scale.scaling"
CASES = LAW_CASES | {f"{name}, core": with_core(build, 0.3) for name, build in LAW_CASES.items()}


def compare(coupling: Coupling, law: Law, monkeypatch: pytest.MonkeyPatch, round: int = 2) -> None:
    """Folded by class and entry by entry, in float64."""
    partition = coupling.partition(2, seed=1, round=round, law=law)
    found = scaling(coupling, partition)
    with monkeypatch.context() as patched:
        patched.setattr(f"{MODULE}.Presence", DensePresence)
        patched.setattr(f"{MODULE}.fold", dense_fold)
        expected = scaling(coupling, partition)
    assert found.why == expected.why
    assert found.open == expected.open
    assert set(found.evaluation) <= set(expected.evaluation)
    for name, factor in expected.evaluation.items():
        mine = found.evaluation.get(name, Pattern.of(torch.ones((1,) * factor.dim())))
        tolerance = 1e-15 if factor.table.dtype == torch.float64 else 1e-7
        whole = factor.tensor().expand(coupling.entries[name].shape)
        torch.testing.assert_close(mine.tensor().expand_as(whole), whole, rtol=tolerance, atol=tolerance)


@cache
def traced(
    build: Callable[[], nn.Module],
    shape: tuple[int, ...],
    cut: tuple[str, ...] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Coupling:
    """Trace a network once for all laws."""
    return isthmus.trace(build().to(dtype), (torch.randn(shape, dtype=dtype),), cut=cut)


@pytest.mark.parametrize("law", CASES)
@pytest.mark.parametrize("name", SINGLE)
def test_scales_are_those_of_the_slow_twin(name: str, law: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, coupling, _ = single(name)
    compare(coupling, CASES[law](2), monkeypatch)


@pytest.mark.parametrize("law", CASES)
def test_scales_of_weights_used_twice_or_in_part_are_those_of_the_slow_twin(
    law: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for build, shape in ((TiedAutoencoder, (3, 5)), (SharedLayer, (3, 4)), (Repeated, (3, 4)), (Autocast, (3, 4))):
        compare(traced(build, shape), CASES[law](2), monkeypatch)
    coupling = traced(Steps, (3, 5), ("ffn", "block"))
    if "weighted" not in law:  # the twin asks only whether a worker holds the block in this round
        compare(coupling, CASES[law](2), monkeypatch)


@pytest.mark.parametrize("network", COMPARED, ids=lambda network: network.name)
def test_scales_of_networks_are_those_of_the_slow_twin(network: object, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model, args = network.build(), network.inputs(2)  # type: ignore[attr-defined]
    coupling = isthmus.trace(model, args, network.kwargs)  # type: ignore[attr-defined]
    for law in ("uniform", "block, core", "weighted", "rotated, core"):
        if min(axis.size for axis in coupling.cut_axes) >= 4:
            compare(coupling, CASES[law](2), monkeypatch)


class Halves(nn.Module):
    """Two layers' weights side by side in one parameter, one of them transposed, one row left over."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 6)
        self.w = nn.Parameter(torch.randn(12, 8))

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).tanh()
        first, second = self.w[:5], self.w.narrow(0, 6, 6)
        return torch.cat([h @ first.t(), self.b(h).tanh() @ second[:, :3]], -1)


@pytest.mark.parametrize("law", CASES)
def test_scales_of_slices_are_those_of_the_slow_twin(law: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for build in (Halves, Fused):
        coupling = traced(build, (3, 4), ("*",), torch.float64)
        assert coupling.cut_axes
        compare(coupling, CASES[law](2), monkeypatch)


def wide() -> tuple[nn.Module, Coupling]:
    sizes = [64, 4096, 4096, 4096, 10]
    layers = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.ReLU())][:-1]
    model = nn.Sequential(*layers)
    return model, isthmus.trace(model, (torch.randn(2, 64),))


def gpt() -> tuple[nn.Module, Coupling]:
    model = GPT(tied=True, width=512)
    return model, isthmus.trace(model, tokens()(2))


@pytest.mark.parametrize("build", [wide, gpt])
def test_scales_and_zeros_take_a_tenth_of_the_model_at_most(build: Callable[[], tuple[nn.Module, Coupling]]) -> None:
    model, coupling = build()
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    for law in ("uniform", "block", "block, core", "rotated, core"):
        partition = coupling.partition(3, seed=0, law=CASES[law](3))
        assert peak_bytes(lambda: scaling(coupling, partition)) < 0.1 * size  # noqa: B023
        assert peak_bytes(lambda: zero_cross_blocks(model, coupling, partition)) < 0.1 * size  # noqa: B023


def test_the_memory_is_seen() -> None:
    tensor = torch.ones(1 << 20)
    assert peak_bytes(lambda: tensor + 1) >= 1 << 22
    assert peak_bytes(lambda: (tensor + 1).mul_(2).add(1)) >= 1 << 23
    assert peak_bytes(lambda: [(tensor + 1).sum() for _ in range(3)]) < 5 << 20
    assert peak_bytes(lambda: np.ones(1 << 19)) >= 1 << 22


@pytest.mark.parametrize("name", OWN_CASES)
@pytest.mark.parametrize("core", [0.0, 0.3])
def test_a_law_of_ones_own_has_scales_that_count_its_draws(name: str, core: float) -> None:
    """s_ij = P(column j | row i), counted here over the rounds, within 5 standard deviations; 1 on core columns."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 10), nn.ReLU(), nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 1))
    coupling = isthmus.trace(model, (torch.randn(3, 2),))
    law = with_core(OWN_CASES[name], core)(3) if core else OWN_CASES[name](3)
    rows, both = np.zeros((8, 1)), np.zeros((8, 10))
    for number in range(1120):  # whole periods of the window, with and without a core
        partition = coupling.partition(3, 0, number, law)
        for columns, held in zip(partition.held["0"], partition.held["2"], strict=True):
            rows[held] += 1
            both[np.ix_(held, columns)] += 1
    found = scaling(coupling, partition).evaluation["2.weight"].tensor().expand(8, 10).numpy()
    spread = np.sqrt(found * (1 - found) * 2 / rows)
    assert np.all(np.abs(found - both / rows) <= 5 * spread + 1e-6)
    assert np.ptp(found) > 0.01 or name == "favoured"
    if core:
        axes = {axis.name: axis for axis in coupling.dealt_axes}
        assert isinstance(law, Core)
        assert np.all(found[:, law.core(axes["0"], 0)] == 1)
        assert np.all(found[:, np.setdiff1d(np.arange(10), law.core(axes["0"], 0))] < 1)


@st.composite
def patterns(draw: st.DrawFn) -> tuple[np.ndarray, list[np.ndarray]]:
    rank = draw(st.integers(0, 3))
    classes = [draw(st.integers(1, 3)) for _ in range(rank)]
    labels = [np.array(draw(st.lists(st.integers(0, k - 1), min_size=1, max_size=5)), dtype=np.int64) for k in classes]
    count = int(np.prod(classes))
    values = draw(st.lists(st.sampled_from([0.25, 0.5, 1.0]), min_size=count, max_size=count))
    return np.array(values).reshape(classes), labels


@given(patterns(), patterns())
def test_a_pattern_is_the_tensor_it_stands_for(
    one: tuple[np.ndarray, list[np.ndarray]], two: tuple[np.ndarray, list[np.ndarray]]
) -> None:
    dense = torch.from_numpy(np.array(one[0][np.ix_(*one[1])]))
    found = Pattern.compressed(*one)
    torch.testing.assert_close(found.tensor().expand_as(dense), dense, rtol=0, atol=0)
    torch.testing.assert_close((found**2).tensor().expand_as(dense), dense**2)
    torch.testing.assert_close((found * 3.0).mean(), dense.mean() * 3)
    whole = torch.full(dense.shape, 2.0, dtype=torch.float64)
    found.multiply(whole)
    assert torch.equal(whole, 2 * dense)
    if len(two[1]) == len(one[1]):
        labels = [np.resize(classes, len(mine)) for classes, mine in zip(two[1], one[1], strict=True)]
        other = np.array(two[0][np.ix_(*labels)])
        product = found * Pattern.compressed(two[0], labels)
        torch.testing.assert_close(product.tensor().expand_as(dense), dense * torch.from_numpy(other))


def test_a_large_pattern_is_applied_piece_by_piece() -> None:
    torch.manual_seed(0)
    labels = [np.random.default_rng(0).integers(0, 3, size) for size in (700, 900)]
    found = Pattern.compressed(np.arange(9.0).reshape(3, 3), labels)
    whole = torch.randn(700, 900)
    expected = whole * found.tensor()
    assert len(list(found.over(whole))) > 1
    assert peak_bytes(lambda: found.multiply(whole)) < 0.9 * expected.numel() * 8
    assert torch.equal(whole, expected.float())
    with pytest.raises(InvalidInput, match=r"a factor must fit shape \(3, 3\), got \(700, 900\)"):
        found.multiply(torch.ones(3, 3))


def test_scaled_takes_patterns() -> None:
    layer = nn.Linear(4, 2, bias=False)
    before = layer.weight.detach().clone()
    factor = Pattern.compressed(np.array([[0.5, 1.0], [1.0, 0.25]]), [np.array([0, 1]), np.array([0, 1, 1, 0])])
    with scaled(layer, {"weight": factor}):
        assert torch.equal(layer.weight, before * factor.tensor().float())
    assert torch.equal(layer.weight, before)
