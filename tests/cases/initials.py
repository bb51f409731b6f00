"""Functions that make networks, each initialised in another way that people use."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from cases.networks_transformers import _bert, _gpt2, _llama, _t5, _vit

ODD = (1033, 1031)  # several blocks, and no multiple of 16


def convolutions() -> nn.Module:
    layers = [nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(), nn.Linear(5, 3)]
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def schemes() -> nn.Module:
    """All of torch.nn.init's, some of which take values read on the way."""
    network = nn.Sequential(*[nn.Linear(33, 70) for _ in range(6)], nn.Conv2d(3, 5, 3))
    nn.init.orthogonal_(network[0].weight)
    nn.init.trunc_normal_(network[1].weight)
    nn.init.trunc_normal_(network[2].weight, a=1.0)
    nn.init.xavier_normal_(network[3].weight)
    nn.init.kaiming_uniform_(network[4].weight, nonlinearity="relu")
    nn.init.sparse_(network[5].weight, 0.1)
    nn.init.dirac_(network[6].weight)
    nn.init.constant_(network[6].bias, 0.5)
    return network


class Tied(nn.Module):
    """Tied tensors, a row zeroed, a column copied, values chosen by value, tensors that are plain attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out = nn.Embedding(11, 16, padding_idx=2), nn.Linear(16, 11)
        self.out.weight = self.embed.weight
        self.register_buffer("mask", torch.ones(5, 5).tril().bool(), persistent=False)
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self.table = torch.arange(6) * 2
        self.tables = [torch.randn(3), {"half": torch.full((2, 2), 0.5)}]
        self.apply(self._start)
        with torch.no_grad():
            self.out.bias.copy_(self.embed.weight[:, 3] * 2)
            self.out.bias[self.out.bias > 0] = 0.25

    def _start(self, module: nn.Module) -> None:
        if isinstance(module, nn.Embedding):
            module.weight.data.normal_(mean=0.0, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(self.embed(tokens)) + self.table[:1]


def own_generators() -> nn.Module:
    """Numbers of a generator of its own, of torch's own after a seed of its own, and inside a fork."""
    mine, network = torch.Generator().manual_seed(3), nn.Linear(20, 20)
    with torch.no_grad():
        network.weight.normal_(generator=mine)
        network.bias.copy_(torch.randn(20, generator=mine))
    with torch.random.fork_rng():
        torch.manual_seed(3)
        inside = torch.rand(20)
    torch.manual_seed(9)
    network.bias.data += torch.rand(20)
    network.register_buffer("inside", inside + torch.rand(20) + torch.bernoulli(inside))
    return network


def reads_values() -> nn.Module:
    """Rates from a schedule, values from a list, a number that was drawn."""
    rates = [rate.item() for rate in torch.linspace(0, 0.2, 3)]
    network = nn.Sequential(nn.Linear(4, 4), nn.Dropout(rates[1]))
    network[0].bias.data = torch.tensor(torch.linspace(0, 1, 4).tolist())
    network[0].weight.data[0] = torch.rand(4).max().item()
    network[0].weight.data[1:] = torch.from_numpy(np.arange(4.0))
    return network


def large() -> nn.Module:
    """Several blocks of a chain of elementwise operations, by row zeroed, in four types."""
    network = nn.Module()
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        weight = torch.randn(ODD, dtype=dtype).mul_(0.02).exp_() + torch.rand(ODD, dtype=dtype)
        weight[5].zero_()
        weight[600:602] = 0.5
        network.register_parameter(str(dtype).replace("torch.", "as_"), nn.Parameter(weight))
    network.cut = nn.Parameter(torch.empty(ODD))
    nn.init.trunc_normal_(network.cut)
    network.copied = nn.Parameter((network.as_float32 * 2).double())
    network.turned = nn.Parameter(network.as_float32[:40].t())
    return network


def converted() -> nn.Module:
    return nn.Sequential(nn.Linear(30, 31).half(), nn.Linear(30, 31).bfloat16(), nn.Linear(30, 31)).double().cpu()


INITIALS: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: nn.Sequential(nn.Linear(30, 31), nn.ReLU(), nn.Linear(31, 7)),
    "convolutions": convolutions,
    "transformer": lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 4, 24, batch_first=True), 2),
    "lstm": lambda: nn.LSTM(9, 17, 2),
    "schemes": schemes,
    "tied": Tied,
    "own generators": own_generators,
    "reads values": reads_values,
    "large": large,
    "converted": converted,
    "bert": _bert,
    "gpt2": _gpt2,
    "llama": _llama,
    "vit": _vit,
    "t5": _t5,
}


def random_program(seed: int) -> Callable[[], list[Tensor]]:
    """A function that makes a few tensors and does a few of many things to them: fills, draws, views, copies, reads."""

    def program() -> list[Tensor]:
        choose = np.random.default_rng(seed)
        shapes = [(5, 7), (40, 9), (33,), (16, 16), (200, 3), ()]
        pool = [torch.empty(shapes[i]).uniform_() for i in choose.integers(0, len(shapes), 3)]
        for kind in choose.integers(0, 16, choose.integers(3, 15)).tolist():
            _act(kind, pool, pool[choose.integers(len(pool))], choose)
        return pool

    return program


def _act(kind: int, pool: list[Tensor], t: Tensor, choose: np.random.Generator) -> None:
    number = float(choose.random())
    rows = t.shape[0] if t.dim() else 0
    if kind == 0:
        t.normal_()
    elif kind == 1:
        t.mul_(number)
    elif kind == 2 and rows:
        t[int(number * rows)].fill_(number)
    elif kind == 3 and t.dim() == 2:
        t[:, 0].uniform_()
    elif kind == 4 and t.dim() == 2:
        pool.append(t.t())
    elif kind == 5 and rows:
        pool.append(t[rows // 3 :])
    elif kind == 6:
        pool.append(t.double().add_(1).float())
    elif kind == 7:
        pool.append(torch.randn(t.shape) + t)
    elif kind == 8:
        t.copy_(torch.rand_like(t))
    elif kind == 9 and rows:
        t[1:].sub_(t[:-1].clone())
    elif kind == 10:
        pool.append(t.reshape(-1))
    elif kind == 11:
        t.add_(t.mean())
    elif kind == 12 and rows:
        t[: rows // 2].normal_(0, 0.1)
    elif kind == 13:
        pool.append(torch.where(t < 0.5, torch.empty_like(t).normal_(), t))
    elif kind == 14 and (t > 1.5).any():
        t.clamp_(max=1)
    elif kind == 15 and rows:
        pool.append(t[::2])
