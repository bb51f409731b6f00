"""Networks of many kinds, each small: what the tracer, the cut and the merge are tried on."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Network:
    """A network, an example call, and what is known about it.

    Attributes:
        name: of the case.
        build: makes the network; the caller seeds torch.
        inputs: makes the positional arguments for a batch size.
        kwargs: further arguments of the call.
        kinds: kinds of axes that must be cut by default.
        open_batch: whether any batch size runs.
        zeroable: whether zeroing what a worker lacks in the network itself gives the masked whole.
    """

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[int], tuple[Tensor, ...]]
    kwargs: dict[str, Any] = field(default_factory=dict)
    kinds: tuple[str, ...] = ("hidden",)
    open_batch: bool = True
    zeroable: bool = True


def image(channels: int = 3, size: int = 8) -> Callable[[int], tuple[Tensor, ...]]:
    return lambda batch: (torch.randn(batch, channels, size, size),)


def vectors(width: int) -> Callable[[int], tuple[Tensor, ...]]:
    return lambda batch: (torch.randn(batch, width),)


def tokens(vocabulary: int = 11, length: int = 5, count: int = 1) -> Callable[[int], tuple[Tensor, ...]]:
    return lambda batch: tuple(torch.randint(0, vocabulary, (batch, length)) for _ in range(count))


def sequence(width: int, length: int = 5) -> Callable[[int], tuple[Tensor, ...]]:
    return lambda batch: (torch.randn(batch, length, width),)


def mlp(norm: Callable[[int], nn.Module] | None = None) -> nn.Module:
    layers: list[nn.Module] = []
    for a, b in ((6, 8), (8, 12)):
        layers += [nn.Linear(a, b), *([norm(b)] if norm else []), nn.ReLU(), nn.Dropout(0.1)]
    return nn.Sequential(*layers, nn.Linear(12, 3))


class ResidualMLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inp = nn.Linear(6, 8)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 8)) for _ in range(3)
        )
        self.out = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inp(x)
        for block in self.blocks:
            x = x + block(x)
        return self.out(x)


class LeNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c1, self.c2 = nn.Conv2d(1, 6, 3), nn.Conv2d(6, 8, 3)
        self.f1, self.f2 = nn.Linear(8 * 2 * 2, 12), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.c1(x).relu(), 2)
        x = F.max_pool2d(self.c2(x).relu(), 2)
        return self.f2(self.f1(x.view(x.size(0), -1)).relu())


def vgg() -> nn.Module:
    def stage(a: int, b: int) -> list[nn.Module]:
        return [nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU(inplace=True), nn.MaxPool2d(2)]

    return nn.Sequential(
        *stage(3, 8), *stage(8, 12), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(12, 5)
    )


class Basic(nn.Module):
    def __init__(self, a: int, b: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(a, b, 3, stride, 1, bias=False), nn.BatchNorm2d(b)
        self.conv2, self.bn2 = nn.Conv2d(b, b, 3, 1, 1, bias=False), nn.BatchNorm2d(b)
        plain = stride == 1 and a == b
        self.down = None if plain else nn.Sequential(nn.Conv2d(a, b, 1, stride, bias=False), nn.BatchNorm2d(b))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (x if self.down is None else self.down(x)))


class Bottleneck(nn.Module):
    def __init__(self, width: int, middle: int, groups: int = 1) -> None:
        super().__init__()
        self.c1, self.b1 = nn.Conv2d(width, middle, 1, bias=False), nn.BatchNorm2d(middle)
        self.c2, self.b2 = nn.Conv2d(middle, middle, 3, 1, 1, groups=groups, bias=False), nn.BatchNorm2d(middle)
        self.c3, self.b3 = nn.Conv2d(middle, width, 1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.b2(self.c2(F.relu(self.b1(self.c1(x))))))
        return F.relu(x + self.b3(self.c3(y)))


class PreActivation(nn.Module):
    def __init__(self, width: int, middle: int) -> None:
        super().__init__()
        self.b1, self.c1 = nn.BatchNorm2d(width), nn.Conv2d(width, middle, 3, 1, 1, bias=False)
        self.b2, self.c2 = nn.BatchNorm2d(middle), nn.Conv2d(middle, width, 3, 1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.c2(F.relu(self.b2(self.c1(F.relu(self.b1(x))))))


def resnet(*blocks: nn.Module, width: int = 8, last: int = 8) -> nn.Module:
    stem = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(last, 5))


class DenseNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, 1, 1)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(4 + 4 * i), nn.ReLU(), nn.Conv2d(4 + 4 * i, 4, 3, 1, 1)) for i in range(3)
        )
        self.transition = nn.Conv2d(16, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        features = [self.stem(x)]
        for layer in self.layers:
            features.append(layer(torch.cat(features, 1)))
        return self.head(self.transition(torch.cat(features, 1)).mean((2, 3)))


class Inverted(nn.Module):
    def __init__(self, width: int, expand: int) -> None:
        super().__init__()
        middle = width * expand
        self.body = nn.Sequential(
            nn.Conv2d(width, middle, 1, bias=False), nn.BatchNorm2d(middle), nn.ReLU6(),
            nn.Conv2d(middle, middle, 3, 1, 1, groups=middle, bias=False), nn.BatchNorm2d(middle), nn.ReLU6(),
            nn.Conv2d(middle, width, 1, bias=False), nn.BatchNorm2d(width),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c1, self.down, self.up = nn.Conv2d(3, 8, 3, 1, 1), nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.c1(x).relu()
        gate = self.up(self.down(x.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return self.head((x * gate).mean((2, 3)))


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.e1, self.e2 = nn.Conv2d(3, 4, 3, 1, 1), nn.Conv2d(4, 8, 3, 1, 1)
        self.mid, self.up = nn.Conv2d(8, 8, 3, 1, 1), nn.ConvTranspose2d(8, 4, 2, 2)
        self.d1, self.d2 = nn.Conv2d(12, 4, 3, 1, 1), nn.Conv2d(8, 4, 3, 1, 1)
        self.out = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.e1(x).relu()
        b = self.e2(F.max_pool2d(a, 2)).relu()
        c = self.mid(F.max_pool2d(b, 2)).relu()
        c = self.up(c)
        d = self.d1(torch.cat([c, b], 1)).relu()
        d = F.interpolate(d, scale_factor=2.0, mode="nearest")
        return self.out(self.d2(torch.cat([d, a], 1)).relu())


class ConvNeXt(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.dw, self.norm = nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.LayerNorm(8)
        self.p1, self.p2 = nn.Linear(8, 16), nn.Linear(16, 8)
        self.gamma = nn.Parameter(0.5 * torch.ones(8))
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.dw(x).permute(0, 2, 3, 1)
        y = self.gamma * self.p2(F.gelu(self.p1(self.norm(y))))
        x = x + y.permute(0, 3, 1, 2)
        return self.head(x.mean((-2, -1)))


class FusedAttention(nn.Module):
    """GPT-2's: one projection, split into q | k | v."""

    def __init__(self, width: int, heads: int, causal: bool = True) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.heads, self.causal = heads, causal

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        q, k, v = (z.view(b, t, self.heads, c // self.heads).transpose(1, 2) for z in self.qkv(x).split(c, dim=2))
        scores = (q @ k.transpose(-2, -1)) / math.sqrt(c // self.heads)
        if self.causal:
            mask = torch.ones(t, t, dtype=torch.bool, device=x.device).tril()
            scores = scores.masked_fill(~mask, float("-inf"))
        y = scores.softmax(-1) @ v
        return self.out(y.transpose(1, 2).contiguous().view(b, t, c))


class TransformerBlock(nn.Module):
    def __init__(self, width: int, heads: int, causal: bool = True) -> None:
        super().__init__()
        self.n1, self.attn = nn.LayerNorm(width), FusedAttention(width, heads, causal)
        self.n2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width), nn.Dropout(0.1))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.n1(x))
        return x + self.mlp(self.n2(x))


