"""Networks in the many styles people write them: what the tracer had not seen while it was built."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cases.networks import Network, image, sequence, tokens, vectors


class EinsumAttention(nn.Module):
    """Projections as tensors of three dimensions, an ellipsis, three operands at once."""

    def __init__(self, width: int = 16, heads: int = 4, inner: int = 5) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Parameter(0.3 * torch.randn(width, heads, inner)) for _ in range(3))
        self.o = nn.Parameter(0.3 * torch.randn(heads, inner, width))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (torch.einsum("btd,dhe->bhte", x, w) for w in (self.q, self.k, self.v))
        scores = torch.einsum("...te,...se->...ts", q, k).softmax(-1)
        return x + torch.einsum("bhts,bhse,hed->btd", scores, v, self.o)


class Rotary(nn.Module):
    """Rotations as complex numbers, or of interleaved pairs with grouped keys."""

    def __init__(self, complex_numbers: bool, width: int = 16, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.size, self.complex_numbers = heads, width // heads, complex_numbers
        groups = heads if complex_numbers else heads // 2
        self.q, self.kv = nn.Linear(width, width), nn.Linear(width, 2 * groups * self.size)
        self.o = nn.Linear(width, width)
        angles = torch.outer(torch.arange(32.0), 100.0 ** (-torch.arange(0, self.size, 2) / self.size))
        self.register_buffer("angles", angles, persistent=False)

    def rotate(self, x: Tensor) -> Tensor:
        angles = self.angles[: x.shape[-2]]
        if self.complex_numbers:
            turns = torch.polar(torch.ones_like(angles), angles)
            return torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2))) * turns).flatten(-2)
        a, b = x.reshape(*x.shape[:-1], -1, 2).unbind(-1)
        swapped = torch.stack((-b, a), -1).flatten(-2)
        angles = angles.repeat_interleave(2, -1)
        return x * angles.cos() + swapped * angles.sin()

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q = self.q(x).view(b, t, self.heads, self.size).transpose(1, 2)
        k, v = self.kv(x).view(b, t, 2, -1, self.size).permute(2, 0, 3, 1, 4)
        q, k = self.rotate(q), self.rotate(k)
        k, v = (z.repeat_interleave(self.heads // z.shape[1], dim=1) for z in (k, v))
        mask = torch.ones(t, t, dtype=torch.bool, device=x.device).triu(1)
        scores = (q @ k.mT / self.size**0.5).masked_fill(mask, float("-inf")).softmax(-1)
        return x + self.o((scores @ v).transpose(1, 2).contiguous().view(b, t, -1))


class RelativeShift(nn.Module):
    """Transformer-XL's positions: a padded table of scores read with a shift per row."""

    def __init__(self, width: int = 12, heads: int = 3) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.place = nn.Linear(width, width, bias=False)
        self.u, self.w = (nn.Parameter(torch.randn(heads, width // heads)) for _ in range(2))

    def split(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], -1, self.heads, x.shape[-1] // self.heads)

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        steps = torch.arange(2 * t - 1, device=x.device)[:, None] * torch.exp(-torch.arange(d).float())
        q, k, v = (self.split(f(x)) for f in (self.q, self.k, self.v))
        p = self.split(self.place(steps.sin()[None]))
        shifted = (q + self.w).transpose(1, 2) @ p.permute(0, 2, 3, 1)
        shifted = F.pad(shifted, (1, 0)).view(b, self.heads, -1, t)[:, :, 1:].view(b, self.heads, t, -1)[..., :t]
        scores = (q + self.u).transpose(1, 2) @ k.permute(0, 2, 3, 1) + shifted
        return x + self.o((scores.softmax(-1) @ v.transpose(1, 2)).transpose(1, 2).reshape(b, t, d))


class Windows(nn.Module):
    """Swin's: attention within windows of an image, a table of biases, a mask per window."""

    def __init__(self, width: int = 8, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.patch, self.qkv, self.o = nn.Conv2d(3, width, 2, 2), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.table = nn.Parameter(torch.randn(9, heads))
        grid = torch.stack(torch.meshgrid(torch.arange(2), torch.arange(2), indexing="ij")).flatten(1)
        offsets = (grid[:, :, None] - grid[:, None]) + 1
        self.register_buffer("index", offsets[0] * 3 + offsets[1])
        self.register_buffer("mask", -100.0 * torch.randint(0, 2, (4, 4, 4)).float())

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).permute(0, 2, 3, 1)
        b, h, w, c = x.shape
        y = x.roll((-1, -1), (1, 2)).view(b, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, c)
        q, k, v = self.qkv(y).reshape(-1, 4, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        scores = q @ k.mT + self.table[self.index.view(-1)].view(4, 4, -1).permute(2, 0, 1)
        scores = scores.view(b, -1, self.heads, 4, 4) + self.mask[:, None]
        y = self.o((scores.view(-1, self.heads, 4, 4).softmax(-1) @ v).transpose(1, 2).reshape(-1, 4, c))
        return x + y.view(b, h // 2, w // 2, 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, c)


class EncoderDecoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net, self.out = nn.Transformer(16, 4, 1, 1, 24, batch_first=True), nn.Linear(16, 3)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        return self.out(self.net(source, target, tgt_mask=mask, tgt_is_causal=True))


class LinearAttention(nn.Module):
    def __init__(self, width: int = 16, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(-1, (self.heads, -1)) for f in (self.q, self.k, self.v))
        q, k = F.elu(q) + 1, F.elu(k) + 1
        memory = torch.einsum("bthd,bthe->bthde", k, v).cumsum(1)
        scale = 1 / torch.einsum("bthd,bthd->bth", q, k.cumsum(1))
        return x + self.o(torch.einsum("bthd,bthde,bth->bthe", q, memory, scale).flatten(2))


class SelectiveScan(nn.Module):
    """Mamba's block, the scan as a loop."""

    def __init__(self, width: int = 12, inner: int = 10, state: int = 4, rank: int = 2) -> None:
        super().__init__()
        self.state, self.rank = state, rank
        self.inp, self.out = nn.Linear(width, 2 * inner, bias=False), nn.Linear(inner, width, bias=False)
        self.conv = nn.Conv1d(inner, inner, 3, groups=inner, padding=2)
        self.select, self.step = nn.Linear(inner, rank + 2 * state, bias=False), nn.Linear(rank, inner)
        self.a = nn.Parameter(torch.arange(1.0, state + 1).log().repeat(inner, 1))
        self.skip = nn.Parameter(torch.ones(inner))

    def forward(self, x: Tensor) -> Tensor:
        u, gate = self.inp(x).chunk(2, -1)
        u = F.silu(self.conv(u.mT)[..., : x.shape[1]]).mT
        step, b, c = self.select(u).split([self.rank, self.state, self.state], -1)
        step = F.softplus(self.step(step))
        decay = torch.exp(torch.einsum("bld,dn->bldn", step, -self.a.exp()))
        add = torch.einsum("bld,bln,bld->bldn", step, b, u)
        h, ys = torch.zeros(x.shape[0], u.shape[-1], self.state, device=x.device), []
        for t in range(4):
            h = decay[:, t] * h + add[:, t]
            ys.append(torch.einsum("bdn,bn->bd", h, c[:, t]))
        return x[:, :4] + self.out((torch.stack(ys, 1) + u[:, :4] * self.skip) * F.silu(gate[:, :4]))


class WaveNet(nn.Module):
    def __init__(self, channels: int = 8, inner: int = 6) -> None:
        super().__init__()
        self.inp = nn.Conv1d(2, channels, 1)
        self.dilated = nn.ModuleList(nn.Conv1d(channels, 2 * inner, 2, dilation=2**i) for i in range(2))
        self.residual = nn.ModuleList(nn.Conv1d(inner, channels, 1) for _ in range(2))
        self.skip = nn.ModuleList(nn.Conv1d(inner, 10, 1) for _ in range(2))
        self.out = nn.Conv1d(10, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x, total = self.inp(x), 0
        for i, (dilated, residual, skip) in enumerate(zip(self.dilated, self.residual, self.skip, strict=True)):
            f, g = dilated(F.pad(x, (2**i, 0))).chunk(2, 1)
            z = f.tanh() * g.sigmoid()
            total, x = total + skip(z), x + residual(z)
        return self.out(F.relu(total))


class InvertedSE(nn.Module):
    """EfficientNet's block: depthwise, squeeze and excitation, stochastic depth by a mask drawn in forward."""

    def __init__(self, width: int = 8, inner: int = 16) -> None:
        super().__init__()
        self.up, self.down = nn.Conv2d(width, inner, 1, bias=False), nn.Conv2d(inner, width, 1, bias=False)
        self.depth, self.norm = nn.Conv2d(inner, inner, 3, padding=1, groups=inner), nn.BatchNorm2d(inner)
        self.squeeze, self.excite = nn.Conv2d(inner, 4, 1), nn.Conv2d(4, inner, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.silu(self.norm(self.depth(F.silu(self.up(x)))))
        y = self.down(y * self.excite(F.silu(self.squeeze(F.adaptive_avg_pool2d(y, 1)))).sigmoid())
        if self.training:
            y = y / 0.8 * torch.empty(x.shape[0], 1, 1, 1, device=x.device).bernoulli_(0.8)
        return x + y


class Pyramid(nn.Module):
    """Features at several sizes, shared heads, a dictionary of lists."""

    def __init__(self) -> None:
        super().__init__()
        self.c1, self.c2 = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 12, 3, 2, 1)
        self.l1, self.l2 = nn.Conv2d(8, 10, 1), nn.Conv2d(12, 10, 1)
        self.box = nn.Sequential(nn.Conv2d(10, 9, 3, padding=1), nn.PReLU(9), nn.Conv2d(9, 4, 1))

    def forward(self, x: Tensor) -> dict[str, list[Tensor]]:
        a = self.c1(x).relu()
        b = self.c2(a).relu()
        top = self.l2(b)
        levels = [self.l1(a) + F.interpolate(top, size=a.shape[-2:], mode="nearest"), top]
        return {"boxes": [self.box(level).permute(0, 2, 3, 1).flatten(1, 2) for level in levels]}


class Branches(nn.Module):
    """Inception's concatenation, then attention over channels and over places."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(3, 5, 1)
        self.mix = nn.Sequential(nn.Flatten(), nn.Linear(15, 4), nn.ReLU(), nn.Linear(4, 15))
        self.places, self.out = nn.Conv2d(2, 1, 3, padding=1), nn.Conv2d(15, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.a(x), self.b(x), self.c(F.max_pool2d(x, 3, 1, 1))], 1)
        weights = self.mix(F.adaptive_avg_pool2d(x, 1)) + self.mix(F.adaptive_max_pool2d(x, 1))
        x = x * weights.sigmoid()[..., None, None].expand_as(x)
        return self.out(x).amax((2, 3)) + self.places(torch.stack([x.max(1)[0], x.mean(1)], 1)).mean()


class Variational(nn.Module):
    """An autoencoder with noise in the middle and the encoder's matrix, transposed, in its decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.back = nn.Parameter(0.2 * torch.randn(10, 12)), nn.Linear(4, 10)
        self.mean, self.spread = nn.Linear(10, 4), nn.Linear(10, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = F.linear(x, self.w).relu()
        mean, std = self.mean(h), (0.5 * self.spread(h)).exp()
        z = mean + std * torch.randn_like(std)
        return F.linear(self.back(z).relu(), self.w.t()), mean


class Modulated(nn.Module):
    """A condition makes scales and shifts of channels, and a whole matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv1d(3, 8, 3), nn.BatchNorm1d(8, affine=False)
        self.film = nn.Sequential(nn.Linear(5, 10), nn.ReLU(), nn.Linear(10, 16))
        self.made, self.out = nn.Linear(5, 8 * 6), nn.Linear(6, 2)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        scale, shift = self.film(z).chunk(2, -1)
        y = F.relu((1 + scale)[..., None] * self.norm(self.conv(x)) + shift.unsqueeze(-1)).mean(-1)
        return self.out(torch.bmm(self.made(z).view(-1, 6, 8), y[..., None]).squeeze(2).relu())


class Spectral(nn.Module):
    """A Fourier neural operator: a few frequencies, complex weights, written into zeros."""

    def __init__(self, width: int = 6, modes: int = 3) -> None:
        super().__init__()
        self.modes = modes
        self.inp, self.out = nn.Linear(2, width), nn.Linear(width, 1)
        self.w = nn.Parameter(0.3 * torch.randn(width, 8, modes, dtype=torch.cfloat))
        self.local, self.mix = nn.Conv1d(width, 8, 1), nn.Conv1d(8, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inp(x).mT
        found = torch.fft.rfft(x)
        kept = torch.zeros(x.shape[0], 8, x.shape[-1] // 2 + 1, dtype=torch.cfloat, device=x.device)
        kept[:, :, : self.modes] = torch.einsum("bix,iox->box", found[:, :, : self.modes], self.w)
        return self.out(self.mix(F.gelu(torch.fft.irfft(kept, n=x.shape[-1]) + self.local(x))).mT)


class Messages(nn.Module):
    """Message passing along edges, attention over the edges of a node, a recurrent update."""

    def __init__(self) -> None:
        super().__init__()
        self.message, self.score = nn.Linear(12, 10), nn.Linear(12, 2)
        self.update, self.out = nn.GRUCell(10, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        source, target = edges
        pairs = torch.cat([x[source], x.index_select(0, target)], -1)
        scores = F.leaky_relu(self.score(pairs), 0.2)
        place = target[:, None].expand_as(scores)
        low = torch.full((x.size(0), 2), -1e30, device=x.device)
        scores = (scores - low.scatter_reduce(0, place, scores, "amax")[target]).exp()
        weights = scores / torch.zeros_like(low).scatter_add_(0, place, scores)[target]
        messages = (self.message(pairs).relu().view(-1, 2, 5) * weights[..., None]).flatten(1)
        return self.out(self.update(torch.zeros(x.size(0), 10).index_add_(0, target, messages), x))


class Splines(nn.Module):
    """A Kolmogorov-Arnold layer: a B-spline per edge."""

    def __init__(self, inputs: int, outputs: int, cells: int = 3, order: int = 2) -> None:
        super().__init__()
        self.order = order
        grid = torch.arange(-order, cells + order + 1) * 2.0 / cells - 1
        self.register_buffer("grid", grid.expand(inputs, -1).contiguous())
        self.base = nn.Parameter(0.3 * torch.randn(outputs, inputs))
        self.spline = nn.Parameter(0.3 * torch.randn(outputs, inputs, cells + order))

    def forward(self, x: Tensor) -> Tensor:
        g, y = self.grid, x.unsqueeze(-1)
        b = ((y >= g[:, :-1]) & (y < g[:, 1:])).to(x.dtype)
        for k in range(1, self.order + 1):
            left = (y - g[:, : -(k + 1)]) / (g[:, k:-1] - g[:, : -(k + 1)])
            right = (g[:, k + 1 :] - y) / (g[:, k + 1 :] - g[:, 1:-k])
            b = left * b[:, :, :-1] + right * b[:, :, 1:]
        return F.linear(F.silu(x), self.base) + F.linear(b.flatten(1), self.spline.flatten(1))


class Recommender(nn.Module):
    """Bags of categories and a vector of numbers, multiplied in pairs."""

    def __init__(self) -> None:
        super().__init__()
        self.bags = nn.ModuleList(nn.EmbeddingBag(11, 8, mode="sum") for _ in range(2))
        self.bottom = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 8))
        self.top, self.cross = nn.Sequential(nn.Linear(11, 10), nn.ReLU(), nn.Linear(10, 1)), nn.Bilinear(8, 8, 5)
        self.last = nn.Linear(5, 1)

    def forward(self, ids: Tensor, x: Tensor) -> Tensor:
        y = self.bottom(x)
        found = [bag(part) for bag, part in zip(self.bags, ids.split(2, 1), strict=False)]
        z = torch.stack([y, *found], 1)
        i, j = torch.tril_indices(3, 3, -1)
        products = torch.bmm(z, z.mT)[:, i, j]
        return self.top(torch.cat([y, products], 1)) + self.last(self.cross(y, found[0]).relu())


class Capsules(nn.Module):
    """Routing by agreement: a softmax over capsules, three rounds."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.primary = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3, 2)
        self.w = nn.Parameter(0.1 * torch.randn(1, 16, 3, 5, 4))

    def forward(self, x: Tensor) -> Tensor:
        u = self.primary(self.conv(x).relu()).view(x.shape[0], 4, 4, -1).transpose(2, 3).reshape(x.shape[0], -1, 4)
        votes = (self.w @ u[:, :, None, :, None]).squeeze(-1)
        logits = torch.zeros(x.shape[0], u.shape[1], 3, 1)
        for _ in range(2):
            v = (logits.softmax(2) * votes).sum(1, keepdim=True)
            v = v / (1 + v.square().sum(-1, keepdim=True))
            logits = logits + (votes * v).sum(-1, keepdim=True)
        return v.squeeze(1).norm(dim=-1)


class Involution(nn.Module):
    """A kernel per place, applied to unfolded windows; then an image warped by a predicted map."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.kernel, self.out = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 18, 1), nn.Conv2d(8, 4, 1)
        self.warp = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 6))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        b, c, h, w = y.shape
        kernel = self.kernel(y).view(b, 2, 1, 9, h, w)
        y = (kernel * F.unfold(y, 3, padding=1).view(b, 2, c // 2, 9, h, w)).sum(3).view(b, c, h, w)
        grid = F.affine_grid(self.warp(x).view(-1, 2, 3), [b, c, h, w], align_corners=False)
        return self.out(F.grid_sample(y, grid, align_corners=False))


class Memory(nn.Module):
    """A recurrent controller that reads and erases a memory by cosine similarity."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.key, self.out = nn.LSTMCell(11, 8), nn.Linear(8, 5), nn.Linear(13, 3)
        self.memory = nn.Parameter(torch.randn(7, 5))

    def forward(self, x: Tensor) -> Tensor:
        memory = self.memory.expand(x.shape[0], -1, -1)
        h = c = x.new_zeros(x.shape[0], 8)
        read, results = x.new_zeros(x.shape[0], 5), []
        for t in range(3):
            h, c = self.cell(torch.cat([x[:, t], read], -1), (h, c))
            weights = F.cosine_similarity(self.key(h)[:, None], memory, dim=-1).softmax(-1)
            read = (weights[..., None] * memory).sum(1)
            memory = memory * (1 - weights[..., None] * self.key(h).sigmoid()[:, None])
            results.append(self.out(torch.cat([h, read], -1)))
        return torch.stack(results, 1)


class Points(nn.Module):
    """A predicted rotation, the maximum over points, maxout units, local and global features joined."""

    def __init__(self) -> None:
        super().__init__()
        self.turn, self.a, self.b = nn.Linear(3, 9), nn.Conv1d(3, 8, 1), nn.Conv1d(8, 30, 1)
        self.norm, self.each = nn.BatchNorm1d(10), nn.Conv1d(18, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        turn = self.turn(x.mean(1)).view(-1, 3, 3) + torch.eye(3)
        local = self.a(torch.bmm(x, turn).mT).relu()
        units = self.norm(self.b(local).unflatten(1, (10, 3)).max(2).values)
        return self.each(torch.cat([local, units.amax(2, keepdim=True).repeat(1, 1, x.shape[1])], 1)).log_softmax(1)


class Averaging(nn.Module):
    """A norm by hand: statistics updated in place without gradient, weights standardised, a fourth-order step."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.f, self.out = nn.Linear(6, 8), nn.Linear(9, 8), nn.Linear(8, 2)
        self.register_buffer("mean", torch.zeros(8))

    def rate(self, t: float, x: Tensor) -> Tensor:
        return self.f(torch.cat([x, x.new_full((x.shape[0], 1), t)], 1)).tanh()

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        if self.training:
            with torch.no_grad():
                self.mean.mul_(0.9).add_(0.1 * x.mean(0))
        x = x - self.mean
        for t in (0.0, 0.5):
            k1 = self.rate(t, x)
            x = x + 0.5 * self.rate(t + 0.25, x + 0.25 * k1)
        return self.out(x)


class SameNames(nn.Module):
    """Two residual branches of one submodule: their blocks have one name."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.ModuleDict({k: nn.Linear(6, 6) for k in "abcd"})

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.layer["b"](self.layer["a"](x).relu())
        return x + self.layer["d"](self.layer["c"](x).tanh())


def generator() -> nn.Module:
    """DCGAN's: transposed convolutions."""
    return nn.Sequential(
        nn.ConvTranspose2d(10, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(True),
        nn.ConvTranspose2d(8, 8, 4, 2, 1, groups=4), nn.ReLU(True), nn.ConvTranspose2d(8, 3, 4, 2, 1), nn.Tanh(),
    )  # fmt: skip


def super_resolution() -> nn.Module:
    """Sub-pixel convolution."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, 24, 3, padding=1), nn.PixelShuffle(2), nn.PReLU(6),
        nn.Conv2d(6, 3, 3, padding=1),
    )  # fmt: skip


def weight_normed() -> nn.Module:
    norm = nn.utils.parametrizations.weight_norm
    return nn.Sequential(norm(nn.Linear(6, 8)), nn.ELU(), norm(nn.Linear(8, 7)), nn.ELU(), nn.Linear(7, 3))


def _two(batch: int) -> tuple[Tensor, ...]:
    return torch.randn(batch, 3, 9), torch.randn(batch, 5)


def _pair(batch: int) -> tuple[Tensor, ...]:
    return torch.randn(batch, 6, 16), torch.randn(batch, 5, 16)


def _edges(batch: int) -> tuple[Tensor, ...]:
    return torch.randn(6 + batch, 6), torch.randint(0, 6 + batch, (2, 20))


def _categories(batch: int) -> tuple[Tensor, ...]:
    return *tokens(length=4)(batch), torch.randn(batch, 6)


CHANNEL, HEAD = ("channel",), ("head",)

UNSEEN = [
    Network("einsum attention", EinsumAttention, sequence(16), kinds=HEAD),
    Network("rotary, complex", lambda: Rotary(True), sequence(16), kinds=HEAD),
    Network("rotary, interleaved", lambda: Rotary(False), sequence(16), kinds=HEAD),
    Network("relative shift", RelativeShift, sequence(12), kinds=HEAD),
    Network("windows", Windows, image(), kinds=HEAD),
    Network("nn.Transformer", EncoderDecoder, _pair, kinds=("head", "ffn")),
    Network("linear attention", LinearAttention, sequence(16), kinds=HEAD),
    Network("selective scan", SelectiveScan, sequence(12), kinds=()),
    Network("wavenet", WaveNet, lambda batch: (torch.randn(batch, 2, 9),), kinds=CHANNEL),
    Network("inverted, squeezed", InvertedSE, image(8), kinds=CHANNEL),
    Network("pyramid", Pyramid, image(), kinds=CHANNEL),
    Network("branches", Branches, image(), kinds=("hidden",)),
    Network("generator", generator, image(10, 1), kinds=CHANNEL),
    Network("super-resolution", super_resolution, image(), kinds=CHANNEL),
    Network("variational", Variational, vectors(12)),
    Network("modulated", Modulated, _two),
    Network("spectral", Spectral, sequence(2, 8), kinds=CHANNEL),
    Network("messages", Messages, _edges, kinds=()),
    Network("splines", lambda: nn.Sequential(Splines(4, 6), nn.Tanh(), Splines(6, 2)), vectors(4)),
    Network("recommender", Recommender, _categories),
    Network("capsules", Capsules, image(), kinds=CHANNEL),
    Network("involution", Involution, image(), kinds=CHANNEL),
    Network("memory", Memory, sequence(6)),
    Network("points", Points, sequence(3, 9), kinds=CHANNEL),
    Network("averaging", Averaging, vectors(6), kinds=()),
    Network("blocks of one name", SameNames, vectors(6), kinds=("ffn",)),
    Network("weight norm", weight_normed, vectors(6), kinds=()),
]
"""Networks in styles of their own; ``kinds`` are the kinds of axes that must be cut by default (none: on request)."""
