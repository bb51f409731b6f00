"""Networks as papers and example repositories write them, written out small; torch alone."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from zoo.public import Call, Experts, Public, images, sequences, signals, tokens, vectors


class CausalSelfAttention(nn.Module):
    """Attention with a mask of -inf kept as a buffer, added to the scores."""

    def __init__(self, width: int, heads: int, length: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.register_buffer("mask", torch.full((length, length), -math.inf).triu(1), persistent=False)
        self.register_buffer("tril", torch.tril(torch.ones(length, length)).view(1, 1, length, length))

    def forward(self, x: Tensor) -> Tensor:
        """Return what every position gathers from those before."""
        b, t, c = x.shape
        q, k, v = (z.view(b, t, self.heads, c // self.heads).transpose(1, 2) for z in self.qkv(x).split(c, dim=2))
        scores = q @ k.transpose(-2, -1) / math.sqrt(c // self.heads) + self.mask[:t, :t]
        scores = scores.masked_fill(self.tril[:, :, :t, :t] == 0, -math.inf)
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).contiguous().view(b, t, c))


class NanoGPT(nn.Module):
    """A small decoder with tied embeddings."""

    def __init__(self, width: int = 64, layers: int = 3, heads: int = 4, length: int = 24) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(99, width), nn.Embedding(length, width)
        self.blocks = nn.ModuleList(
            nn.ModuleDict({
                "n1": nn.LayerNorm(width), "attn": CausalSelfAttention(width, heads, length), "n2": nn.LayerNorm(width),
                "mlp": nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)),
            }) for _ in range(layers)
        )  # fmt: skip
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 99, bias=False)
        self.head.weight = self.wte.weight

    def forward(self, ids: Tensor) -> Tensor:
        """Return logits."""
        x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1], device=ids.device))
        for block in self.blocks:
            x = x + block["attn"](block["n1"](x))
            x = x + block["mlp"](block["n2"](x))
        return self.head(self.norm(x))


class Bigram(nn.Module):
    """Heads in a list, each with its own projections (a lecture's language model, in its sizes, one block)."""

    def __init__(self, width: int = 384, heads: int = 6) -> None:
        super().__init__()
        self.embed = nn.Embedding(65, width)
        size = width // heads
        parts = ("key", "query", "value")
        self.heads = nn.ModuleList(
            nn.ModuleDict({part: nn.Linear(width, size, bias=False) for part in parts}) for _ in range(heads)
        )
        self.proj = nn.Linear(width, width)
        self.ffwd = nn.Sequential(nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width))
        self.head = nn.Linear(width, 65)
        self.register_buffer("tril", torch.tril(torch.ones(24, 24)))

    def forward(self, ids: Tensor) -> Tensor:
        """Return logits."""
        x = self.embed(ids)
        t, outs = ids.shape[1], []
        for head in self.heads:
            k, q = head["key"](x), head["query"](x)
            w = (q @ k.transpose(-2, -1) * k.shape[-1] ** -0.5).masked_fill(self.tril[:t, :t] == 0, float("-inf"))
            outs.append(w.softmax(-1) @ head["value"](x))
        x = x + self.proj(torch.cat(outs, -1))
        return self.head(x + self.ffwd(x))


class Generator(nn.Module):
    """DCGAN's generator."""

    def __init__(self, latent: int = 32, width: int = 16) -> None:
        super().__init__()
        sizes = [latent, 8 * width, 4 * width, 2 * width, width]
        layers: list[nn.Module] = []
        for i, (a, b) in enumerate(itertools.pairwise(sizes)):
            up = nn.ConvTranspose2d(a, b, 4, 2 if i else 1, 1 if i else 0, bias=False)
            layers += [up, nn.BatchNorm2d(b), nn.ReLU(True)]
        self.main = nn.Sequential(*layers, nn.ConvTranspose2d(width, 3, 4, 2, 1, bias=False), nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        """Return images."""
        return self.main(z[:, :, None, None])


def discriminator(width: int = 16) -> nn.Module:
    """Return DCGAN's discriminator with spectral norms."""
    sizes = [3, width, 2 * width, 4 * width]
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        layers += [parametrizations.spectral_norm(nn.Conv2d(a, b, 4, 2, 1)), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, 1))