class GPT(nn.Module):
    def __init__(self, tied: bool = False, width: int = 16) -> None:
        super().__init__()
        self.tok, self.pos = nn.Embedding(11, width), nn.Embedding(9, width)
        self.blocks = nn.Sequential(TransformerBlock(width, 4), TransformerBlock(width, 4))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 11, bias=False)
        if tied:
            self.head.weight = self.tok.weight

    def forward(self, ids: Tensor) -> Tensor:
        positions = torch.arange(ids.size(1), device=ids.device)
        return self.head(self.norm(self.blocks(self.tok(ids) + self.pos(positions))))


class ViT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 4, 4)
        self.cls, self.pos = nn.Parameter(torch.randn(1, 1, 16)), nn.Parameter(torch.randn(1, 5, 16))
        self.block, self.norm, self.head = TransformerBlock(16, 4, causal=False), nn.LayerNorm(16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(x.size(0), -1, -1), x], 1) + self.pos
        return self.head(self.norm(self.block(x))[:, 0])


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(16, 4, batch_first=True)
        self.layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True, norm_first=True)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.attn(x, x, x, need_weights=False)
        return self.head(self.layer(x + y).mean(1))


class RMSNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


class LlamaBlock(nn.Module):
    def __init__(self, width: int, heads: int, kv: int) -> None:
        super().__init__()
        self.heads, self.kv, self.d = heads, kv, width // heads
        self.n1, self.n2 = RMSNorm(width), RMSNorm(width)
        self.q, self.k = nn.Linear(width, heads * self.d, bias=False), nn.Linear(width, kv * self.d, bias=False)
        self.v, self.o = nn.Linear(width, kv * self.d, bias=False), nn.Linear(heads * self.d, width, bias=False)
        self.gate, self.up = nn.Linear(width, 24, bias=False), nn.Linear(width, 24, bias=False)
        self.down = nn.Linear(24, width, bias=False)
        frequencies = 1.0 / 100.0 ** (torch.arange(0, self.d, 2).float() / self.d)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def rotate(self, x: Tensor) -> Tensor:
        angles = torch.outer(torch.arange(x.size(-2), device=x.device).to(x.dtype), self.frequencies)
        cos, sin = (torch.cat([z, z], -1) for z in (angles.cos(), angles.sin()))
        a, b = x.chunk(2, -1)
        return x * cos + torch.cat([-b, a], -1) * sin

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        y = self.n1(x)
        q = self.rotate(self.q(y).view(b, t, self.heads, self.d).transpose(1, 2))
        k = self.rotate(self.k(y).view(b, t, self.kv, self.d).transpose(1, 2))
        v = self.v(y).view(b, t, self.kv, self.d).transpose(1, 2)
        group = self.heads // self.kv
        k, v = (z[:, :, None].expand(b, self.kv, group, t, self.d).reshape(b, self.heads, t, self.d) for z in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o(y.transpose(1, 2).reshape(b, t, -1))
        y = self.n2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class Llama(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tok = nn.Embedding(11, 16)
        self.layers = nn.ModuleList([LlamaBlock(16, 8, 4), LlamaBlock(16, 8, 4)])
        self.norm, self.head = RMSNorm(16), nn.Linear(16, 11, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tok(ids)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


class RelativeAttention(nn.Module):
    """T5's: no scale, a bias per head and distance, queries from one sequence and keys from another."""

    def __init__(self, width: int, heads: int, biased: bool) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.v, self.o = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.bias = nn.Embedding(8, heads) if biased else None

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        b, t, c = x.shape
        s = memory.size(1)
        q, k, v = (
            f(z).view(b, -1, self.heads, c // self.heads).transpose(1, 2)
            for f, z in ((self.q, x), (self.k, memory), (self.v, memory))
        )
        scores = torch.matmul(q, k.transpose(3, 2))
        if self.bias is not None:
            distance = (torch.arange(s)[None] - torch.arange(t)[:, None]).clamp(-4, 3) + 4
            scores = scores + self.bias(distance).permute(2, 0, 1)[None]
        y = torch.matmul(scores.softmax(-1), v)
        return self.o(y.transpose(1, 2).reshape(b, t, c))


class T5(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tok = nn.Embedding(11, 16)
        self.self_attention, self.cross = RelativeAttention(16, 4, True), RelativeAttention(16, 4, False)
        self.n1, self.n2, self.n3 = RMSNorm(16), RMSNorm(16), RMSNorm(16)
        self.wi, self.wo = nn.Linear(16, 24, bias=False), nn.Linear(24, 16, bias=False)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        memory, x = self.tok(source), self.tok(target)
        y = self.n1(x)
        x = x + self.self_attention(y, y)
        x = x + self.cross(self.n2(x), memory)
        x = x + self.wo(self.wi(self.n3(x)).relu())
        return F.linear(x, self.tok.weight)


class MixtureOfExperts(nn.Module):
    """Dense routing: every expert sees every token, weighted by the gate."""

    def __init__(self) -> None:
        super().__init__()
        self.inp, self.gate = nn.Linear(6, 8), nn.Linear(8, 3)
        self.w1, self.w2 = nn.Parameter(0.3 * torch.randn(3, 8, 12)), nn.Parameter(0.3 * torch.randn(3, 12, 8))
        self.out = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inp(x)
        hidden = torch.einsum("bi,eih->beh", x, self.w1).relu()
        y = torch.einsum("beh,eho->beo", hidden, self.w2)
        return self.out(x + torch.einsum("be,beo->bo", self.gate(x).softmax(-1), y))


class Experts(nn.Module):
    """Dense routing over a list of separate networks."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)) for _ in range(3))
        self.gate = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        outputs = torch.stack([expert(x) for expert in self.experts], 1)
        return (self.gate(x).softmax(-1).unsqueeze(-1) * outputs).sum(1)


class GCN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.l1, self.l2, self.l3 = nn.Linear(6, 8), nn.Linear(8, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        x = (adjacency @ self.l1(x)).relu()
        x = (adjacency @ self.l2(x)).relu()
        return adjacency @ self.l3(x)


class SAGE(nn.Module):
    """Messages along a list of edges, concatenated with the node's own features."""

    def __init__(self) -> None:
        super().__init__()
        self.l1, self.l2 = nn.Linear(12, 8), nn.Linear(16, 3)

    def gather(self, x: Tensor, edges: Tensor) -> Tensor:
        messages = x.index_select(0, edges[0])
        total = torch.zeros_like(x).index_add(0, edges[1], messages)
        count = torch.zeros(x.size(0), dtype=x.dtype).index_add(0, edges[1], torch.ones_like(edges[1], dtype=x.dtype))
        return torch.cat([x, total / count.clamp(min=1)[:, None]], -1)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        return self.l2(self.gather(self.l1(self.gather(x, edges)).relu(), edges))


class GAT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Linear(6, 12, bias=False)
        self.source, self.target = nn.Parameter(torch.randn(4, 3)), nn.Parameter(torch.randn(4, 3))
        self.out = nn.Linear(12, 3)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        h = self.w(x).view(-1, 4, 3)
        a, b = (h * self.source).sum(-1), (h * self.target).sum(-1)
        scores = F.leaky_relu(a[:, None] + b[None], 0.2)
        weights = scores.masked_fill(adjacency[..., None] == 0, -1e9).softmax(1)
        return self.out(torch.einsum("ijh,jhd->ihd", weights, h).reshape(-1, 12).relu())


class Mixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch, self.n1, self.n2 = nn.Conv2d(3, 12, 2, 2), nn.LayerNorm(12), nn.LayerNorm(12)
        self.t1, self.t2 = nn.Linear(16, 8), nn.Linear(8, 16)
        self.c1, self.c2 = nn.Linear(12, 20), nn.Linear(20, 12)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).mT
        x = x + self.t2(F.gelu(self.t1(self.n1(x).mT))).mT
        x = x + self.c2(F.gelu(self.c1(self.n2(x))))
        return self.head(x.mean(1))


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.rnn, self.head = kind(5, 8, num_layers=2, batch_first=True, bidirectional=True), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0][:, -1])


class Cell(nn.Module):
    """A recurrent cell unrolled by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRUCell(5, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(x.size(0), 8)
        for t in range(3):
            h = self.cell(x[:, t], h)
        return self.head(h)


class Shuffle(nn.Module):
    """Grouped convolutions with the channels shuffled between them."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 8, 1, groups=2), nn.Conv2d(8, 8, 1, groups=2)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x).relu()
        b, c, h, w = x.shape
        x = x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)
        return self.head(self.b(x).mean((2, 3)))


def _graph(batch: int) -> tuple[Tensor, Tensor]:
    nodes = 6 + batch
    adjacency = (torch.rand(nodes, nodes) < 0.4).float() + torch.eye(nodes)
    return torch.randn(nodes, 6), adjacency / adjacency.sum(1, keepdim=True)


def _edges(batch: int) -> tuple[Tensor, Tensor]:
    nodes = 6 + batch
    return torch.randn(nodes, 6), torch.randint(0, nodes, (2, 3 * nodes))


CUT = ("channel",)

NETWORKS = [
    Network("mlp", mlp, vectors(6)),
    Network("mlp, batch norm", lambda: mlp(nn.BatchNorm1d), vectors(6)),
    Network("mlp, layer norm", lambda: mlp(nn.LayerNorm), vectors(6), kinds=()),
    Network("mlp, residual", ResidualMLP, vectors(6), kinds=("ffn",)),
    Network("lenet", LeNet, image(1, 14), kinds=("channel", "hidden")),
    Network("vgg", vgg, image(), kinds=("channel",)),
    Network("resnet, basic", lambda: resnet(Basic(8, 8), Basic(8, 12, 2), Basic(12, 12), last=12), image(), kinds=CUT),
    Network("resnet, bottleneck", lambda: resnet(Bottleneck(8, 4), Bottleneck(8, 4)), image(), kinds=("channel",)),
    Network("resnet, pre-activation", lambda: resnet(PreActivation(8, 6), PreActivation(8, 6)), image(), kinds=CUT),
    Network("resnext", lambda: resnet(Bottleneck(8, 8, groups=4)), image(), kinds=("channel",)),
    Network("densenet", DenseNet, image(), kinds=("channel",)),
    Network("mobilenet v2", lambda: resnet(Inverted(8, 2), Inverted(8, 2)), image(), kinds=("channel",)),
    Network("squeeze and excitation", SqueezeExcite, image(), kinds=("channel",)),
    Network("unet", UNet, image(), kinds=("channel",)),
    Network("convnext", ConvNeXt, image(), kinds=("ffn",)),
    Network("channel shuffle", Shuffle, image(4), kinds=("channel",)),
    Network("vit", ViT, image(), kinds=("head", "ffn")),
    Network("gpt", GPT, tokens(), kinds=("head", "ffn")),
    Network("gpt, tied", lambda: GPT(tied=True), tokens(), kinds=("head", "ffn")),
    Network("encoder", Encoder, sequence(16), kinds=("head", "ffn")),
    Network("llama", Llama, tokens(), kinds=("head", "ffn")),
    Network("t5", T5, tokens(count=2), kinds=("head", "ffn")),
    Network("mixture of experts", MixtureOfExperts, vectors(6), kinds=("expert",)),
    Network("list of experts", Experts, vectors(6)),
    Network("gcn", GCN, _graph),
    Network("graphsage", SAGE, _edges),
    Network("gat", GAT, _graph, kinds=("head",)),
    Network("mlp-mixer", Mixer, image(), kinds=("ffn",)),
    Network("lstm", lambda: Recurrent(nn.LSTM), sequence(5)),
    Network("gru", lambda: Recurrent(nn.GRU), sequence(5)),
    Network("gru cell, unrolled", Cell, sequence(5)),
]
"""Every network the laws are tried on; those from the ``transformers`` package are in networks_transformers.py."""
