"""A network whose values are elsewhere gives what it would give with them, and never holds much of them."""

from __future__ import annotations

import copy
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parameters_to_vector, parametrizations
from torch.utils._pytree import tree_leaves

from cases.networks import Network
from cases.networks_more import UNSEEN
from isthmus.errors import InvalidInput
from isthmus.nets.graph.state import read_state
from isthmus.nets.pieces.pattern import Pattern
from isthmus.nets.pieces.subnetwork import named_state
from isthmus.trainer.executors.in_turn import run_in_turn
from isthmus.trainer.membership.link import join
from isthmus.trainer.store import reader as reading
from isthmus.trainer.store.away import Away
from isthmus.trainer.store.homes import Homes
from isthmus.trainer.store.reader import Reader
from isthmus.trainer.store.serve import Service
from isthmus.trainer.task.initial import copied
from isthmus.trainer.wire.exchange import drive
from isthmus.trainer.wire.meter import Meter
from nets.traced import ALL

CPU = torch.device("cpu")
NETWORKS = {**ALL, **{network.name: network for network in UNSEEN}}


class Look:
    """One worker's look at a network of which it keeps its shards."""

    def __init__(self, model: nn.Module, skeleton: nn.Module | None = None, **options: Any) -> None:
        self.link, self.meter = join(), Meter()
        entries = {name: entry for name, entry in read_state(model).items() if entry.is_parameter}
        tensors = {name: tensor.detach() for name, tensor in named_state(model)}
        homes = Homes(self.link.workers, {name: entry.shape for name, entry in entries.items()})
        dtypes = {name: entry.dtype for name, entry in entries.items()}
        here = self.link.index
        mine = {name: homes.rows(name, here) for name in entries}
        shards = {
            name: tensors[name].clone() if tensors[name].dim() == 0 else tensors[name][start:stop].clone()
            for name, (start, stop) in mine.items()
            if stop > start
        }
        self.service = Service(SimpleNamespace(homes=homes, types=dtypes), shards, self.link, CPU)
        self.live = self.most = 0
        self.reader = Reader(homes, dtypes, self._fetch, here=here, **options)

        def stand_in(name: str, tensor: Tensor) -> Tensor:
            if name in entries:
                return Away.standing_for(tensor, name, self.reader, CPU)
            return tensors.get(name, tensor.detach()).clone()

        self.model = copied(skeleton or model, stand_in).eval()

    def _fetch(self, span: reading.Span) -> dict[str, Tensor]:
        """Count the bytes that were handed out and still live."""
        found = drive(self.service.fetch(span), self.link, self.meter)
        for tensor in found.values():
            size = tensor.untyped_storage().nbytes()
            self.live += size
            weakref.finalize(tensor.untyped_storage(), self._freed, size)
        self.most = max(self.most, self.live)
        return found

    def _freed(self, size: int) -> None:
        self.live -= size

    def end(self) -> None:
        self.reader.close()
        while not drive(self.service.serve(), self.link, self.meter):
            pass


@contextmanager
def looking(model: nn.Module, skeleton: nn.Module | None = None, **options: Any) -> Iterator[Look]:
    look = Look(model, skeleton, **options)
    yield look
    look.end()


def with_workers(workers: int, build: Callable[[], nn.Module], use: Callable[[nn.Module, Look], Any]) -> list[Any]:
    """Let every worker use its look at the same network."""

    def job() -> Any:
        torch.manual_seed(1)
        model = build().eval()
        with looking(model) as look, torch.no_grad():
            return use(model, look)

    return run_in_turn(job, [()] * workers)


def tensors_in(output: Any) -> list[Tensor]:
    found = output.to_tuple() if hasattr(output, "to_tuple") else output
    return [leaf for leaf in tree_leaves(found) if isinstance(leaf, Tensor)]


def outputs(model: nn.Module, network: Network) -> list[Tensor]:
    torch.manual_seed(2)
    args = network.inputs(3)
    return tensors_in(model(*args, **network.kwargs))


