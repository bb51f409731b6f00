"""The check one can trust: wrong cuts are found, right ones raise no alarm, and what cannot be judged is said."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import isthmus
from isthmus.errors import InvalidInput
from isthmus.nets.axes.registry import RULES
from isthmus.nets.check.merging import merging_errors
from isthmus.nets.check.sizings import with_batch, with_sides
from isthmus.nets.check.verdict import Unjudged, Verdict, judged
from isthmus.nets.coupling.coupling import Coupling
from isthmus.nets.pieces import ownership
from isthmus.nets.rules import rule
from nets.traced import state_of

# Operators that mix the units of their last dimension, each where one must look for it.


@torch.library.custom_op("isthmusverify::mixed", mutates_args=())
def mixed(x: Tensor) -> Tensor:
    """In the result."""
    return x.cumsum(-1)


@torch.library.custom_op("isthmusverify::mixed_at_odd_batches", mutates_args=())
def mixed_at_odd_batches(x: Tensor) -> Tensor:
    """In the result, if the number of samples is odd."""
    return x.cumsum(-1) if x.shape[0] % 2 else x.clone()


@torch.library.custom_op("isthmusverify::mixed_backward", mutates_args=())
def mixed_backward(x: Tensor) -> Tensor:
    """In the gradient alone: its places count."""
    return x.clone()


@torch.library.custom_op("isthmusverify::mixed_statistics", mutates_args=())
def mixed_statistics(x: Tensor) -> Tensor:
    """In a mean over the samples, that goes nowhere but to a buffer."""
    return x.mean(0).cumsum(-1)


def _reversed_sum(gradient: Tensor) -> Tensor:
    return gradient.flip(-1).cumsum(-1).flip(-1)


def _odd_backward(ctx: Any, gradient: Tensor) -> Tensor:
    return _reversed_sum(gradient) if gradient.shape[0] % 2 else gradient


mixed.register_fake(torch.empty_like)
mixed.register_autograd(lambda ctx, gradient: _reversed_sum(gradient))
mixed_at_odd_batches.register_fake(torch.empty_like)
mixed_at_odd_batches.register_autograd(_odd_backward)
mixed_backward.register_fake(torch.empty_like)
mixed_backward.register_autograd(lambda ctx, gradient: gradient * torch.linspace(1.0, 2.0, gradient.shape[-1]))
mixed_statistics.register_fake(lambda x: x.new_empty(x.shape[1:]))


class Net(nn.Module):
    """A hidden layer with something on its units, times a factor that begins at zero."""

    seen: Tensor

    def __init__(self, f: Callable[[Tensor], Tensor], begin: float = 0.0, persistent: bool | None = None) -> None:
        super().__init__()
        self.a, self.b, self.f = nn.Linear(5, 12), nn.Linear(12, 3), f
        self.factor = nn.Parameter(torch.full((12,), begin))
        self.keeps = persistent is not None
        if self.keeps:
            self.register_buffer("seen", torch.zeros(12), persistent=persistent)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        if self.keeps:
            if self.training:
                with torch.no_grad():
                    self.seen.lerp_(self.f(x), 0.1)
            return self.b(x)
        return self.b(self.f(x).tanh() * self.factor)


WRONG = {
    "mixed": (lambda: Net(mixed), "outputs"),
    "mixed_backward": (lambda: Net(mixed_backward), "gradients"),
    "mixed_at_odd_batches": (lambda: Net(mixed_at_odd_batches), "size"),
    "mixed_statistics": (lambda: Net(mixed_statistics, persistent=True), "buffers"),
    "mixed_statistics, not persistent": (lambda: Net(mixed_statistics, persistent=False), "buffers"),
}


@pytest.fixture
def wrong_rules() -> Iterator[None]:
    """All the operators above have rules that take units for independent."""
    names = ("mixed", "mixed_at_odd_batches", "mixed_backward", "mixed_statistics")
    for name in names:
        first = 1 if name == "mixed_statistics" else 0
        rule(f"isthmusverify::{name}")(lambda call, first=first: call.dims(call["x"])[first:])
    yield
    for name in names:
        del RULES[f"isthmusverify::{name}"]


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.usefixtures("wrong_rules")
def test_a_wrong_rule_is_found_where_it_is_wrong(name: str) -> None:
    make, where = WRONG[name]
    network, x = make(), torch.randn(4, 5)
    coupling = isthmus.trace(network, (x,))
    assert [axis.size for axis in coupling.cut_axes] == [12]
    for quick in (False, True):
        verdict = coupling.verify(network, (x,), quick=quick)
        failed = [check.what for check in verdict.checks if not check.passed]
        assert failed
        assert where in failed[0]
        assert "cut 0" in failed[0]
        assert where in ("outputs", "size") or all(where in what for what in failed)
        assert not verdict.passed
    with pytest.raises(InvalidInput, match=r"is not cut correctly: .* comparisons differ"):
        isthmus.trace(network, (x,), verify=True)


@pytest.mark.parametrize("name", WRONG)
def test_without_a_rule_the_same_operators_raise_no_alarm(name: str) -> None:
    """What they mix is kept whole."""
    network, x = WRONG[name][0](), torch.randn(4, 5)
    verdict = isthmus.trace(network, (x,)).verify(network, (x,))
    assert verdict.passed, verdict.summary()


def old_mean(first: Tensor, holders: Any) -> Tensor:
    """As it was: infinities that all hold become nan, and integers are rounded down."""
    if first.dtype == torch.bool:
        return first
    count = torch.zeros(first.shape)
    total = torch.zeros(first.shape, dtype=torch.complex128 if first.is_complex() else torch.float64)
    for part, held in holders:
        ownership._add(total, held, part.to(total.dtype) - ownership.view_slice(first, held))
        ownership._add(count, held, torch.ones(part.shape))
    return (first + total / count.clamp(min=1)).to(first.dtype)


class Everything(nn.Module):
    """Buffers of many types, some of them cut, with what is hard to average."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(5, 12), nn.Linear(12, 3)
        self.b.weight.data[0, :3] = torch.tensor([-0.0, 0.0, 1e-45])
        self.register_buffer("mask", torch.full((4, 4), -torch.inf).triu(1), persistent=False)
        self.register_buffer("count", torch.tensor([2**62 + 1, -(2**62) - 1, 0]))
        self.register_buffer("few", torch.tensor([255, 0, 128], dtype=torch.uint8), persistent=False)
        self.register_buffer("on", torch.tensor([True, False]))
        self.register_buffer("short", torch.randn(12).bfloat16())
        self.register_buffer("odd", torch.tensor([torch.nan, torch.inf, -torch.inf, 65504.0]).half())
        self.register_buffer("phase", torch.randn(12, dtype=torch.complex64))

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x).relu() * self.short.float() * self.phase.abs())


