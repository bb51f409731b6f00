"""Small networks for the trainer, each with something that a trainer can get wrong."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class Digits(nn.Module):
    """Convolutions with batch norm and a residual block, dropout, a norm's input scaled by a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.inner = nn.Conv2d(8, 12, 3, padding=1)
        self.outer = nn.Conv2d(12, 8, 3, padding=1)
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(8 * 4 * 4, 10)
        self.register_buffer("gain", torch.full((8, 1, 1), 0.9))

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.norm(self.stem(x))) * self.gain
        x = x + self.outer(functional.relu(self.inner(x)))
        return self.head(self.drop(functional.max_pool2d(x, 2)).flatten(1))


class Reader(nn.Module):
    """Reads bytes: heads, a mask as a buffer, tied embeddings, a frozen parameter, a counter that forward changes."""

    def __init__(self, width: int = 16, heads: int = 4, context: int = 12) -> None:
        super().__init__()
        self.heads = heads
        self.embed = nn.Embedding(256, width)
        self.place = nn.Parameter(0.02 * torch.randn(context, width), requires_grad=False)
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 24), nn.GELU(), nn.Dropout(0.1))
        self.down = nn.Linear(24, width)
        self.register_buffer("mask", torch.ones(context, context, dtype=torch.bool).tril(), persistent=False)
        self.register_buffer("calls", torch.zeros(24))

    def forward(self, tokens: Tensor, shift: float = 0.0) -> dict[str, Tensor]:
        b, t = tokens.shape
        x = self.embed(tokens) + self.place[:t]
        q, k, v = self.qkv(self.norm(x)).view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-1, -2) / 2).masked_fill(~self.mask[:t, :t], float("-inf")).softmax(-1)
        x = x + self.out((weights @ v).transpose(1, 2).reshape(b, t, -1)) + shift
        inner = self.mlp(x)
        if self.training:
            self.calls.add_(inner.detach().mean((0, 1)))
        return {"logits": functional.linear(x + self.down(inner), self.embed.weight)}


class Nodes(nn.Module):
    """Two graph convolutions."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.first = nn.Linear(features, 16)
        self.second = nn.Linear(16, classes)

    def forward(self, features: Tensor, adjacency: Tensor) -> Tensor:
        return self.second(adjacency @ functional.relu(self.first(adjacency @ features)))


class Deep(nn.Module):
    """Four residual blocks, to be cut by depth."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(64, 16)
        self.blocks = nn.ModuleList(
            [nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 16)) for _ in range(4)]
        )
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


def digits() -> tuple[nn.Module, tuple[Any, ...]]:
    return Digits(), (torch.zeros(2, 1, 8, 8),)


def reader() -> tuple[nn.Module, tuple[Any, ...], dict[str, Any]]:
    """The tokens are a keyword argument, beside one that is not a tensor."""
    return Reader(), (), {"tokens": torch.zeros(2, 12, dtype=torch.int64), "shift": 0.0}


def nodes() -> tuple[nn.Module, tuple[Any, ...]]:
    from isthmus.data import load

    data = load("sbm")
    assert data.graph is not None
    count, width = data.graph.features.shape
    return Nodes(width, data.classes), (torch.zeros(count, width), torch.zeros(count, count))


def deep() -> tuple[nn.Module, tuple[Any, ...]]:
    return Deep(), (torch.zeros(2, 64),)


def normed() -> tuple[nn.Module, tuple[Any, ...]]:
    """A norm follows the only sum over units that are cut, and absorbs any factor on it."""
    network = nn.Sequential(nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10, bias=False), nn.BatchNorm1d(10))
    return network, (torch.zeros(2, 64),)


def values_while_built() -> tuple[nn.Module, tuple[Any, ...]]:
    """Reads values while it is built, which no network on the meta device has."""
    rates = [rate.item() for rate in torch.linspace(0, 0.2, 3)]
    return nn.Sequential(nn.Linear(64, 12), nn.ReLU(), nn.Dropout(rates[1]), nn.Linear(12, 10)), (torch.zeros(2, 64),)


ALIVE: weakref.WeakSet[nn.Module] = weakref.WeakSet()


def remembered() -> tuple[nn.Module, tuple[Any, ...]]:
    """Looks at its memory while it is built; what it makes is in ``ALIVE`` for as long as anybody holds it."""
    network, args = values_while_built()
    network[0].weight.detach().numpy()
    ALIVE.add(network)
    return network, args


def quiet() -> tuple[nn.Module, tuple[Any, ...]]:
    """Draws nothing while it is trained."""
    return nn.Sequential(nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10)), (torch.zeros(2, 64),)


def cut_throughout() -> tuple[nn.Module, tuple[Any, ...]]:
    """Every parameter that is trained belongs to the one axis that is cut."""
    network = quiet()[0]
    network[2].bias.requires_grad_(False)
    return network, (torch.zeros(2, 64),)


_BUILT = 0


