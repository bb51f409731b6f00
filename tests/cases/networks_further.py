"""Networks that once crashed the tracer, or were kept whole by one operator; each must be cut by default."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cases.networks import Network, image, sequence, vectors


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


class Weighted(nn.Module):
    """Two layers whose weights are computed from parameters anew at every step."""

    def __init__(self, weight: Callable[[Tensor], Tensor], a: int = 8, b: int = 6) -> None:
        super().__init__()
        self.a, self.b, self.o = nn.Conv1d(3, a, 2), nn.Conv1d(a, b, 1), nn.Conv1d(b, 3, 1)
        self.weight = weight

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.a, self.b):
            x = F.conv1d(x, self.weight(layer.weight), layer.bias).relu()
        return self.o(x)


def standardized(weight: Tensor) -> Tensor:
    weight = weight - weight.mean((1, 2), keepdim=True)
    return weight / (weight.std((1, 2), keepdim=True) + 1e-5)


def standardized_by_norm(weight: Tensor) -> Tensor:
    rows = F.batch_norm(weight.reshape(1, len(weight), -1), None, None, training=True, momentum=0.0)
    return rows.reshape_as(weight)


def divided(weight: Tensor) -> Tensor:
    return weight / weight.abs().max()


def quantized(weight: Tensor) -> Tensor:
    """Fake quantisation, one scale for every output; straight through in the backward pass."""
    scale = weight.abs().amax((1, 2), keepdim=True) / 127
    return weight + ((weight / scale).round().clamp(-128, 127) * scale - weight).detach()


def normed(norm: Callable[[nn.Module], nn.Module], a: int = 8, b: int = 6) -> nn.Module:
    return nn.Sequential(
        norm(nn.Conv1d(3, a, 2)), nn.ReLU(), nn.Flatten(), norm(nn.Linear(8 * a, b)), nn.ReLU(), nn.Linear(b, 3)
    )


class Unpooled(nn.Module):
    """SegNet's way up: what was largest goes back to its place."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.o = nn.Conv2d(3, 8, 3, 1, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y, places = F.max_pool2d(self.a(x).relu(), 2, return_indices=True)
        return self.o(F.max_unpool2d(self.b(y).relu(), places, 2))


class Projected(nn.Module):
    """An LSTM that says less than it knows."""

    def __init__(self) -> None:
        super().__init__()
        self.r = nn.LSTM(5, 8, num_layers=2, proj_size=4, bidirectional=True, batch_first=True)
        self.o = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.o(self.r(x)[0])


class Bucketed(nn.Module):
    """Values told apart by the buckets they fall in; in-place changes of shape."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.o = nn.Linear(6, 8), nn.Linear(8, 3)
        self.register_buffer("edges", torch.tensor([-0.5, 0.0, 0.5]))

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        x = (x * torch.bucketize(x.detach(), self.edges)).tanh().clone()
        x.unsqueeze_(1).transpose_(1, 2).squeeze_(2).t_().t_()
        return self.o(x)


class Mapped(nn.Module):
    """An ensemble by vmap over its weights, and samples by vmap over the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.b = nn.Parameter(torch.randn(4, 8, 6)), nn.Parameter(torch.randn(4, 8))
        self.c, self.o = nn.Linear(8, 7), nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        each = torch.func.vmap(lambda w, b: F.linear(x, w, b).relu())(self.w, self.b)
        return torch.func.vmap(lambda row: self.o(self.c(row).relu()), in_dims=1)(each).mean(1)


class Attentive(nn.Module):
    """nn.MultiheadAttention as it is usually called; the weights are returned, or nobody reads them."""

    def __init__(self, returned: bool) -> None:
        super().__init__()
        self.m, self.o = nn.MultiheadAttention(16, 4, batch_first=True), nn.Linear(16, 3)
        self.returned = returned

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        y, weights = self.m(x, x, x)
        return (self.o(y), weights) if self.returned else self.o(y)


def cumulative() -> nn.Module:
    """Batch norm with the averages of all batches."""
    return nn.Sequential(
        nn.Conv1d(3, 8, 2), nn.BatchNorm1d(8, momentum=None), nn.ReLU(), nn.Conv1d(8, 6, 1), nn.BatchNorm1d(6),
        nn.ReLU(), nn.Conv1d(6, 3, 1),
    )  # fmt: skip


def _two(batch: int) -> tuple[Tensor, ...]:
    return torch.randn(batch, 3, 5 + batch % 2, 6), torch.randn(batch, 5)


def _sparse(batch: int) -> tuple[Tensor, ...]:
    adjacency = (torch.rand(4 + batch, 4 + batch) < 0.5).float()
    return torch.randn(4 + batch, 6), adjacency.to_sparse()


def _edges(batch: int) -> tuple[Tensor, ...]:
    return torch.randn(4 + batch, 6), torch.randint(0, 4 + batch, (2, 9))


CHANNEL = ("channel",)

TWINS: dict[str, Callable[..., nn.Module]] = {
    **{f"weights {f.__name__}": partial(Weighted, f) for f in (standardized, standardized_by_norm, divided, quantized)},
    "spectral norm": partial(normed, nn.utils.parametrizations.spectral_norm),
    "spectral norm, old": partial(normed, nn.utils.spectral_norm),
    "weight norm": partial(normed, nn.utils.parametrizations.weight_norm),
    "weight norm, old": partial(normed, nn.utils.weight_norm),
}
"""Networks whose weights are normed; a piece is the network that is built with other widths."""

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
    *(Network(name, build, sequence(9, 3), kinds=CHANNEL, zeroable=False) for name, build in TWINS.items()),
    Network("unpooled", Unpooled, image(), kinds=CHANNEL),
    Network("lstm, projected", Projected, sequence(5)),
    Network("buckets", Bucketed, vectors(6)),
    Network("vmap", Mapped, vectors(6)),
    Network("attention weights", lambda: Attentive(False), sequence(16), kinds=("head",)),
    Network("attention weights, returned", lambda: Attentive(True), sequence(16), kinds=("head",), zeroable=False),
    Network("cumulative averages", cumulative, sequence(9, 3), kinds=CHANNEL),
]  # fmt: skip
"""``kinds`` are the kinds of axes that must be cut by default."""