MERGES: dict[str, Callable[[Any], Any]] = {
    "as it was": old_mean,
    "the first alone": lambda first, holders: first,
    "the last alone": lambda first, holders: holders[-1][0].clone() if holders[-1][0].shape == first.shape else first,
    "a digit off": lambda first, holders: right(first, holders) * (1 + 1e-4),
}
right = ownership._mean


@pytest.mark.parametrize("how", MERGES)
def test_wrong_merging_is_found(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = Everything(), torch.randn(4, 5)
    coupling = isthmus.trace(network, (x,), verify=True)
    monkeypatch.setattr(ownership, "_mean", MERGES[how])
    verdict = coupling.verify(network, (x,), quick=True)
    failed = [check.what for check in verdict.checks if not check.passed]
    assert failed
    assert all(what.startswith("merging what was ") for what in failed)


@pytest.mark.parametrize("lost", ["mask", "short", "a.weight"])
def test_a_tensor_that_merging_forgets_is_found(lost: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = Everything(), torch.randn(4, 5)
    coupling = isthmus.trace(network, (x,))
    shape, into = dict(isthmus.nets.pieces.subnetwork.named_state(network))[lost].shape, ownership.merge_into
    forgets = lambda whole, parts: None if whole.shape == shape else into(whole, parts)  # noqa: E731
    monkeypatch.setattr("isthmus.nets.pieces.merge.merge_into", forgets)
    verdict = coupling.verify(network, (x,), quick=True)
    failed = [check.what for check in verdict.checks if not check.passed]
    assert len(failed) == 1
    assert failed[0].startswith("merging what was trained (")
    assert lost in failed[0]


@dataclasses.dataclass
class Result:
    """What no pytree knows."""

    logits: Tensor
    extra: Mapping[str, Any]


class Answer(nn.Module):
    """Returns dataclasses, with things of all kinds in them."""

    def __init__(self, extra: Any) -> None:
        super().__init__()
        self.a, self.b, self.extra = nn.Linear(5, 12), nn.Linear(12, 3), extra

    def forward(self, x: Tensor) -> Result:
        return Result(self.b(self.a(x).relu()), {"of it": self.extra, "rows": x.shape[0], "name": "answer"})


def test_results_of_any_form_are_compared() -> None:
    network, x = Answer((None, 2.5)), torch.randn(4, 5)
    verdict = isthmus.trace(network, (x,)).verify(network, (x,))
    assert verdict.passed
    assert not verdict.unjudged


def test_a_piece_that_returns_nothing_does_not_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = Answer(None), torch.randn(4, 5)
    monkeypatch.setattr("isthmus.nets.graph.export.opened", lambda result: result)
    verdict = isthmus.trace(network, (x,)).verify(network, (x,))
    assert not verdict.passed
    assert "what it returns (train)" in verdict.summary()


def test_what_a_piece_does_not_return_is_named() -> None:
    network, x = Answer(object()), torch.randn(4, 5)
    verdict = isthmus.trace(network, (x,)).verify(network, (x,))
    assert verdict.passed
    assert len(verdict.unjudged) == 1
    assert verdict.unjudged[0].endswith("['of it'] (object)")
    assert verdict.summary().endswith(f"; not judged: {verdict.unjudged[0]}")


class Plain(nn.Module):
    """A function of a hidden layer."""

    def __init__(self, f: Callable[[Tensor], Any], width: int = 12) -> None:
        super().__init__()
        self.a, self.b, self.f = nn.Linear(5, width), nn.Linear(width, 3), f

    def forward(self, x: Tensor) -> Any:
        return self.f(self.b(self.a(x).relu()))


def refusal(network: nn.Module, x: Tensor, traced: Coupling | None = None) -> str:
    coupling = isthmus.trace(network, (x,)) if traced is None else traced
    with pytest.raises(Unjudged) as caught:
        coupling.verify(network, (x,))
    assert str(caught.value).startswith("`model` cannot be verified: ")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_cannot_be_judged_is_refused() -> None:
    """And does not agree."""
    x = torch.randn(4, 5)
    assert "returns no tensor with a finite number" in refusal(Plain(lambda y: y / 0 * 0), x)
    assert "returns no tensor with a finite number" in refusal(Plain(lambda y: object()), x)
    with torch.device("meta"):
        assert "on the meta device" in refusal(Plain(torch.relu), torch.zeros(4, 5))
    network = Plain(torch.relu)
    coupling = isthmus.trace(network, (x,))
    network.f = lambda y: y @ torch.ones(7)
    assert "does not take this call (RuntimeError: " in refusal(network, x, coupling)
    network.f = lambda y: y * counter()
    assert "not give the same when it is called again" in refusal(network, x, coupling)
    assert not Verdict(()).passed


def counter(calls: list[int] = []) -> int:  # noqa: B006
    calls.append(1)
    return len(calls)


def test_what_it_never_was_traced_with_is_refused() -> None:
    network, x = nn.Sequential(nn.Flatten(), nn.Linear(30, 12), nn.ReLU(), nn.Linear(12, 2)), torch.randn(4, 6, 5)
    coupling = isthmus.trace(network, (x,))
    with pytest.raises(InvalidInput, match="must have size 6"):
        coupling.verify(network, (x[:, :3],))


class NormedRows(nn.Module):
    """A weight whose rows are divided by their norm, with a low-rank part that is cut too (DoRA)."""

    def __init__(self) -> None:
        super().__init__()
        shapes = ((32, 12), (4, 12), (32, 4), (32,))
        self.w, self.a, self.b, self.m = (nn.Parameter(torch.randn(*shape)) for shape in shapes)
        self.out = nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        w = self.w + self.b @ self.a
        return self.out(nn.functional.linear(x, self.m[:, None] * w / w.norm(dim=1, keepdim=True)).relu())


class NormedAcross(nn.Module):
    """A norm across the units that are cut, of rows that are cut too; nobody divides by zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 12), nn.Linear(12, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.b.weight / self.b.weight.norm(dim=1, keepdim=True) / self.b.weight.std(1, keepdim=True)
        return self.c((self.a(x) / self.a(x).norm(dim=-1, keepdim=True)) @ weight.t())


@pytest.mark.parametrize("make", [NormedRows, NormedAcross])
def test_normed_rows_raise_no_alarm(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    network, x = make(), torch.randn(4, 12 if make is NormedRows else 5)
    coupling = isthmus.trace(network, (x,))
    for chosen in (coupling, coupling.select(["*"])):
        verdict = chosen.verify(network, (x,))
        assert verdict.passed, verdict.summary()
        assert all(math.isfinite(check.error) for check in verdict.checks)


def test_norms_over_few_and_equal_values_raise_no_alarm() -> None:
    """Rounding moves the results of the right cut by more than a tolerance: it is explained, or nothing is said."""
    said = []
    for near in (1e-4, 1e-9, 3e-10, 1e-10, 1e-12):
        torch.manual_seed(0)
        layers = [nn.Linear(6, 300), *(nn.BatchNorm1d(300, eps=near**2 / 1e4), nn.ReLU(), nn.Linear(300, 3))]
        network = nn.Sequential(*layers).double()
        x = torch.randn(1, 6).double() + near * torch.randn(2, 6).double()
        coupling = isthmus.trace(network, (x,))
        try:
            verdict = coupling.verify(network, (x,), quick=True)
            said.append("agree" if verdict.passed else verdict.summary())
        except Unjudged as refused:
            said.append(str(refused))
    assert all("agree" in line or ("rounding alone" in line and "give a larger batch" in line) for line in said), said
    assert said[0] == "agree"


def test_what_rounding_explains() -> None:
    never = lambda: pytest.fail("it agrees: nobody asks")  # noqa: E731
    assert judged("outputs", 1e-6, 1e-5, never).passed
    assert not judged("outputs", 1e-3, 1e-5, lambda: 1e-14).passed
    assert not judged("outputs", math.inf, 1e-5, lambda: 1e-14).passed
    assert judged("outputs", 1e-3, 1e-5, lambda: 1e-3).passed
    for change in (0.1, math.inf, math.nan):
        with pytest.raises(Unjudged, match="rounding alone moves its outputs"):
            judged("outputs", 0.1, 1e-5, lambda change=change: change)


def test_the_network_and_all_random_numbers_are_left_alone() -> None:
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(5, 12), nn.BatchNorm1d(12), nn.RReLU(), nn.Dropout(0.5), nn.Linear(12, 3))
    network[1].eval()
    x = torch.randn(4, 5)
    coupling = isthmus.trace(network, (x,))
    before, flags, generator = state_of(network), [m.training for m in network.modules()], torch.get_rng_state()
    assert coupling.verify(network, (x,)).passed
    assert torch.equal(torch.get_rng_state(), generator)
    assert [module.training for module in network.modules()] == flags
    assert all(torch.equal(tensor, before[name]) for name, tensor in state_of(network).items())
    assert all(parameter.grad is None for parameter in network.parameters())


class Lengths(nn.Module):
    """A batch, a length and two sides that are open, one of them twice the other."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(5, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor, pairs: Tensor, mask: Tensor) -> Tensor:
        x = self.b(self.a(x).relu()) * mask[:, :, None]
        return x + pairs.unflatten(1, (-1, 2)).sum(2)[..., None]


def test_other_sizes_follow_each_other() -> None:
    network, inputs = Lengths(), (torch.randn(4, 6, 5), torch.randn(4, 12), torch.randn(4, 6))
    coupling = isthmus.trace(network, inputs)
    batch = with_batch(coupling, inputs, 7)
    assert batch is not None
    assert [tuple(t.shape) for t in batch] == [(7, 6, 5), (7, 12), (7, 6)]
    found = [[tuple(t.shape) for t in tensors] for tensors in with_sides(coupling, inputs)]
    assert found in ([[(4, 2, 5), (4, 4), (4, 2)], [(4, 12, 5), (4, 24), (4, 12)]], [])
    verdict = coupling.verify(network, inputs)
    assert verdict.passed
    assert any("at another batch size" in check.what for check in verdict.checks)


def test_merging_is_held_against_plain_sums() -> None:
    """Three workers that share some units; the twin is right about the merge of the package, entry by entry."""
    network, x = Everything(), torch.randn(4, 5)
    coupling = isthmus.trace(network, (x,))
    state = {name: tensor.detach() for name, tensor in isthmus.nets.pieces.subnetwork.named_state(network)}
    partition = coupling.partition(3, 0, law="overlapping", core=0.25)
    before = copy.deepcopy(state)
    assert [error for _, error in merging_errors(coupling, state, partition)] == [0.0, 0.0]
    assert all(torch.equal(before[name].nan_to_num(), tensor.nan_to_num()) for name, tensor in state.items())