def unlike() -> tuple[nn.Module, tuple[Any, ...]]:
    """Starts from other weights every time it is built."""
    global _BUILT
    _BUILT += 1
    network, args = values_while_built()
    with torch.no_grad():
        network[0].bias.fill_(_BUILT)
    return network, args


def bias_of_one() -> tuple[nn.Module, tuple[Any, ...]]:
    """As ``unlike`` the first time; the same every time."""
    network, args = values_while_built()
    with torch.no_grad():
        network[0].bias.fill_(1)
    return network, args


def too_few() -> tuple[nn.Module, tuple[Any, ...]]:
    return nn.Sequential(nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 7)), (torch.zeros(2, 64),)


def other_shape() -> tuple[nn.Module, tuple[Any, ...]]:
    return nn.Sequential(nn.Linear(32, 12), nn.ReLU(), nn.Linear(12, 10)), (torch.zeros(2, 32),)


def two_inputs() -> tuple[nn.Module, tuple[Any, ...]]:
    return nn.Bilinear(64, 64, 10), (torch.zeros(2, 64), torch.zeros(2, 64))


def words() -> tuple[nn.Module, tuple[Any, ...]]:
    """Takes 64 tokens, not 64 numbers."""
    network = nn.Sequential(nn.Embedding(300, 8), nn.Flatten(), nn.Linear(64 * 8, 10))
    return network, (torch.zeros(2, 64, dtype=torch.int64),)


def no_network() -> int:
    return 3


class Branches(nn.Module):
    """Takes one path or another, by the values it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(64, 10), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.one(x) if x.sum() > 0 else self.other(x)


def branches() -> tuple[nn.Module, tuple[Any, ...]]:
    return Branches(), (torch.zeros(2, 64),)


class Choose(nn.Module):
    """A branch on values in a submodule of another file's network."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.mean() > 0 else -x


def inner_branch() -> tuple[nn.Module, tuple[Any, ...]]:
    inner = nn.Sequential()
    inner.add_module("choose", Choose())
    return nn.Sequential(nn.Linear(64, 12), inner, nn.Linear(12, 10)), (torch.zeros(2, 64),)


def bare() -> tuple[nn.Module, Any]:
    """The example call is a tensor, not a tuple of one."""
    return too_few()[0], torch.zeros(2, 64)


def nothing_to_train() -> tuple[nn.Module, tuple[Any, ...]]:
    return nn.Flatten(), (torch.zeros(2, 64),)


def breaks() -> tuple[nn.Module, tuple[Any, ...]]:
    raise RuntimeError("no such file")


class Weighted(nn.Module):
    """Makes a constant in forward, on the device of its input; one of a hidden unit each."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(64, 12), nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        gains = torch.tensor([1.0 + i / 12 for i in range(12)], device=x.device)
        return self.outer(functional.relu(self.inner(x)) * gains)


def weighted() -> tuple[nn.Module, tuple[Any, ...]]:
    return Weighted(), (torch.zeros(2, 64),)


def llama() -> tuple[nn.Module, tuple[Any, ...], dict[str, Any]]:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=256, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=12, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    return LlamaForCausalLM(config), (), {"input_ids": torch.zeros(2, 12, dtype=torch.int64), "use_cache": False}


class Settled(nn.Module):
    """A batch norm that stays in evaluation mode, and buffers that forward writes to, or assigns, in evaluation too."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.norm, self.outer = nn.Linear(64, 12), nn.BatchNorm1d(12), nn.Linear(12, 10)
        self.register_buffer("mean", torch.zeros(12))
        self.register_buffer("calls", torch.zeros(()))
        with torch.no_grad():
            self.norm.running_mean.fill_(0.25)
            self.norm.running_var.fill_(2.0)

    def train(self, mode: bool = True) -> Settled:
        super().train(mode)
        self.norm.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        h = functional.relu(self.norm(self.inner(x)))
        self.mean.mul_(0.9).add_(0.1 * h.detach().mean(0))
        self.calls = self.calls + 1
        return self.outer(h - self.mean) / (1 + 0.1 * self.calls)


def settled() -> tuple[nn.Module, tuple[Any, ...]]:
    return Settled(), (torch.zeros(2, 64),)


def double() -> tuple[nn.Module, tuple[Any, ...]]:
    return nn.Sequential(nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10)).double(), (torch.zeros(2, 64).double(),)


def frozen() -> tuple[nn.Module, tuple[Any, ...]]:
    return nn.Sequential(nn.Linear(64, 12), nn.Linear(12, 10)).requires_grad_(False), (torch.zeros(2, 64),)


def unbatched() -> tuple[nn.Module, tuple[Any, ...]]:
    """The example call has one sample, and no dimension for a batch."""
    return quiet()[0], (torch.zeros(64),)


class Scalar(nn.Module):
    """Returns one number for the whole batch."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(64, 12), nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(self.inner(x).relu()).mean()


def scalar() -> tuple[nn.Module, tuple[Any, ...]]:
    return Scalar(), (torch.zeros(2, 64),)