class UNet(nn.Module):
    """Two levels down and up, with concatenations."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()

        def double(a: int, b: int) -> nn.Module:
            return nn.Sequential(nn.Conv2d(a, b, 3, 1, 1), nn.BatchNorm2d(b), nn.ReLU(inplace=True),
                                 nn.Conv2d(b, b, 3, 1, 1), nn.BatchNorm2d(b), nn.ReLU(inplace=True))  # fmt: skip

        self.inc, self.down1, self.down2 = double(3, width), double(width, 2 * width), double(2 * width, 4 * width)
        self.up1, self.conv1 = nn.ConvTranspose2d(4 * width, 2 * width, 2, 2), double(4 * width, 2 * width)
        self.up2, self.conv2 = nn.Upsample(scale_factor=2, mode="bilinear"), double(3 * width, width)
        self.out = nn.Conv2d(width, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return a mask."""
        a = self.inc(x)
        b = self.down1(F.max_pool2d(a, 2))
        c = self.down2(F.max_pool2d(b, 2))
        b = self.conv1(torch.cat([b, self.up1(c)], 1))
        return self.out(self.conv2(torch.cat([a, self.up2(b)], 1)))


class TCN(nn.Module):
    """Temporal convolutions with weight norm and a chomp."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.convs, self.skips = nn.ModuleList(), nn.ModuleList()
        for i, a in enumerate((4, width, width)):
            pad = 2 * 2**i
            pair = (nn.Conv1d(c, width, 3, padding=pad, dilation=2**i) for c in (a, width))
            self.convs.append(nn.ModuleList(map(parametrizations.weight_norm, pair)))
            self.skips.append(nn.Conv1d(a, width, 1) if a != width else nn.Identity())
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Return scores of the last step."""
        for i, (pair, skip) in enumerate(zip(self.convs, self.skips, strict=True)):
            y = x
            for conv in pair:  # type: ignore[attr-defined]
                y = F.dropout(F.relu(conv(y)[:, :, : -2 * 2**i].contiguous()), 0.1, self.training)
            x = F.relu(y + skip(x))
        return self.head(x[:, :, -1])


class Seq2Seq(nn.Module):
    """GRU encoder and decoder with additive attention."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.embed = nn.Embedding(99, 16)
        self.encoder = nn.GRU(16, width, batch_first=True, bidirectional=True)
        self.cell = nn.GRUCell(16 + 2 * width, width)
        self.query, self.key, self.score = nn.Linear(width, width), nn.Linear(2 * width, width), nn.Linear(width, 1)
        self.head = nn.Linear(width, 99)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Return logits of four steps."""
        memory, state = self.encoder(self.embed(source))
        state, keys, outputs = state[0], self.key(memory), []
        for step in range(4):
            weights = self.score(torch.tanh(self.query(state)[:, None] + keys)).softmax(1)
            context = (weights * memory).sum(1)
            state = self.cell(torch.cat([self.embed(target[:, step]), context], -1), state)
            outputs.append(self.head(state))
        return torch.stack(outputs, 1)


