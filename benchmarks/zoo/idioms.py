"""More networks as papers and example repositories write them, written out small; torch alone."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.public import Public, images, sequences, vectors


class FeatureTokens(nn.Module):
    """FT-Transformer: a token for each column of a table, a class token, pre-norm blocks."""

    def __init__(self, columns: int = 9, width: int = 32, heads: int = 4, layers: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.weight, self.bias = (nn.Parameter(torch.randn(columns, width) / 3) for _ in range(2))
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.blocks = nn.ModuleList(
            nn.ModuleDict({
                "n1": nn.LayerNorm(width), "q": nn.Linear(width, width), "kv": nn.Linear(width, 2 * width),
                "out": nn.Linear(width, width), "n2": nn.LayerNorm(width),
                "up": nn.Linear(width, 4 * width), "down": nn.Linear(2 * width, width),
            }) for _ in range(layers)
        )  # fmt: skip
        self.head = nn.Sequential(nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, 3))

    def split(self, x: Tensor) -> Tensor:
        """Return heads before positions."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return scores."""
        x = torch.cat([self.token.expand(len(x), -1, -1), x[..., None] * self.weight + self.bias], 1)
        for block in self.blocks:
            y = block["n1"](x)
            q, (k, v) = self.split(block["q"](y)), map(self.split, block["kv"](y).chunk(2, -1))
            scores = torch.einsum("bhid,bhjd->bhij", q, k) / math.sqrt(q.shape[-1])
            x = x + block["out"]((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
            a, b = block["up"](block["n2"](x)).chunk(2, -1)
            x = x + block["down"](a * F.relu(b))
        return self.head(x[:, 0])


class MaskedConv(nn.Conv2d):
    """A convolution that sees what was before only."""

    def __init__(self, a: int, b: int, size: int, first: bool) -> None:
        super().__init__(a, b, size, padding=size // 2)
        mask = torch.ones(size, size)
        mask[size // 2, size // 2 + (not first) :] = 0
        mask[size // 2 + 1 :] = 0
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution with what is to come left out."""
        return F.conv2d(x, self.weight * self.mask, self.bias, padding=self.padding)


class PixelCNN(nn.Module):
    """Gated residual layers of masked convolutions."""

    def __init__(self, width: int = 24, layers: int = 2) -> None:
        super().__init__()
        self.first, self.last = MaskedConv(1, width, 5, True), nn.Conv2d(width, 16, 1)
        self.layers = nn.ModuleList(
            nn.ModuleDict({"gates": MaskedConv(width, 2 * width, 3, False), "out": nn.Conv2d(width, width, 1)})
            for _ in range(layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of 16 grey levels."""
        x = self.first(x)
        for layer in self.layers:
            a, b = layer["gates"](F.elu(x)).chunk(2, 1)
            x = x + layer["out"](a.tanh() * b.sigmoid())
        return self.last(F.elu(x))


class Perceiver(nn.Module):
    """Learned latents read a sequence, think, and are read by one query."""

    def __init__(self, inputs: int = 12, width: int = 32, latents: int = 6) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(latents, width))
        self.query = nn.Parameter(torch.randn(1, 1, width))
        self.read = nn.MultiheadAttention(width, 4, kdim=inputs, vdim=inputs, batch_first=True)
        self.think = nn.TransformerEncoderLayer(width, 4, 64, norm_first=True, batch_first=True, activation="gelu")
        self.decode = nn.MultiheadAttention(width, 4, batch_first=True)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Return scores."""
        z = self.latents.unsqueeze(0).repeat(x.shape[0], 1, 1)
        z = z + self.read(self.norm(z), x, x, need_weights=False)[0]
        z = self.think(self.think(z))
        return self.head(self.decode(self.query.expand(x.shape[0], -1, -1), z, z)[0][:, 0])


class LowRank(nn.Module):
    """A frozen layer with LoRA beside it."""

    def __init__(self, a: int, b: int, rank: int = 4) -> None:
        super().__init__()
        self.base = nn.Linear(a, b).requires_grad_(False)
        self.down, self.up = nn.Parameter(torch.randn(rank, a) / a), nn.Parameter(torch.randn(b, rank) / rank)
        self.drop, self.scale = nn.Dropout(0.1), 2.0 / rank

    def forward(self, x: Tensor) -> Tensor:
        """Return both together."""
        return self.base(x) + self.drop(x) @ self.down.T @ self.up.T * self.scale


class Noisy(nn.Module):
    """NoisyNet: factorised noise on the weights while training."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__()
        self.a, self.b = a, b
        self.weight, self.spread = nn.Parameter(torch.randn(b, a) / a), nn.Parameter(torch.full((b, a), 0.1))
        self.bias, self.bias_spread = nn.Parameter(torch.zeros(b)), nn.Parameter(torch.full((b,), 0.1))

    @staticmethod
    def drawn(size: int, like: Tensor) -> Tensor:
        """Return noise, squashed."""
        noise = torch.randn(size, dtype=like.dtype, device=like.device)
        return noise.sign() * noise.abs().sqrt()

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer, noisy in training."""
        if not self.training:
            return F.linear(x, self.weight, self.bias)
        inner, outer = self.drawn(self.a, x), self.drawn(self.b, x)
        weight = self.weight + self.spread * torch.outer(outer, inner)
        return F.linear(x, weight, self.bias + self.bias_spread * outer)


class DiagonalStates(nn.Module):
    """S4D: a convolution by FFT whose kernel is a sum of complex exponentials, gated, with a skip."""

    def __init__(self, width: int = 16, states: int = 8) -> None:
        super().__init__()
        self.step = nn.Parameter(torch.rand(width) - 4)
        self.c = nn.Parameter(torch.randn(width, states, 2))
        self.decay = nn.Parameter(torch.log(0.5 * torch.ones(width, states)))
        self.turn = nn.Parameter(math.pi * torch.arange(states).repeat(width, 1))
        self.skip = nn.Parameter(torch.randn(width))
        self.into, self.out = nn.Linear(6, width), nn.Linear(width, 2 * width)
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Return scores of a sequence."""
        u = self.into(x).transpose(1, 2)
        length = u.shape[-1]
        exponent = torch.complex(-self.decay.exp(), self.turn) * self.step.exp()[:, None]
        powers = torch.exp(exponent[..., None] * torch.arange(length, device=u.device))
        kernel = 2 * torch.einsum("hn,hnl->hl", torch.view_as_complex(self.c) * exponent, powers).real
        spectrum = torch.fft.rfft(kernel, n=2 * length) * torch.fft.rfft(u, n=2 * length)
        y = torch.fft.irfft(spectrum, n=2 * length)[..., :length] + u * self.skip[:, None]
        return self.head(F.glu(self.out(F.gelu(y).transpose(1, 2)), -1).mean(1))


class Induced(nn.Module):
    """Set Transformer: induced points attend to a set, the set to them, then one seed pools it."""

    def __init__(self, inputs: int = 5, width: int = 32, points: int = 4) -> None:
        super().__init__()
        self.points, self.seed = nn.Parameter(torch.randn(1, points, width)), nn.Parameter(torch.randn(1, 1, width))
        self.into, self.head = nn.Linear(inputs, width), nn.Linear(width, 3)
        self.blocks = nn.ModuleList(
            nn.ModuleDict({name: nn.Linear(width, width) for name in "qkvo"}) for _ in range(3)
        )

    @staticmethod
    def attend(block: nn.Module, x: Tensor, y: Tensor, heads: int = 4) -> Tensor:
        """Return what each of one set gathers from another; heads are stacked along the batch, as the authors do."""
        q, k, v = block["q"](x), block["k"](y), block["v"](y)  # type: ignore[index]
        q, k, v = (torch.cat(z.split(z.shape[-1] // heads, 2), 0) for z in (q, k, v))
        y = q + torch.softmax(q.bmm(k.transpose(1, 2)) / math.sqrt(k.shape[-1] * heads), 2).bmm(v)
        y = torch.cat(y.split(x.shape[0], 0), 2)
        return y + F.relu(block["o"](y))  # type: ignore[index]

    def forward(self, x: Tensor) -> Tensor:
        """Return scores of sets."""
        x = self.into(x)
        induced = self.attend(self.blocks[0], self.points.repeat(len(x), 1, 1), x)
        x = self.attend(self.blocks[1], x, induced)
        return self.head(self.attend(self.blocks[2], self.seed.repeat(len(x), 1, 1), x))[:, 0]


def lora() -> nn.Module:
    """Return a perceptron fine-tuned by LoRA."""
    return nn.Sequential(LowRank(12, 32), nn.GELU(), LowRank(32, 32), nn.GELU(), nn.Linear(32, 4))


def noisy() -> nn.Module:
    """Return a head of Rainbow's."""
    return nn.Sequential(nn.Linear(8, 24), nn.ReLU(), Noisy(24, 32), nn.ReLU(), Noisy(32, 6))


NETWORKS = (
    Public("FT-Transformer", "written out", FeatureTokens, vectors(9), (1, 1)),
    Public("PixelCNN, masked convolutions", "written out", PixelCNN, images(1), (10, 14)),
    Public("Perceiver", "written out", Perceiver, sequences(12), (10, 14)),
    Public("LoRA", "written out", lora, vectors(12), (1, 1)),
    Public("NoisyNet", "written out", noisy, vectors(8), (1, 1)),
    Public("S4D", "written out", DiagonalStates, sequences(6), (12, 16)),
    Public("Set Transformer", "written out", Induced, sequences(5), (9, 12)),
)
