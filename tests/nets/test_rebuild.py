"""One module for a whole run: it becomes other cuts in place, and equals a freshly built piece bit for bit."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

import isthmus
from isthmus.nets.pieces.subnetwork import Subnetwork, build, rebuild


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 12), nn.Linear(12, width)
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gain * self.down(self.up(self.norm(x)).relu())


class Deep(nn.Module):
    """Residual blocks, batch norm, a tied pair and a frozen parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = nn.Linear(6, 8), nn.BatchNorm1d(8)
        self.blocks = nn.Sequential(*(Block(8) for _ in range(3)))
        self.a, self.b = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)
        self.b.weight = self.a.weight
        self.head = nn.Linear(8, 3)
        self.head.bias.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.bn(self.stem(x)).relu())
        return self.head(self.b(self.a(x).relu()))


@pytest.fixture(scope="module")
def deep():
    torch.manual_seed(0)
    model = Deep()
    coupling = isthmus.trace(model, (torch.randn(4, 6),)).select(["*"])
    depth = next(axis.name for axis in coupling.axes if axis.kind == "block")
    hidden = [axis.name for axis in coupling.axes if axis.kind in ("ffn", "hidden") and axis.size == 12]
    return model, coupling, depth, hidden


def cuts(deep) -> list[dict[str, np.ndarray]]:
    """Whole; uneven widths; without a block; with it again and without others; nothing of the middle."""
    _, _, depth, hidden = deep
    blocks = [[0, 1, 2], [0, 1, 2], [0, 2], [1], [0, 1, 2]]
    widths = [range(12), range(5), range(3, 12), [1, 2, 11], range(7)]
    return [
        {depth: np.array(b), **{name: np.array(w) for name in hidden}} for b, w in zip(blocks, widths, strict=True)
    ]


def train(module: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> list[Tensor]:
    """Two steps; returns outputs and gradients of both."""
    seen = []
    generator = torch.Generator().manual_seed(seed)
    for _ in range(2):
        optimizer.zero_grad()
        out = module(torch.randn(4, 6, generator=generator))
        out.square().mean().backward()
        clip_grad_norm_(module.parameters(), 0.1)
        seen += [out.detach(), *(p.grad.clone() for p in module.parameters() if p.grad is not None)]
        optimizer.step()
    return seen


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, 0.1, momentum=0.9, foreach=True),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, 0.01),
}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_a_rebuilt_piece_trains_like_a_fresh_one(deep, make) -> None:
    model, coupling, _, _ = deep
    source = copy.deepcopy(model)
    sub = build(source, coupling, cuts(deep)[0])
    module, objects = sub.module, dict(sub.module.parameter_objects)
    optimizer = make(module.parameter_objects.values())
    for seed, held in enumerate(cuts(deep)):
        sub = rebuild(sub, source, coupling, held)
        fresh = build(source, coupling, held)
        optimizer.state.clear()
        assert sub.module is module
        assert dict(module.named_modules()).keys() == dict(fresh.module.named_modules()).keys()
        assert [n for n, _ in module.named_parameters()] == [n for n, _ in fresh.module.named_parameters()]
        for mode in (True, False):
            module.train(mode), fresh.module.train(mode)
            found = train(module, optimizer, seed)
            assert same(found, train(fresh.module, make(fresh.module.parameters()), seed))
            optimizer.state.clear()
        ours, theirs = module.state_dict(), fresh.module.state_dict()
        assert list(ours) == list(theirs)
        assert same(list(ours.values()), list(theirs.values()))
        assert all(module.parameter_objects[name] is objects[name] for name in objects)
        assert same(list(sub.state().values()), list(fresh.state().values()))
        isthmus.merge(source, [sub])


def test_blocks_leave_and_come_back_as_the_same_parameters(deep) -> None:
    model, coupling, depth, _ = deep
    sub = build(model, coupling, {depth: np.array([0, 2])})
    module = sub.module
    gone = [name for name in module.parameter_objects if name.startswith("blocks.1.")]
    assert len(gone) == 7
    assert not set(gone) & set(dict(module.named_parameters()))
    shapes = {name: tuple(module.parameter_objects[name].shape) for name in gone}
    assert shapes["blocks.1.up.weight"] == (0, 0)
    assert shapes["blocks.1.gain"] == ()
    with module.complete():
        inside = dict(module.named_parameters())
        assert list(inside) == [n for n, _ in model.named_parameters()]
    assert not set(gone) & set(dict(module.named_parameters()))
    optimizer = torch.optim.AdamW(inside.values(), 0.1, weight_decay=0.5)
    train(module, optimizer, 0)
    assert all(module.parameter_objects[name] not in optimizer.state for name in gone)
    rebuild(sub, model, coupling, {depth: np.array([1])})
    now = dict(module.named_parameters())
    assert all(now[name] is inside[name] and torch.equal(now[name], model.get_parameter(name)) for name in gone)
    assert module.parameter_objects["blocks.0.up.weight"].grad is None


def test_what_the_user_set_on_the_module_stays(deep) -> None:
    model, coupling, _, _ = deep
    first, second = cuts(deep)[1], cuts(deep)[2]
    sub = build(model, coupling, first)
    module, calls = sub.module, []
    module.register_forward_hook(lambda *_: calls.append(1))
    module.eval()
    sub = rebuild(sub, model, coupling, second)
    module(torch.randn(4, 6))
    assert calls
    assert not module.training
    assert module.b.weight is module.a.weight
    assert not module.head.bias.requires_grad
    module.head.weight.requires_grad_(False)  # frozen by the user on the way
    rebuild(sub, model, coupling, first)
    assert not module.head.weight.requires_grad
    assert module.stem.weight.requires_grad


def test_a_copy_is_a_network_of_its_own(deep) -> None:
    model, coupling, _, _ = deep
    sub = build(model, coupling, cuts(deep)[2])
    x = torch.randn(4, 6)
    sub.module.eval()
    for other in (copy.deepcopy(sub.module), pickle.loads(pickle.dumps(sub.module))):
        expected = sub.module(x)
        assert torch.equal(other(x), expected)
        assert other.a.weight is other.b.weight
        with torch.no_grad():
            other.stem.weight.zero_()
        assert not torch.equal(other(x), expected)
        assert torch.equal(sub.module(x), expected)
        assert other.parameter_objects["stem.weight"] is other.stem.weight


def test_submodules_are_found_by_class(deep) -> None:
    model, coupling, _, _ = deep
    module = build(model, coupling, {}).module

    def of_class(network: nn.Module, cls: type) -> list[str]:
        return [path for path, m in network.named_modules() if isinstance(m, cls)]

    for cls in (nn.LayerNorm, nn.BatchNorm1d, nn.Linear, nn.Sequential):
        assert of_class(module, cls) == of_class(model, cls) != []
    module.double().load_state_dict({name: t.double() for name, t in model.state_dict().items()})  # no metadata
    assert "LayerNorm()" in repr(module)
    assert module.bn.running_mean.dtype == torch.float64
    with pytest.raises(NotImplementedError):
        module.stem(torch.randn(4, 6))


def test_a_recurrent_shell_moves_like_a_plain_module() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.LSTM(4, 8, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.rnn(x)[0]

    net, x = Net(), torch.randn(2, 3, 4)
    sub = build(net, isthmus.trace(net, (x,)), {})
    assert isinstance(sub, Subnetwork)
    assert isinstance(sub.module.rnn, nn.LSTM)
    assert torch.equal(sub.module(x), net(x))
    sub.module.double()
    assert sub.module.rnn.weight_hh_l0.dtype == torch.float64