class VAE(nn.Module):
    """An image autoencoder that draws; returns a tuple."""

    def __init__(self, hidden: int = 40, latent: int = 8) -> None:
        super().__init__()
        self.fc1, self.fc21, self.fc22 = nn.Linear(64, hidden), nn.Linear(hidden, latent), nn.Linear(hidden, latent)
        self.fc3, self.fc4 = nn.Linear(latent, hidden), nn.Linear(hidden, 64)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the image, the means and the logarithms of the variances."""
        h = F.relu(self.fc1(x.view(-1, 64)))
        mean, log = self.fc21(h), self.fc22(h)
        z = mean + torch.randn_like(log) * torch.exp(0.5 * log)
        return torch.sigmoid(self.fc4(F.relu(self.fc3(z)))), mean, log


class PointNet(nn.Module):
    """A transform of points by a small network, then features and a maximum."""

    def __init__(self) -> None:
        super().__init__()
        self.transform = nn.Sequential(nn.Conv1d(3, 32, 1), nn.BatchNorm1d(32), nn.ReLU(), nn.AdaptiveMaxPool1d(1),
                                       nn.Flatten(), nn.Linear(32, 9))  # fmt: skip
        self.features = nn.Sequential(nn.Conv1d(3, 32, 1), nn.BatchNorm1d(32), nn.ReLU(), nn.Conv1d(32, 64, 1))
        self.head = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 5))
        self.register_buffer("identity", torch.eye(3).flatten())

    def forward(self, x: Tensor) -> Tensor:
        """Return scores."""
        turn = (self.transform(x) + self.identity).view(-1, 3, 3)
        x = torch.bmm(x.transpose(1, 2), turn).transpose(1, 2)
        return self.head(self.features(x).max(2)[0])


class Siren(nn.Module):
    """Sines of positions."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(2, width), nn.Linear(width, width), nn.Linear(width, width)])
        self.head = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return values."""
        for layer in self.layers:
            x = torch.sin(30.0 * layer(x))
        return self.head(x)


class NeRF(nn.Module):
    """Frequencies of positions, with the input again half way and a density beside colours."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.register_buffer("bands", 2.0 ** torch.arange(4))
        self.first = nn.ModuleList([nn.Linear(24, width), nn.Linear(width, width)])
        self.second = nn.ModuleList([nn.Linear(width + 24, width), nn.Linear(width, width)])
        self.sigma, self.feature = nn.Linear(width, 1), nn.Linear(width, width)
        self.colour = nn.Sequential(nn.Linear(width + 3, 24), nn.ReLU(), nn.Linear(24, 3))

    def forward(self, points: Tensor, views: Tensor) -> dict[str, Tensor]:
        """Return colour and density."""
        angles = (points[..., None] * self.bands).flatten(-2)
        x = start = torch.cat([angles.sin(), angles.cos()], -1)
        for layer in self.first:
            x = F.relu(layer(x))
        x = torch.cat([start, x], -1)
        for layer in self.second:
            x = F.relu(layer(x))
        return {"sigma": F.relu(self.sigma(x)), "rgb": self.colour(torch.cat([self.feature(x), views], -1)).sigmoid()}


class DeepFM(nn.Module):
    """Factors of pairs beside a deep network, over a table with offsets."""

    def __init__(self, fields: int = 4, width: int = 16) -> None:
        super().__init__()
        self.register_buffer("offsets", torch.arange(fields) * 20)
        self.table, self.linear = nn.Embedding(20 * fields, width), nn.Embedding(20 * fields, 1)
        self.deep = nn.Sequential(nn.Linear(fields * width, 48), nn.BatchNorm1d(48), nn.ReLU(), nn.Dropout(0.2),
                                  nn.Linear(48, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 1))  # fmt: skip

    def forward(self, ids: Tensor) -> Tensor:
        """Return click probabilities."""
        ids = ids + self.offsets
        e = self.table(ids)
        pairs = 0.5 * (e.sum(1).pow(2) - e.pow(2).sum(1)).sum(1, keepdim=True)
        return torch.sigmoid(self.linear(ids).sum(1) + pairs + self.deep(e.flatten(1)))


class Mamba(nn.Module):
    """A selective scan, step by step over a fixed length."""

    def __init__(self, width: int = 24, state: int = 4) -> None:
        super().__init__()
        inner = 2 * width
        self.norm, self.up = nn.LayerNorm(width), nn.Linear(width, 2 * inner, bias=False)
        self.conv = nn.Conv1d(inner, inner, 4, padding=3, groups=inner)
        self.select, self.delta = nn.Linear(inner, 2 * state + 4, bias=False), nn.Linear(4, inner)
        self.log = nn.Parameter(torch.log(torch.arange(1.0, state + 1).repeat(inner, 1)))
        self.skip, self.down = nn.Parameter(torch.ones(inner)), nn.Linear(inner, width, bias=False)
        self.state = state

    def forward(self, x: Tensor) -> Tensor:
        """Return the sequence, mixed."""
        t = x.shape[1]
        u, gate = self.up(self.norm(x)).chunk(2, -1)
        u = F.silu(self.conv(u.transpose(1, 2))[:, :, :t].transpose(1, 2))
        step, b, c = self.select(u).split([4, self.state, self.state], -1)
        step = F.softplus(self.delta(step))
        decay = torch.exp(step[..., None] * -torch.exp(self.log))
        drive = (step * u)[..., None] * b[:, :, None]
        h, outs = torch.zeros_like(drive[:, 0]), []
        for i in range(t):
            h = decay[:, i] * h + drive[:, i]
            outs.append((h * c[:, i, None]).sum(-1))
        return x + self.down((torch.stack(outs, 1) + u * self.skip) * F.silu(gate))