@pytest.mark.parametrize(
    ("name", "in_blocks"), [*((name, True) for name in NETWORKS), ("encoder", False), ("resnet, basic", False)]
)
def test_gives_what_the_network_gives(name: str, in_blocks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to rounding: some fast paths and sizes of products are others. Only worker 1 looks; the others serve."""
    if in_blocks:
        monkeypatch.setattr(reading, "BLOCK", 64)

    def use(model: nn.Module, look: Look) -> None:
        if look.link.index == 1:
            if in_blocks:
                look.reader.most = 0
            found, expected = (outputs(each, NETWORKS[name]) for each in (look.model, model))
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)

    with_workers(3, NETWORKS[name].build, use)


def test_a_skeleton_without_values_will_do() -> None:
    def use(model: nn.Module, look: Look) -> None:
        with torch.device("meta"):
            skeleton = ALL["resnet, basic"].build()
        with looking(model, skeleton) as other:
            found, expected = (outputs(each, ALL["resnet, basic"]) for each in (other.model, model))
            torch.testing.assert_close(found, expected, rtol=0, atol=0)

    with_workers(1, ALL["resnet, basic"].build, use)


# ------------------------------------------------------------------- what it holds


def wide() -> nn.Module:
    return nn.Sequential(nn.Embedding(500, 300), nn.Linear(300, 500), nn.ReLU(), nn.Linear(500, 300, bias=False))


def test_not_even_one_large_tensor_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    block = 1 << 14
    monkeypatch.setattr(reading, "BLOCK", block)

    def use(model: nn.Module, look: Look) -> None:
        look.reader.most = 0
        x = torch.randint(0, 500, (7,))
        torch.testing.assert_close(look.model(x), model(x))
        assert 0 < look.most <= 2 * block  # a bias beside a block

    with_workers(4, wide, use)


def test_products_by_keyword_take_the_whole() -> None:
    def use(model: nn.Module, look: Look) -> None:
        x, away, here = torch.randn(2, 500), look.model[3].weight, model[3].weight  # type: ignore[index]
        look.reader.is_large = lambda name: True  # type: ignore[method-assign]
        torch.testing.assert_close(torch.matmul(input=x, other=away.t()), x @ here.t())
        torch.testing.assert_close(torch.matmul(input=x[:, :300], other=away), x[:, :300] @ here)
        torch.testing.assert_close(x[:, :300] @ away, x[:, :300] @ here)
        torch.testing.assert_close(torch.addmm(x, x[:, :300], away, alpha=2), torch.addmm(x, x[:, :300], here, alpha=2))
        torch.testing.assert_close(torch.addmm(x, x[:, :300], away), torch.addmm(x, x[:, :300], here))

    with_workers(1, wide, use)


def test_a_network_that_fits_is_fetched_once_and_together() -> None:
    def use(model: nn.Module, look: Look) -> int:
        for _ in range(4):
            outputs(look.model, ALL["resnet, basic"])
        size = sum(p.numel() * p.element_size() for p in model.parameters())
        here = sum(tensor.numel() * tensor.element_size() for tensor in look.service.shards.values())
        assert look.most == look.live == size
        assert look.meter.viewing == size - here + 2 * here  # received the rest, sent its own to two others
        return look.meter.sent + look.meter.received

    assert with_workers(3, ALL["resnet, basic"].build, use) == [0, 0, 0]


def test_what_is_kept_is_bounded() -> None:
    def use(model: nn.Module, look: Look) -> None:
        sizes = [p.numel() * p.element_size() for p in model.parameters()]
        look.reader.most = sum(sizes) // 2
        for _ in range(3):
            outputs(look.model, ALL["gpt"])
        assert look.live <= look.reader.most + max(sizes) < sum(sizes)

    def small(model: nn.Module, look: Look) -> None:
        reading_block = reading.BLOCK
        reading.BLOCK = 2048
        try:
            use(model, look)
        finally:
            reading.BLOCK = reading_block

    with_workers(1, ALL["gpt"].build, small)


# ------------------------------------------------------------------- what a user may do with it


def test_all_of_its_values_are_there() -> None:
    """Each way to get at values; a copy is a network of its own, tied weights tied."""

    def use(model: nn.Module, look: Look) -> None:
        seen, plain = look.model, model.state_dict()
        assert type(seen) is type(model)
        state = seen.state_dict()
        assert state.keys() == plain.keys()
        assert all(torch.equal(state[name], plain[name]) and type(state[name]) is Tensor for name in plain)
        copied = copy.deepcopy(seen)
        assert all(type(p) is nn.Parameter for p in copied.parameters())
        assert len(list(copied.parameters())) == len(list(seen.parameters())) == len(list(model.parameters()))
        assert all(torch.equal(a, b) for a, b in zip(copied.parameters(), model.parameters(), strict=True))
        assert torch.equal(parameters_to_vector(seen.parameters()), parameters_to_vector(model.parameters()))
        for a, b in zip(seen.parameters(), model.parameters(), strict=True):
            assert isinstance(a, nn.Parameter)
            assert (a.shape, a.dtype, a.device, a.requires_grad) == (b.shape, b.dtype, b.device, b.requires_grad)
            assert (a.stride(), a.is_contiguous(), a.numel()) == (b.stride(), b.is_contiguous(), b.numel())
            assert (2 * a - 1).sum() == (2 * b - 1).sum()
            assert a.norm().item() == b.norm().item()
            assert a.tolist() == b.tolist()
            assert (a.numpy(force=True) == b.numpy(force=True)).all()

    with_workers(2, ALL["gpt, tied"].build, use)


def test_what_it_is_costs_no_meeting() -> None:
    def use(model: nn.Module, look: Look) -> None:
        for p in look.model.parameters():
            assert hash(p) and p.is_leaf and p.grad is None and p.is_floating_point()  # noqa: PT018
            assert torch.numel(p) == p.nelement() == p.new_zeros(p.shape).numel() == torch.zeros_like(p).numel()
        look.model.requires_grad_(False)
        assert not any(p.requires_grad for p in look.model.parameters())
        assert look.meter.viewing == look.meter.wait == 0

    with_workers(2, ALL["gpt"].build, use)


WRITES: dict[str, Callable[[Any], Any]] = {
    "add_": lambda p: p.add_(1),
    "init": nn.init.zeros_,
    "+=": lambda p: p.__iadd__(1),
    "[]": lambda p: p.__setitem__(0, 1.0),
    "data": lambda p: setattr(p, "data", torch.zeros(3, 4)),
    "out": lambda p: torch.add(torch.ones(3, 4), 1, out=p),
    "inplace": lambda p: functional.relu(p, inplace=True),
    "foreach": lambda p: torch._foreach_add_([p], 1.0),
    "half": lambda p: nn.ParameterList([p]).half(),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_it_cannot_be_changed(write: Callable[[Any], Any]) -> None:
    def use(model: nn.Module, look: Look) -> None:
        with pytest.raises(InvalidInput, match="the merged network is there to be looked at"):
            write(look.model.weight)
        assert torch.equal(look.model.weight, model.weight)

    with_workers(1, lambda: nn.Linear(4, 3), use)


def test_writing_to_what_came_from_it_changes_nothing() -> None:
    def use(model: nn.Module, look: Look) -> None:
        for got in (look.model.weight.detach(), look.model.weight.t(), look.model.weight[0], look.model.weight.data):
            got.zero_()
        assert torch.equal(look.model.weight, model.weight)
        assert torch.equal(look.service.shards["weight"], model.weight)

    with_workers(1, lambda: nn.Linear(4, 3), use)


def test_a_read_that_passes_by_shows_no_number() -> None:
    def use(model: nn.Module, look: Look) -> None:
        with torch._C.DisableTorchFunctionSubclass():
            assert torch.isnan(look.model.weight + 0).all()

    with_workers(1, lambda: nn.Linear(4, 3), use)


def test_after_the_block_it_is_refused() -> None:
    def job() -> None:
        with looking(nn.Linear(4, 3)) as look:
            model = look.model
        with pytest.raises(InvalidInput, match="inside the block of whole"):
            model(torch.zeros(1, 4))

    run_in_turn(job, [(), ()])


def test_workers_look_at_unequal_paces() -> None:
    """One leaves at once, one reads a little, one reads everything again and again."""

    def use(model: nn.Module, look: Look) -> None:
        look.reader.most = 0
        for _ in range((0, 1, 5)[look.link.index]):
            found, expected = (outputs(each, ALL["llama"]) for each in (look.model, model))
            torch.testing.assert_close(found, expected, rtol=0, atol=0)

    with_workers(3, ALL["llama"].build, use)


def test_inference_mode_and_gradients_of_inputs() -> None:
    def use(model: nn.Module, look: Look) -> None:
        x = torch.randn(2, 4)
        with torch.inference_mode():
            assert torch.equal(look.model(x), model(x))
        with torch.enable_grad():
            mine, theirs = (
                torch.autograd.grad(m(leaf).square().sum(), leaf)[0]
                for m in (look.model, model)
                for leaf in (x.clone().requires_grad_(),)
            )
        assert torch.equal(mine, theirs)

    with_workers(2, lambda: nn.Linear(4, 3), use)


SCALES = {
    "weight": Pattern(torch.tensor([[0.5, 2.0], [1.0, 3.0]]), (torch.arange(7) % 2, torch.tensor([0, 1, 1, 0]))),
    "bias": Pattern(torch.arange(7.0), (None,)),
}


@pytest.mark.parametrize("block", [16, 1 << 20])
def test_rows_are_scaled_as_the_whole_is(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "BLOCK", block)

    def use(model: nn.Module, look: Look) -> None:
        look.reader.scales = SCALES
        for name, parameter in model.named_parameters():
            SCALES[name].multiply(parameter)
            assert torch.equal(look.model.get_parameter(name), parameter)
            for start, stop in look.reader.blocks(name):
                assert torch.equal(look.reader.rows(name, start, stop), parameter[start:stop])

    with_workers(3, lambda: nn.Linear(4, 7), use)


class Odd(nn.Module):
    """A tensor without dimensions, one without rows, one of whole numbers; in lists, dictionaries, parametrized."""

    def __init__(self) -> None:
        super().__init__()
        self.a = parametrizations.orthogonal(nn.Linear(4, 4))
        self.b = nn.utils.weight_norm(nn.Linear(4, 4))
        self.scale = nn.Parameter(torch.tensor(2.5))
        self.none = nn.Parameter(torch.zeros(0, 3))
        self.counts = nn.Parameter(torch.arange(5), requires_grad=False)
        self.some = nn.ParameterList([torch.randn(4), torch.randn(3)])
        self.more = nn.ParameterDict({"a": torch.randn(4, 4)})

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x) @ self.more["a"]) * self.scale + self.some[0] + self.counts.sum() + self.none.sum()


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_odd_parameters() -> None:
    def use(model: Any, look: Look) -> None:
        seen: Any = look.model
        x = torch.randn(2, 4)
        torch.testing.assert_close(seen(x), model(x))
        assert all(torch.equal(a, b) for a, b in zip(seen.parameters(), model.parameters(), strict=True))
        assert seen.counts.tolist() == [0, 1, 2, 3, 4]

    with_workers(3, Odd, use)


def test_a_language_model_generates_the_same() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"vocab_size": 40, "n_positions": 32, "n_embd": 16, "n_layer": 2, "n_head": 2}
    config = GPT2Config(**sizes, bos_token_id=0, eos_token_id=1, pad_token_id=0)

    def use(model: Any, look: Look) -> None:
        seen: Any = look.model
        assert seen.lm_head.weight is seen.transformer.wte.weight
        start = torch.tensor([[5, 7, 9]])
        found, expected = (each.generate(start, max_new_tokens=8, do_sample=False) for each in (seen, model))
        assert torch.equal(found, expected)

    with_workers(2, lambda: GPT2LMHeadModel(config), use)


def test_a_network_that_cannot_be_copied_is_refused() -> None:
    network: Any = nn.Linear(2, 2)
    network.lock = threading.Lock()
    with pytest.raises(InvalidInput, match=r"`network` must be one that copy\.deepcopy can copy, but: TypeError"):
        copied(network, lambda name, tensor: tensor)
