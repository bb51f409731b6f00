"""What tracing, cutting, merging and a step of a subnetwork cost, as ratios measured in the same run.

    python benchmarks/nets_costs.py            # GPT-2 small on the meta device, a 100M-parameter transformer, a step
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import isthmus


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int, heads: int, inner: int, head_dim: int) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, head_dim
        self.n1, self.n2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * heads * head_dim), nn.Linear(heads * head_dim, width)
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        size = self.heads * self.head_dim
        fused = self.qkv(self.n1(x)).split(size, -1)
        q, k, v = (z.view(b, t, self.heads, self.head_dim).transpose(1, 2) for z in fused)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, t, size)
        x = x + self.out(y)
        return x + self.down(F.gelu(self.up(self.n2(x))))


class Transformer(nn.Module):
    """Blocks between an embedding and a head; heads and inner width may be smaller than usual."""

    def __init__(self, width: int, depth: int, heads: int, inner: int, head_dim: int, vocabulary: int) -> None:
        super().__init__()
        self.tok = nn.Embedding(vocabulary, width)
        self.blocks = nn.Sequential(*(Block(width, heads, inner, head_dim) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.tok(ids))))


def seconds(function: Callable[[], object], repeats: int = 5) -> float:
    """Return the shortest of several runs."""
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - start)
    return best


def trace_on_meta() -> None:
    """GPT-2 small: 124M parameters, none allocated."""
    with torch.device("meta"):
        model = Transformer(768, 12, 12, 3072, 64, 50257)
        ids = torch.zeros(2, 64, dtype=torch.long)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    coupling = isthmus.trace(model, (ids,))
    took = time.perf_counter() - start
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    count = sum(p.numel() for p in model.parameters()) / 1e6
    axes = len(coupling.cut_axes)
    print(f"trace on meta, {count:.0f}M parameters: {took:.1f} s, {grown:.0f} MB more, {axes} axes cut")


def cut_and_merge(workers: int = 4) -> None:
    """One round's cuts and merge against one copy of all bytes."""
    model = Transformer(768, 12, 12, 3072, 64, 10000)
    ids = torch.zeros(2, 16, dtype=torch.long)
    coupling = isthmus.trace(model, (ids,))
    partition = coupling.partition(workers, seed=0)
    targets = [torch.empty_like(p) for p in model.parameters()]

    def copy() -> None:
        for target, parameter in zip(targets, model.parameters(), strict=True):
            target.copy_(parameter.detach())

    def round_() -> None:
        parts = [isthmus.cut(model, coupling, partition, worker) for worker in range(workers)]
        isthmus.merge(model, parts)

    def one_worker() -> None:
        isthmus.merge(model, [isthmus.cut(model, coupling, partition, 0)])

    in_place, anew = seconds(copy), seconds(lambda: [p.detach().clone() for p in model.parameters()])
    one, everyone = seconds(one_worker), seconds(round_)
    count = sum(p.numel() for p in model.parameters()) / 1e6
    print(f"{count:.0f}M parameters: copy in place {in_place * 1e3:.0f} ms, to new memory {anew * 1e3:.0f} ms")
    for what, took in (("one worker's", one), (f"all {workers} workers'", everyone)):
        print(f"  {what} cut and merge: {took / in_place:.1f}x, {took / anew:.2f}x")


def step(workers: int = 4) -> None:
    """A training step of a subnetwork against the same small architecture written by hand."""
    model = Transformer(256, 4, 8, 1024, 32, 1000)
    ids = torch.randint(0, 1000, (8, 64))
    coupling = isthmus.trace(model, (ids,))
    sub = isthmus.cut(model, coupling, coupling.partition(workers, seed=0), 0).module.train()
    hand = Transformer(256, 4, 8 // workers, 1024 // workers, 32, 1000).train()

    def train(module: nn.Module) -> Callable[[], None]:
        optimizer = torch.optim.SGD(module.parameters(), lr=0.01)

        def run() -> None:
            optimizer.zero_grad()
            F.cross_entropy(module(ids).flatten(0, 1), ids.flatten()).backward()
            optimizer.step()

        return run

    ours, theirs = train(sub), train(hand)
    ours(), theirs()
    pairs = [(seconds(ours, 1), seconds(theirs, 1)) for _ in range(15)]
    a, b = (min(times) for times in zip(*pairs, strict=True))
    print(f"step of a subnetwork {a * 1e3:.1f} ms, by hand {b * 1e3:.1f} ms: {a / b:.3f}x")


if __name__ == "__main__":
    torch.set_num_threads(1)
    trace_on_meta()
    cut_and_merge()
    step()