class StyleLayer(nn.Module):
    """A modulated convolution with demodulation and one group per sample."""

    def __init__(self, a: int, b: int, style: int) -> None:
        super().__init__()
        self.weight, self.style = nn.Parameter(torch.randn(b, a, 3, 3) / math.sqrt(9 * a)), nn.Linear(style, a)
        self.noise, self.bias = nn.Parameter(torch.full((1,), 0.1)), nn.Parameter(torch.zeros(b))

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Return the layer's features."""
        n, a, h, w = x.shape
        weight = self.weight[None] * (1 + self.style(style))[:, None, :, None, None]
        weight = weight * torch.rsqrt(weight.pow(2).sum((2, 3, 4), keepdim=True) + 1e-8)
        x = F.conv2d(x.reshape(1, n * a, h, w), weight.reshape(-1, a, 3, 3), padding=1, groups=n)
        x = x.reshape(n, -1, h, w) + self.noise * torch.randn(n, 1, h, w, dtype=x.dtype, device=x.device)
        return F.leaky_relu(x + self.bias[:, None, None], 0.2)


class StyleGenerator(nn.Module):
    """A mapping of the latent and three modulated layers."""

    def __init__(self) -> None:
        super().__init__()
        self.mapping = nn.Sequential(nn.Linear(16, 32), nn.LeakyReLU(0.2), nn.Linear(32, 32), nn.LeakyReLU(0.2))
        self.start = nn.Parameter(torch.randn(1, 24, 4, 4))
        self.layers = nn.ModuleList([StyleLayer(24, 24, 32), StyleLayer(24, 16, 32), StyleLayer(16, 12, 32)])
        self.rgb = nn.Conv2d(12, 3, 1)

    def forward(self, z: Tensor) -> Tensor:
        """Return images."""
        style = self.mapping(z / z.norm(dim=1, keepdim=True))
        x = self.start.expand(z.shape[0], -1, -1, -1)
        for i, layer in enumerate(self.layers):
            x = layer(F.interpolate(x, scale_factor=2) if i else x, style)
        return self.rgb(x)


class CRNN(nn.Module):
    """Convolutions, then a bidirectional LSTM over columns."""

    def __init__(self) -> None:
        super().__init__()
        self.cnn = nn.Sequential(nn.Conv2d(1, 16, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, 1, 1),
                                 nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d((2, 1)))  # fmt: skip
        self.rnn, self.head = nn.LSTM(32 * 8, 24, 2, bidirectional=True), nn.Linear(48, 11)

    def forward(self, x: Tensor) -> Tensor:
        """Return log-probabilities by column."""
        x = self.cnn(x).flatten(1, 2).permute(2, 0, 1)
        return self.head(self.rnn(x)[0]).log_softmax(-1)


class TextCNN(nn.Module):
    """Convolutions of several widths over words."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(99, 24)
        self.convs = nn.ModuleList(nn.Conv2d(1, 20, (k, 24)) for k in (2, 3, 4))
        self.fc = nn.Linear(60, 4)

    def forward(self, ids: Tensor) -> Tensor:
        """Return scores."""
        x = self.embed(ids).unsqueeze(1)
        found = [F.relu(conv(x)).squeeze(3) for conv in self.convs]
        x = torch.cat([F.max_pool1d(f, f.size(2)).squeeze(2) for f in found], 1)
        return self.fc(F.dropout(x, 0.5, self.training))


class ConvLSTM(nn.Module):
    """A convolutional LSTM over four frames."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.width, self.gates, self.head = width, nn.Conv2d(3 + width, 4 * width, 3, 1, 1), nn.Conv2d(width, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the next frame."""
        b, t, _, h, w = x.shape
        hidden = cell = x.new_zeros(b, self.width, h, w)
        for i in range(t):
            gates = self.gates(torch.cat([x[:, i], hidden], 1))
            i_, f, o, g = gates.split(self.width, 1)
            cell = f.sigmoid() * cell + i_.sigmoid() * g.tanh()
            hidden = o.sigmoid() * cell.tanh()
        return self.head(hidden)


