"""Networks that once crashed the tracer, or were kept whole by one operator; each must be cut by default."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cases.networks import Network, image, vectors


class Grouped(nn.Module):
    """A gate for every four units, repeated in place with the size it leads to."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.gate, self.o = nn.Linear(6, 32), nn.Linear(6, 8), nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.o(self.a(x) * self.gate(x).sigmoid().repeat_interleave(4, dim=1, output_size=32))


class Modulated(nn.Module):
    """StyleGAN2's layer: a kernel for every sample, normed, the batch folded into the groups of one convolution."""

    def __init__(self, upwards: bool) -> None:
        super().__init__()
        self.upwards = upwards
        self.i, self.style, self.o = nn.Conv2d(3, 8, 1), nn.Linear(5, 8), nn.Conv2d(12, 3, 1)
        self.w = nn.Parameter(0.3 * torch.randn(12, 8, 3, 3))

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        b, _, height, width = x.shape
        w = self.w * (self.style(style) + 1)[:, None, :, None, None]
        w = w * (w.square().sum([2, 3, 4], keepdim=True) + 1e-8).rsqrt()
        x = self.i(x).reshape(1, b * 8, height, width)
        if self.upwards:
            w = w.transpose(1, 2).reshape(-1, 12, 3, 3)
            y = F.conv_transpose2d(x, w, stride=2, padding=1, groups=b)
        else:
            y = F.conv2d(x, w.view(b * 12, 8, 3, 3), padding=1, groups=b)
        return self.o(y.view(b, 12, *y.shape[2:]).relu())


class Dynamic(nn.Module):
    """A mixture of kernels for every sample, in groups."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.i, self.attention, self.o = nn.Conv2d(3, 8, 1), nn.Linear(8, 4), nn.Conv2d(12, 3, 1)
        self.kernels = nn.Parameter(0.3 * torch.randn(4, 12, 8 // groups, 3, 3))
        self.bias = nn.Parameter(torch.randn(4, 12))

    def forward(self, x: Tensor) -> Tensor:
        x = self.i(x).relu()
        b, c, h, w = x.shape
        share = self.attention(x.mean((2, 3))).softmax(-1)
        kernels = torch.mm(share, self.kernels.flatten(1)).view(-1, c // self.groups, 3, 3)
        bias = torch.mm(share, self.bias).view(-1)
        y = F.conv2d(x.view(1, -1, h, w), kernels, bias, padding=1, groups=b * self.groups)
        return self.o(y.view(b, 12, h, w))


class SparseGraph(nn.Module):
    """A graph network whose adjacency is a sparse buffer, or comes with the nodes, or is made of edges."""

    def __init__(self, kept: str = "") -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3)
        self.kept = kept
        if kept:
            ring = torch.eye(7) + torch.eye(7).roll(1, 0) / 2
            self.register_buffer("ring", ring.to_sparse() if kept == "coo" else ring.to_sparse_csr())

    def forward(self, x: Tensor, adjacency: Tensor | None = None) -> Tensor:
        if adjacency is None:
            return self.b(self.ring @ self.a(x).relu())
        if not adjacency.is_floating_point():
            sizes = (x.shape[0], x.shape[0])
            adjacency = torch.sparse_coo_tensor(adjacency, torch.ones_like(adjacency[0], dtype=x.dtype), sizes)
        return self.b(torch.sparse.mm(adjacency, self.a(x)).relu())


class Named(nn.Module):
    """Submodules called like attributes of a piece."""

    NAMES = ("_modes", "_taken", "_holders", "mode", "become", "complete", "parameter_objects", "_constants")

    def __init__(self) -> None:
        super().__init__()
        for name in self.NAMES:
            self.add_module(name, nn.Linear(6, 6))
        self._outline = nn.Parameter(torch.randn(6))
        self.register_buffer("_written", torch.randn(6), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        for layer in list(self.children())[:-1]:
            x = layer(x).tanh() * self._outline + self._written
        return self._constants(x)


def _two(batch: int) -> tuple[Tensor, ...]:
    return torch.randn(batch, 3, 5 + batch % 2, 6), torch.randn(batch, 5)


def _sparse(batch: int) -> tuple[Tensor, ...]:
    adjacency = (torch.rand(4 + batch, 4 + batch) < 0.5).float()
    return torch.randn(4 + batch, 6), adjacency.to_sparse()


def _edges(batch: int) -> tuple[Tensor, ...]:
    return torch.randn(4 + batch, 6), torch.randint(0, 4 + batch, (2, 9))


CHANNEL = ("channel",)

FURTHER = [
    Network("repeated to a size", Grouped, vectors(6)),
    Network("modulated convolution", lambda: Modulated(False), _two, kinds=CHANNEL),
    Network("modulated convolution, upwards", lambda: Modulated(True), _two, kinds=CHANNEL),
    Network("dynamic convolution", lambda: Dynamic(1), image(), kinds=CHANNEL),
    Network("dynamic convolution, grouped", lambda: Dynamic(2), image(), kinds=CHANNEL),
    Network("sparse buffer", lambda: SparseGraph("coo"), lambda _: (torch.randn(7, 6),), open_batch=False),
    Network("sparse buffer, by rows", lambda: SparseGraph("csr"), lambda _: (torch.randn(7, 6),), open_batch=False,
            zeroable=False),  # torch cannot copy it
    Network("sparse input", SparseGraph, _sparse, open_batch=False),
    Network("sparse, made of edges", SparseGraph, _edges, open_batch=False),
    Network("named like internals", Named, vectors(6)),
]  # fmt: skip
"""``kinds`` are the kinds of axes that must be cut by default."""
