"""Random small networks of all kinds of operators, for the fuzzer."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Step = Callable[[list[Tensor]], Tensor]
WIDTHS = (4, 6, 8, 12)


class RandomProgram(nn.Module):
    """A few random operators on one input [batch, 6], then a linear layer on everything that came out."""

    def __init__(self, seed: int, steps: int = 9) -> None:
        super().__init__()
        self.random = random.Random(seed)
        self.weights = nn.ParameterList()
        self.norms = nn.ModuleList()
        self.steps: list[Step] = []
        self.names: list[str] = []
        torch.manual_seed(seed)
        example = [torch.randn(3, 6)]
        self._add("linear", example)
        while len(self.steps) < steps:
            self._add(self.random.choice(list(MAKERS)), example)
        last = example[-1].flatten(1)
        self.head = nn.Linear(last.shape[1], 3)

    def _add(self, name: str, example: list[Tensor]) -> None:
        try:
            step = MAKERS[name](self, example)
            result = None if step is None else step(example)
        except (RuntimeError, IndexError, ValueError):
            return
        if step is None or result is None or result.dim() < 2 or result.dim() > 5 or result.numel() > 4000:
            return
        if result.shape[0] != 3 or not result.isfinite().all():
            return
        self.steps.append(step)
        self.names.append(name)
        example.append(result.detach())

    def weight(self, *shape: int) -> Callable[[], Tensor]:
        self.weights.append(nn.Parameter(0.5 * torch.randn(*shape)))
        index = len(self.weights) - 1
        return lambda: self.weights[index]

    def buffer(self, values: Tensor) -> Callable[[], Tensor]:
        """Keep values that are not trained, persistent or not."""
        name = f"kept{len(self._buffers)}"
        self.register_buffer(name, values, persistent=self.random.random() < 0.5)
        return lambda: self._buffers[name]

    def norm(self, module: nn.Module) -> nn.Module:
        self.norms.append(module)
        return module

    def pick(self, example: list[Tensor]) -> int:
        """A value, mostly a recent one."""
        return len(example) - 1 - min(int(self.random.expovariate(1.0)), len(example) - 1)

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for step in self.steps:
            values.append(step(values))
        return self.head(values[-1].flatten(1))


class Batch(nn.Module):
    """Several programs side by side, so that one export serves them all."""

    def __init__(self, seeds: list[int]) -> None:
        super().__init__()
        self.programs = nn.ModuleList(RandomProgram(seed) for seed in seeds)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(program(x) for program in self.programs)


class Closed(Batch):
    """Several programs on values they learn instead of an input: all sizes are numbers, the batch may be cut too."""

    def __init__(self, seeds: list[int]) -> None:
        super().__init__(seeds)
        self.values = nn.Parameter(torch.randn(3, 6))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(program(self.values) * x for program in self.programs)


def _linear(p: RandomProgram, example: list[Tensor]) -> Step:
    i, out = p.pick(example), p.random.choice(WIDTHS)
    w, b = p.weight(out, example[i].shape[-1]), p.weight(out)
    return lambda v: F.linear(v[i], w(), b())


def _einsum(p: RandomProgram, example: list[Tensor]) -> Step | None:
    i, out = p.pick(example), p.random.choice(WIDTHS)
    if example[i].dim() != 3:
        return None
    w = p.weight(example[i].shape[1], example[i].shape[2], out)
    return lambda v: torch.einsum("bij,ijo->bo", v[i], w())


def _batched(p: RandomProgram, example: list[Tensor]) -> Step | None:
    i, out = p.pick(example), p.random.choice(WIDTHS)
    if example[i].dim() != 3:
        return None
    w = p.weight(example[i].shape[1], example[i].shape[2], out)
    return lambda v: torch.einsum("bij,ijo->bio", v[i], w())


def _activation(p: RandomProgram, example: list[Tensor]) -> Step:
    i = p.pick(example)
    gate, shift = (lambda x: x * torch.sigmoid(x)), (lambda x: x + 1.0)
    f = p.random.choice([torch.relu, torch.sigmoid, F.gelu, torch.tanh, gate, shift])
    return lambda v: f(v[i])


def _scale(p: RandomProgram, example: list[Tensor]) -> Step:
    i = p.pick(example)
    w = p.weight(*example[i].shape[1 if p.random.random() < 0.5 else -1 :])
    return lambda v: v[i] * w()


def _pair(p: RandomProgram, example: list[Tensor]) -> Step | None:
    i = p.pick(example)
    same = [j for j, other in enumerate(example) if other.shape == example[i].shape]
    j = p.random.choice(same)
    f = p.random.choice([torch.add, torch.mul, torch.sub, lambda a, b: torch.where(a > 0, a, b)])
    return lambda v: f(v[i], v[j])


def _cat(p: RandomProgram, example: list[Tensor]) -> Step | None:
    i = p.pick(example)
    dim = p.random.randrange(1, example[i].dim())
    shape = [s for d, s in enumerate(example[i].shape) if d != dim]
    fit = [j for j, o in enumerate(example) if o.dim() == example[i].dim()]
    fit = [j for j in fit if [s for d, s in enumerate(example[j].shape) if d != dim] == shape]
    j = p.random.choice(fit)
    return lambda v: torch.cat([v[i], v[j]], dim)


def _stack(p: RandomProgram, example: list[Tensor]) -> Step:
    i = p.pick(example)
    same = [j for j, other in enumerate(example) if other.shape == example[i].shape]
    j, dim = p.random.choice(same), p.random.randrange(1, example[i].dim() + 1)
    return lambda v: torch.stack([v[i], v[j]], dim)


def _chunk(p: RandomProgram, example: list[Tensor]) -> Step:
    i = p.pick(example)
    dim, count = p.random.randrange(1, example[i].dim()), p.random.choice([2, 3])
    which = p.random.choice([0, 1])
    return lambda v: v[i].chunk(count, dim)[which]


def _halves(p: RandomProgram, example: list[Tensor]) -> Step:
    i = p.pick(example)
    dim = p.random.randrange(1, example[i].dim())
    k = p.random.randrange(1, max(example[i].shape[dim], 2))
    f = p.random.choice([torch.add, torch.mul])

    def rotate(v: list[Tensor]) -> Tensor:
        a, b = v[i].split([k, v[i].shape[dim] - k], dim)
        return f(v[i], torch.cat([b, a], dim))

    return rotate


def _slice(p: RandomProgram, example: list[Tensor]) -> Step:
    i = p.pick(example)
    dim = p.random.randrange(1, example[i].dim())
    size = example[i].shape[dim]
    start = p.random.randrange(-size, size)
    return lambda v: v[i].narrow(dim, start, 1) if size == 1 else v[i].transpose(1, dim)[:, start:].transpose(1, dim)


def _fold(p: RandomProgram, example: list[Tensor]) -> Step | None:
    i = p.pick(example)
    size = example[i].shape[-1]
    inner = p.random.choice([k for k in (1, 2, 3, 4, 6) if size % k == 0])
    form = p.random.choice(["view", "unflatten"])
    if form == "unflatten":
        return lambda v: v[i].unflatten(-1, (size // inner, inner))
    lead = list(example[i].shape[1:-1])
    return lambda v: v[i].reshape(v[i].shape[0], *lead, size // inner, inner)


def _merge(p: RandomProgram, example: list[Tensor]) -> Step | None:
    i = p.pick(example)
    if example[i].dim() < 3:
        return None
    dim = p.random.randrange(1, example[i].dim() - 1)
    return lambda v: v[i].flatten(dim, dim + 1)


def _reshape(p: RandomProgram, example: list[Tensor]) -> Step:
    i = p.pick(example)
    total = example[i][0].numel()
    outer = p.random.choice([k for k in (2, 3, 4, 6, 8, 12) if total % k == 0])
    return lambda v: v[i].contiguous().view(-1, outer, total // outer)


def _transpose(p: RandomProgram, example: list[Tensor]) -> Step | None:
    i = p.pick(example)
    if example[i].dim() < 3:
        return None
    a, b = p.random.sample(range(1, example[i].dim()), 2)
    return lambda v: v[i].transpose(a, b)


def _repeat(p: RandomProgram, example: list[Tensor]) -> Step:
    i = p.pick(example)
    dim, count = p.random.randrange(1, example[i].dim()), p.random.choice([2, 3])
    counts = [count if d == dim else 1 for d in range(example[i].dim())]
    form = p.random.choice(["interleave", "sized", "repeat", "repeat"])
    if form == "interleave":
        return lambda v: v[i].repeat_interleave(count, dim)
    if form == "sized":
        return lambda v: v[i].repeat_interleave(count, dim, output_size=count * v[i].shape[dim])
    return lambda v: v[i].repeat(counts)


def _expand(p: RandomProgram, example: list[Tensor]) -> Step:
    i = p.pick(example)
    dim, count = p.random.randrange(1, example[i].dim() + 1), p.random.choice([1, 2, 4])
    shape = [-1] * (example[i].dim() + 1)
    shape[dim] = count
    return lambda v: v[i].unsqueeze(dim).expand(shape)


def _reduce(p: RandomProgram, example: list[Tensor]) -> Step | None:
    i = p.pick(example)
    if example[i].dim() < 3:
        return None
    dim, keep = p.random.randrange(1, example[i].dim()), p.random.random() < 0.5
    f = p.random.choice([torch.sum, torch.sum, torch.mean, torch.amax])
    return lambda v: f(v[i], dim, keepdim=keep)


def _order(p: RandomProgram, example: list[Tensor]) -> Step:
    i = p.pick(example)
    dim = p.random.randrange(1, example[i].dim())
    f = p.random.choice([torch.softmax, torch.cumsum, lambda x, d: x.flip(d), lambda x, d: x.roll(1, d)])
    return lambda v: f(v[i], dim)


def _norm(p: RandomProgram, example: list[Tensor]) -> Step | None:
    i = p.pick(example)
    size = example[i].shape[-1]
    if p.random.random() < 0.4:
        layer = p.norm(nn.LayerNorm(size))
        return lambda v: layer(v[i])
    channels = example[i].shape[1]
    if example[i].dim() == 2 or p.random.random() < 0.5:
        groups = p.random.choice([k for k in (1, 2, 3) if channels % k == 0])
        layer = p.norm(nn.GroupNorm(groups, channels))
    else:
        layer = p.norm({3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}[example[i].dim()](channels))
    return lambda v: layer(v[i])


def _attention(p: RandomProgram, example: list[Tensor]) -> Step | None:
    i = p.pick(example)
    if example[i].dim() not in (3, 4):
        return None
    # torch 2.13 on the CPU: batch_norm's backward is wrong for the permuted gradient of a fused attention of width 1
    normed = any(isinstance(norm, nn.modules.batchnorm._BatchNorm) for norm in p.norms)
    if p.random.random() < 0.5 and not normed:
        return lambda v: F.scaled_dot_product_attention(v[i], v[i], v[i])
    return lambda v: (v[i] @ v[i].transpose(-1, -2)) @ v[i]


def _convolve(p: RandomProgram, example: list[Tensor]) -> Step | None:
    i = p.pick(example)
    if example[i].dim() != 3:
        return None
    channels = example[i].shape[1]
    groups = p.random.choice([k for k in (1, 1, 2, 3, channels) if channels % k == 0])
    out = groups * p.random.choice([1, 2, 3])
    w, b = p.weight(out, channels // groups, 1), p.weight(out)
    if p.random.random() < 0.3:
        w = p.weight(channels, out // groups, 2)
        return lambda v: F.conv_transpose1d(v[i], w(), b(), groups=groups)
    return lambda v: F.conv1d(v[i], w(), b(), groups=groups)


def _pad(p: RandomProgram, example: list[Tensor]) -> Step:
    i = p.pick(example)
    a, b = p.random.choice([(1, 0), (0, 1), (2, 1)])
    return lambda v: F.pad(v[i], (a, b))


def _write(p: RandomProgram, example: list[Tensor]) -> Step:
    i = p.pick(example)
    half = max(example[i].shape[-1] // 2, 1)

    def write(v: list[Tensor]) -> Tensor:
        target = torch.zeros_like(v[i])
        target[..., :half] = v[i][..., -half:]
        return target + 0.5 * v[i]

    return write


def _in_place(p: RandomProgram, example: list[Tensor]) -> Step:
    """Write to a copy: numbers where a condition holds, every second place, one place, rows told by a buffer."""
    i = p.pick(example)
    dim = p.random.randrange(1, example[i].dim())
    size = example[i].shape[dim]
    form, place = p.random.choice(["fill", "steps", "one", "rows"]), p.random.randrange(size)
    rows = p.buffer(torch.randperm(size)[: max(size // 2, 1)]) if form == "rows" else None

    def write(v: list[Tensor]) -> Tensor:
        target = v[i].clone()
        if form == "fill":
            target.masked_fill_(target > 0.7, 0.3)
        elif form == "steps":
            target[..., ::2] = 2.0 * v[i][..., ::2]
        elif form == "one":
            target.select(dim, place).mul_(0.5)
        elif rows is not None:
            target.index_fill_(dim, rows(), 0.25)
        return target

    return write


def _masked(p: RandomProgram, example: list[Tensor]) -> Step | None:
    """Attention under a causal mask of -inf, or a softmax of which some entries are out."""
    i = p.pick(example)
    size = example[i].shape[-1]
    if example[i].dim() == 3:
        length = example[i].shape[1]
        mask = p.buffer(torch.full((length, length), -torch.inf).triu(1))
        return lambda v: (v[i] @ v[i].transpose(-1, -2) + mask()).softmax(-1) @ v[i]
    out = p.buffer(torch.where(torch.arange(size) % 3 == 2, -torch.inf, 0.0))
    return lambda v: (v[i] + out()).softmax(-1)


def _bounded(p: RandomProgram, example: list[Tensor]) -> Step:
    """Bounds by unit, some of them infinite, and the least value so far, at first infinite."""
    i = p.pick(example)
    size = example[i].shape[-1]
    bounds = p.buffer(torch.where(torch.arange(size) % 2 == 0, torch.inf, 0.5))
    least = p.buffer(torch.full((size,), torch.inf))

    def bound(v: list[Tensor]) -> Tensor:
        if p.training:
            with torch.no_grad():
                least().copy_(torch.minimum(least(), v[i].detach().flatten(0, -2).amin(0)))
        return torch.minimum(v[i], bounds())

    return bound


def _counted(p: RandomProgram, example: list[Tensor]) -> Step:
    """Whole numbers: of calls, and by unit of what was large."""
    i = p.pick(example)
    calls, large = p.buffer(torch.tensor(3)), p.buffer(torch.zeros(example[i].shape[-1], dtype=torch.long))

    def count(v: list[Tensor]) -> Tensor:
        if p.training:
            calls().add_(1)
            large().add_((v[i].detach().flatten(0, -2) > 0.6).sum(0))
        return v[i] / calls().clamp(min=1)

    return count


def _table(p: RandomProgram, example: list[Tensor]) -> Step:
    """Places told by whole numbers in a buffer, or how often each is repeated."""
    i = p.pick(example)
    dim = p.random.randrange(1, example[i].dim())
    size = example[i].shape[dim]
    if p.random.random() < 0.5:
        places = p.buffer(torch.randint(0, size, (p.random.choice([2, 4]),)))
        return lambda v: v[i].index_select(dim, places())
    repeats = p.buffer(torch.arange(size) % 2 + 1)
    total = int((torch.arange(size) % 2 + 1).sum())
    return lambda v: v[i].repeat_interleave(repeats(), dim, output_size=total)


def _experts(p: RandomProgram, example: list[Tensor]) -> Step | None:
    """A router and experts: a soft choice of all by einsum, the two best alone, or a loop over those chosen."""
    i = p.pick(example)
    if example[i].dim() != 2:
        return None
    count, width, out = p.random.choice([4, 6]), example[i].shape[-1], p.random.choice(WIDTHS)
    router, experts = p.weight(count, width), p.weight(count, out, width)
    form = p.random.choice(["soft", "best", "loop"])

    def choose(v: list[Tensor]) -> Tensor:
        scores = F.linear(v[i], router()).softmax(-1)
        if form == "soft":
            return torch.einsum("be,eow,bw->bo", scores, experts(), v[i])
        best, which = scores.topk(2, -1)
        best = best / best.sum(-1, keepdim=True)
        if form == "best":
            gates = torch.zeros_like(scores).scatter(-1, which, best)
            return torch.einsum("be,eow,bw->bo", gates, experts(), v[i])
        total = v[i].new_zeros(v[i].shape[0], out)
        for expert in range(count):
            weight = (best * (which == expert)).sum(-1, keepdim=True)
            total = total + weight * F.linear(v[i], experts()[expert])
        return total

    return choose


def _select(p: RandomProgram, example: list[Tensor]) -> Step | None:
    i = p.pick(example)
    if example[i].dim() < 3:
        return None
    dim = p.random.randrange(1, example[i].dim())
    form = p.random.choice(["select", "unbind", "index"])
    if form == "index":
        return lambda v: v[i].index_select(dim, torch.tensor([0, example[i].shape[dim] - 1]))
    if form == "unbind":
        return lambda v: v[i].unbind(dim)[0]
    return lambda v: v[i].select(dim, -1)


def _squeeze(p: RandomProgram, example: list[Tensor]) -> Step:
    i = p.pick(example)
    return lambda v: v[i].unsqueeze(1).squeeze(1) if example[i].dim() > 3 else v[i].unsqueeze(-1)


def _glu(p: RandomProgram, example: list[Tensor]) -> Step:
    i = p.pick(example)
    return lambda v: F.glu(v[i], -1)


MAKERS = {
    "linear": _linear, "einsum": _einsum, "batched": _batched, "activation": _activation, "scale": _scale,
    "pair": _pair, "cat": _cat, "stack": _stack, "chunk": _chunk, "halves": _halves, "slice": _slice, "fold": _fold,
    "merge": _merge, "reshape": _reshape, "transpose": _transpose, "repeat": _repeat, "expand": _expand,
    "reduce": _reduce, "order": _order, "norm": _norm, "attention": _attention, "convolve": _convolve, "pad": _pad,
    "write": _write, "in place": _in_place, "masked": _masked, "bounded": _bounded, "counted": _counted,
    "table": _table, "experts": _experts, "select": _select, "squeeze": _squeeze, "glu": _glu,
}  # fmt: skip