class KAN(nn.Module):
    """Radial splines on every edge."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("grid", torch.linspace(-2, 2, 5))
        self.first, self.second = nn.Parameter(torch.randn(6, 20, 5) * 0.3), nn.Parameter(torch.randn(20, 3, 5) * 0.3)
        self.base = nn.ModuleList([nn.Linear(6, 20), nn.Linear(20, 3)])

    def forward(self, x: Tensor) -> Tensor:
        """Return values."""
        for weight, base in zip((self.first, self.second), self.base, strict=True):
            basis = torch.exp(-((x[..., None] - self.grid) ** 2))
            x = torch.einsum("bik,iok->bo", basis, weight) + base(F.silu(x))
        return x


class DoRA(nn.Module):
    """Low-rank changes of frozen weights with a magnitude per column."""

    def __init__(self, a: int = 12, b: int = 24, rank: int = 4) -> None:
        super().__init__()
        self.base, self.head = nn.Linear(a, b), nn.Linear(b, 3)
        self.base.weight.requires_grad_(False)
        self.down, self.up = nn.Parameter(torch.randn(rank, a) * 0.3), nn.Parameter(torch.randn(b, rank) * 0.1)
        self.magnitude = nn.Parameter(self.base.weight.norm(dim=1, keepdim=True).clone())

    def forward(self, x: Tensor) -> Tensor:
        """Return scores."""
        weight = self.base.weight + self.up @ self.down
        weight = self.magnitude * weight / weight.norm(dim=1, keepdim=True)
        return self.head(F.relu(F.linear(x, weight, self.base.bias)))


class Retention(nn.Module):
    """Decays per head instead of a softmax, and a group norm of heads."""

    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.g = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.out, self.norm = nn.Linear(width, width, bias=False), nn.GroupNorm(heads, width)
        self.register_buffer("decay", torch.log(1 - 2.0 ** (-5 - torch.arange(heads, dtype=torch.float))))

    def forward(self, x: Tensor) -> Tensor:
        """Return the sequence, mixed."""
        b, t, c = x.shape
        q, k, v = (f(x).view(b, t, self.heads, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        place = torch.arange(t, device=x.device)
        gap = (place[:, None] - place[None]).to(x.dtype)
        mask = torch.exp(gap * self.decay[:, None, None]).masked_fill(gap < 0, 0.0)
        y = ((q @ k.transpose(-1, -2)) * mask) @ v
        y = self.norm(y.transpose(1, 2).reshape(b * t, c)).view(b, t, c)
        return x + self.out(F.silu(self.g(x)) * y)


class MADE(nn.Module):
    """Masked linear layers."""

    def __init__(self, size: int = 8, hidden: int = 32) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(size, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, size)
        degrees = [torch.arange(size), torch.arange(hidden) % (size - 1), torch.arange(hidden) % (size - 1)]
        self.register_buffer("m1", (degrees[1][:, None] >= degrees[0][None]).float())
        self.register_buffer("m2", (degrees[2][:, None] >= degrees[1][None]).float())
        self.register_buffer("m3", (degrees[0][:, None] > degrees[2][None]).float())

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of every entry given those before."""
        x = F.relu(F.linear(x, self.m1 * self.a.weight, self.a.bias))
        x = F.relu(F.linear(x, self.m2 * self.b.weight, self.b.bias))
        return F.linear(x, self.m3 * self.c.weight, self.c.bias)


