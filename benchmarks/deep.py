"""What tracing and cutting cost by depth: CPU seconds of trace, and of a cut against a copy of all tensors.

    python benchmarks/deep.py                       # transformers of 12, 24, 48, 96 and 192 thin blocks
    python benchmarks/deep.py --depths 12 24 48

The exponent is that of depth between neighbouring rows: 1 is linear. The first cut of new sizes makes their graphs;
later ones share them. "build" makes a module, as copy.deepcopy does; "rebuild" goes on with one, as training does every
round, and is compared with clones of all tensors. The least of some runs counts, 40 of what is short.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import isthmus
from isthmus.nets.pieces.subnetwork import rebuild


class Block(nn.Module):
    """A pre-norm transformer block of width 16 with 4 heads."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return attention, then a perceptron, each added to what it came from."""
        b, t, d = x.shape
        q, k, v = self.qkv(self.before(x)).view(b, t, 3, 4, d // 4).permute(2, 0, 3, 1, 4).unbind(0)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, t, d))
        return x + self.down(F.gelu(self.up(self.between(x))))


def network(depth: int) -> nn.Module:
    """Return a deep, thin network."""
    return nn.Sequential(nn.Linear(5, 16), *(Block() for _ in range(depth)), nn.Linear(16, 3))


def seconds(run: Callable[[], object], repeats: int = 1) -> float:
    """Return the least CPU seconds of some runs."""
    found = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        found.append(time.process_time() - start)
    return min(found)


def row(depth: int, last: tuple[int, float] | None) -> tuple[str, tuple[int, float]]:
    """Return a row of the table, and what its successor compares with."""
    model, x = network(depth), torch.randn(2, 6, 5)
    traced: list[isthmus.Coupling] = []
    spent = seconds(lambda: traced.append(isthmus.trace(model, (x,))))
    coupling = traced[0]
    exponent = math.log(spent / last[1]) / math.log(depth / last[0]) if last else math.nan
    partitions = [coupling.partition(4, 0, round) for round in range(80)]
    first = seconds(lambda: isthmus.cut(model, coupling, partitions[0], 0))
    later = iter(partitions[1:])
    built = seconds(lambda: isthmus.cut(model, coupling, next(later), 0), 20)
    sub = isthmus.cut(model, coupling, partitions[0], 0)
    again = seconds(lambda: rebuild(sub, model, coupling, next(later).of(0)), 40)
    tensors = [tensor.detach() for tensor in model.parameters()]
    clones = seconds(lambda: [tensor.clone() for tensor in tensors], 40)
    copied = seconds(lambda: copy.deepcopy(model), 5)
    shown = f"{depth:5d} {spent:8.1f} {exponent:9.2f} {1e3 * first:13.1f} {1e3 * built:9.1f} {1e3 * again:11.1f}"
    rest = f"{1e3 * clones:10.2f} {1e3 * copied:12.2f} {built / copied:15.2f} {again / clones:16.1f}"
    return f"{shown} {rest}", (depth, spent)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depths", type=int, nargs="+", default=[12, 24, 48, 96, 192])
    isthmus.trace(network(1), (torch.randn(2, 6, 5),))  # what is imported or made once
    print("depth  trace s  exponent  first cut ms  build ms  rebuild ms  clones ms  deepcopy ms  build/deepcopy  "
          "rebuild/clones")  # fmt: skip
    last = None
    for depth in parser.parse_args().depths:
        shown, last = row(depth, last)
        print(shown, flush=True)


if __name__ == "__main__":
    main()