class RealNVP(nn.Module):
    """Couplings with alternating masks and a log-determinant."""

    def __init__(self, size: int = 6, hidden: int = 24) -> None:
        super().__init__()
        self.nets = nn.ModuleList(
            nn.Sequential(nn.Linear(size, hidden), nn.ReLU(), nn.Linear(hidden, 2 * size)) for _ in range(4)
        )
        self.register_buffer("masks", torch.stack([(torch.arange(size) + i) % 2 for i in range(4)]).float())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the latent and the log-determinant."""
        total = x.new_zeros(x.shape[0])
        for mask, net in zip(self.masks, self.nets, strict=True):
            s, t = net(x * mask).chunk(2, -1)
            s = torch.tanh(s) * (1 - mask)
            x = mask * x + (1 - mask) * (x * s.exp() + t)
            total = total + s.sum(-1)
        return x, total


class NBeats(nn.Module):
    """Blocks that subtract what they explain."""

    def __init__(self, back: int = 16, ahead: int = 4, width: int = 32) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(back, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
                          nn.Linear(width, back + ahead)) for _ in range(3)
        )
        self.back, self.ahead = back, ahead

    def forward(self, x: Tensor) -> Tensor:
        """Return a forecast."""
        forecast = x.new_zeros(x.shape[0], self.ahead)
        for block in self.blocks:
            explained, ahead = block(x).split([self.back, self.ahead], -1)
            x, forecast = x - explained, forecast + ahead
        return forecast


class Highway(nn.Module):
    """Gates between a layer and its input."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(10, width), nn.Linear(width, 3)
        self.plain, self.gate = (nn.ModuleList(nn.Linear(width, width) for _ in range(3)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """Return scores."""
        x = self.first(x)
        for plain, gate in zip(self.plain, self.gate, strict=True):
            g = torch.sigmoid(gate(x))
            x = g * F.relu(plain(x)) + (1 - g) * x
        return self.head(x)


class EMACodebook(nn.Module):
    """A vector-quantised autoencoder with a straight-through gradient and a count of use in a buffer."""

    def __init__(self, width: int = 32, codes: int = 12, size: int = 8) -> None:
        super().__init__()
        self.enc = nn.Sequential(nn.Linear(20, width), nn.ReLU(), nn.Linear(width, size))
        self.dec = nn.Sequential(nn.Linear(size, width), nn.ReLU(), nn.Linear(width, 20))
        self.codes = nn.Parameter(torch.randn(codes, size))
        self.register_buffer("used", torch.zeros(codes))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the reconstruction and the commitment."""
        z = self.enc(x)
        distance = z.pow(2).sum(1, keepdim=True) - 2 * z @ self.codes.t() + self.codes.pow(2).sum(1)
        chosen = distance.argmin(1)
        q = F.embedding(chosen, self.codes)
        if self.training:
            self.used.mul_(0.99).add_(0.01 * F.one_hot(chosen, self.codes.shape[0]).sum(0).to(self.used.dtype))
        return self.dec(z + (q - z).detach()), (q - z.detach()).pow(2).mean() + 0.25 * (q.detach() - z).pow(2).mean()


class TokenMixer(nn.Module):
    """Patches mixed by perceptrons along both dimensions: Mixer-S, an eighth as wide."""

    def __init__(self, width: int = 64, patches: int = 16) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, 8, 8)
        self.layers = nn.ModuleList(
            nn.ModuleDict({
                "n1": nn.LayerNorm(width), "n2": nn.LayerNorm(width),
                "tokens": nn.Sequential(nn.Linear(patches, 32), nn.GELU(), nn.Linear(32, patches)),
                "channels": nn.Sequential(nn.Linear(width, 256), nn.GELU(), nn.Linear(256, width)),
            }) for _ in range(8)
        )  # fmt: skip
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return scores."""
        x = self.patch(x).flatten(2).transpose(1, 2)
        for layer in self.layers:
            x = x + layer["tokens"](layer["n1"](x).transpose(1, 2)).transpose(1, 2)
            x = x + layer["channels"](layer["n2"](x))
        return self.head(x.mean(1))


class ESPCN(nn.Module):
    """Super-resolution by a pixel shuffle."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 32, 5, padding=2), nn.Tanh(),
                                   nn.Conv2d(32, 24, 3, padding=1), nn.Tanh())  # fmt: skip
        self.last = nn.Conv2d(24, 9, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return an image three times as large."""
        return F.pixel_shuffle(self.last(self.first(x)), 3)


class CBAM(nn.Module):
    """Attention of channels, then of places."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, width, 3, 1, 1), nn.Conv2d(width, 5, 1)
        self.mlp = nn.Sequential(nn.Flatten(), nn.Linear(width, 8), nn.ReLU(), nn.Linear(8, width))
        self.place = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        """Return scores."""
        x = F.relu(self.a(x))
        gate = self.mlp(F.adaptive_avg_pool2d(x, 1)) + self.mlp(F.adaptive_max_pool2d(x, 1))
        x = x * torch.sigmoid(gate)[:, :, None, None]
        both = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], 1)
        return self.b(x * torch.sigmoid(self.place(both))).mean((2, 3))


class Diffusion(nn.Module):
    """A denoiser with embeddings of time and FiLM."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(16, 48), nn.SiLU(), nn.Linear(48, 48))
        self.first, self.last = nn.Conv2d(3, width, 3, 1, 1), nn.Conv2d(width, 3, 3, 1, 1)
        self.norms = nn.ModuleList(nn.GroupNorm(4, width) for _ in range(4))
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, 1, 1) for _ in range(4))
        self.films = nn.ModuleList(nn.Linear(48, 2 * width) for _ in range(2))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Return the noise."""
        angles = t[:, None] * torch.exp(-math.log(1e4) * torch.arange(8, device=t.device) / 8)
        time = self.time(torch.cat([angles.sin(), angles.cos()], -1).to(x.dtype))
        x = self.first(x)
        for i, film in enumerate(self.films):
            y = self.convs[2 * i](F.silu(self.norms[2 * i](x)))
            scale, shift = film(time)[:, :, None, None].chunk(2, 1)
            y = self.norms[2 * i + 1](y) * (1 + scale) + shift
            x = x + self.convs[2 * i + 1](F.silu(y))
        return self.last(x)


class DQN(nn.Module):
    """A duelling network over frames."""

    def __init__(self) -> None:
        super().__init__()
        self.cnn = nn.Sequential(nn.Conv2d(4, 16, 8, 4), nn.ReLU(), nn.Conv2d(16, 32, 4, 2), nn.ReLU(), nn.Flatten())
        self.value = nn.Sequential(nn.Linear(32 * 16, 48), nn.ReLU(), nn.Linear(48, 1))
        self.advantage = nn.Sequential(nn.Linear(32 * 16, 48), nn.ReLU(), nn.Linear(48, 6))

    def forward(self, x: Tensor) -> Tensor:
        """Return values of actions."""
        x = self.cnn(x / 255.0)
        a = self.advantage(x)
        return self.value(x) + a - a.mean(1, keepdim=True)


class Soft(nn.Module):
    """Experts by einsum, all of them for every sample."""

    def __init__(self, experts: int = 8, width: int = 16, inner: int = 24) -> None:
        super().__init__()
        self.gate = nn.Linear(width, experts)
        self.up = nn.Parameter(torch.randn(experts, width, inner) / 4)
        self.down = nn.Parameter(torch.randn(experts, inner, width) / 5)

    def forward(self, x: Tensor) -> Tensor:
        """Return the experts' weighted sum."""
        weights = self.gate(x).softmax(-1)
        y = torch.einsum("bei,eio->beo", F.gelu(torch.einsum("bw,ewi->bei", x, self.up)), self.down)
        return x + (weights[..., None] * y).sum(1)


def soft_twin(model: nn.Module, held: Experts) -> tuple[nn.Module, dict[str, str]]:
    """Return the network with some of the experts."""
    index = torch.as_tensor(held(""))
    fewer = Soft(len(index)).double()
    for (_, mine), (_, theirs) in zip(fewer.named_parameters(), model.named_parameters(), strict=True):
        mine.data = theirs.detach()[index].clone()
    return fewer, {}


class Transformer(nn.Module):
    """torch's own encoder and decoder."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(99, width), nn.Linear(width, 99)
        self.core = nn.Transformer(width, 4, 2, 2, 64, batch_first=True)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Return logits."""
        mask = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        return self.head(self.core(self.embed(source), self.embed(target), tgt_mask=mask, tgt_is_causal=True))


class Performer(nn.Module):
    """Attention by random features in a buffer."""

    def __init__(self, width: int = 32, heads: int = 4, features: int = 8) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.register_buffer("projection", torch.randn(features, width // heads))

    def forward(self, x: Tensor) -> Tensor:
        """Return the sequence, mixed."""
        b, t, c = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        q, k = (torch.exp(z @ self.projection.t() - z.pow(2).sum(-1, keepdim=True) / 2) for z in (q, k))
        y = q @ (k.transpose(-1, -2) @ v) / (q @ k.sum(2)[..., None])
        return x + self.out(y.transpose(1, 2).reshape(b, t, c))


class Grouped(nn.Module):
    """Keys and values shared by groups of heads with repeat_interleave, and rotary positions."""

    def __init__(self, width: int = 48, heads: int = 8, groups: int = 4) -> None:
        super().__init__()
        self.heads, self.groups, self.size = heads, groups, width // heads
        self.q, self.k = nn.Linear(width, width), nn.Linear(width, groups * self.size)
        self.v, self.out = nn.Linear(width, groups * self.size), nn.Linear(width, width)
        angles = torch.arange(24)[:, None] * 100.0 ** (-torch.arange(0, self.size, 2) / self.size)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def turned(self, x: Tensor) -> Tensor:
        """Turn pairs by their positions."""
        a, b = x[..., ::2], x[..., 1::2]
        cos, sin = self.cos[: x.shape[2]], self.sin[: x.shape[2]]
        return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sequence, mixed."""
        b, t, _ = x.shape
        q = self.q(x).view(b, t, self.heads, self.size).transpose(1, 2)
        k, v = (f(x).view(b, t, self.groups, self.size).transpose(1, 2) for f in (self.k, self.v))
        k, v = (z.repeat_interleave(self.heads // self.groups, dim=1) for z in (self.turned(k), v))
        y = F.scaled_dot_product_attention(self.turned(q), k, v, is_causal=True)
        return x + self.out(y.transpose(1, 2).reshape(b, t, -1))


def alexnet_cifar() -> nn.Module:
    """Return convolutions and a flattened head."""
    return nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.MaxPool2d(2),
                         nn.Conv2d(16, 48, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                         nn.Dropout(0.5), nn.Linear(48 * 16, 64), nn.ReLU(), nn.Linear(64, 10))  # fmt: skip


def _two(size: int, vocabulary: int = 99) -> Callable[[int, int], Call]:
    def make(batch: int, length: int) -> Call:
        return (torch.randint(0, vocabulary, (batch, length)), torch.randint(0, vocabulary, (batch, size))), {}

    return make


def _noisy(batch: int, size: int) -> Call:
    return (torch.randn(batch, 3, size, size), torch.arange(batch)), {}


def _rays(batch: int, size: int) -> Call:
    return (torch.randn(batch, 3), torch.randn(batch, 3)), {}


def _frames(batch: int, size: int) -> Call:
    return (torch.randn(batch, 4, 3, size, size),), {}


def _public(
    name: str, build: Callable[[], nn.Module], call: Callable[[int, int], Call], sizes: tuple[int, int]
) -> Public:
    return Public(name, "written out", build, call, sizes)


NETWORKS = (
    _public("nanoGPT, masks of -inf", NanoGPT, tokens(), (10, 14)),
    _public("heads in a list", Bigram, tokens(65), (10, 14)),
    _public("DCGAN generator", Generator, vectors(32), (1, 1)),
    _public("DCGAN discriminator, spectral norm", discriminator, images(), (32, 48)),
    _public("U-Net", UNet, images(), (32, 48)),
    _public("TCN, weight norm", TCN, signals(4), (16, 20)),
    _public("Seq2Seq, additive attention", Seq2Seq, _two(4), (8, 11)),
    _public("VAE", VAE, vectors(64), (1, 1)),
    _public("PointNet", PointNet, signals(3), (20, 28)),
    _public("SIREN", Siren, vectors(2), (1, 1)),
    _public("NeRF", NeRF, _rays, (1, 1)),
    _public("DeepFM", DeepFM, lambda batch, size: ((torch.randint(0, 20, (batch, 4)),), {}), (1, 1)),
    _public("Mamba block, unrolled", Mamba, sequences(24), (6, 6)),
    _public("StyleGAN2 generator", StyleGenerator, vectors(16), (1, 1)),
    _public("CRNN", CRNN, images(1), (32, 32)),
    _public("TextCNN", TextCNN, tokens(), (12, 16)),
    _public("ConvLSTM", ConvLSTM, _frames, (8, 12)),
    _public("KAN", KAN, vectors(6), (1, 1)),
    _public("DoRA", DoRA, vectors(12), (1, 1)),
    _public("RetNet block", Retention, sequences(32), (8, 11)),
    _public("MADE", MADE, vectors(8), (1, 1)),
    _public("RealNVP", RealNVP, vectors(6), (1, 1)),
    _public("N-BEATS", NBeats, vectors(16), (1, 1)),
    _public("highway network", Highway, vectors(10), (1, 1)),
    _public("VQ-VAE, counted codes", EMACodebook, vectors(20), (1, 1)),
    _public("MLP-Mixer", TokenMixer, images(), (32, 32)),
    _public("ESPCN", ESPCN, images(1), (12, 16)),
    _public("CBAM", CBAM, images(), (12, 16)),
    _public("diffusion denoiser, FiLM", Diffusion, _noisy, (12, 16)),
    _public("duelling DQN", DQN, images(4), (44, 44)),
    Public("experts by einsum", "written out", Soft, vectors(16), (1, 1), twin=soft_twin),
    _public("torch's Transformer", Transformer, _two(6), (8, 11)),
    _public("Performer attention", Performer, sequences(32), (8, 11)),
    _public("grouped rotary attention", Grouped, sequences(48), (8, 11)),
    _public("AlexNet for CIFAR", alexnet_cifar, images(), (32, 32)),
)
