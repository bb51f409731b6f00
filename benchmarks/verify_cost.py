"""What it costs to verify a network before it is trained: seconds of CPU and memory, beside those of the trace.

python benchmarks/verify_cost.py
"""

from __future__ import annotations

import itertools
import multiprocessing
import resource
import time

import torch
from torch import Tensor, nn

import isthmus


class Block(nn.Module):
    """A residual block of two convolutions."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(inner, outer, 3, stride, 1, bias=False), nn.BatchNorm2d(outer), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(outer, outer, 3, 1, 1, bias=False), nn.BatchNorm2d(outer))
        self.skip: nn.Module = nn.Identity()
        if stride > 1 or inner != outer:
            self.skip = nn.Sequential(nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))

    def forward(self, x: Tensor) -> Tensor:
        """Add the branch."""
        return (self.second(self.first(x)) + self.skip(x)).relu()


class Transformer(nn.Module):
    """An encoder over tokens."""

    def __init__(self, width: int = 384, layers: int = 6, words: int = 5000, length: int = 256) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(words, width), nn.Linear(width, words)
        self.place = nn.Parameter(0.02 * torch.randn(length, width))
        layer = nn.TransformerEncoderLayer(width, 6, 4 * width, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        return self.head(self.encoder(self.embed(x) + self.place[: x.shape[1]]))


def resnet18() -> nn.Module:
    """Return a network of ResNet-18's sizes."""
    sizes = [(64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1)]
    sizes += [(128, 256, 2), (256, 256, 1), (256, 512, 2), (512, 512, 1)]
    stem = (nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
    return nn.Sequential(
        *stem, *(Block(*each) for each in sizes), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000)
    )


NETWORKS = {
    "ResNet-18, 224 x 224": (resnet18, lambda: torch.randn(8, 3, 224, 224)),
    "ResNet-18, 32 x 32": (resnet18, lambda: torch.randn(8, 3, 32, 32)),
    "transformer, 6 layers of 384, 256 tokens": (Transformer, lambda: torch.randint(5000, (8, 256))),
}


def measure(name: str) -> None:
    """Print a line about one network."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    make, inputs = NETWORKS[name]
    network, x = make(), inputs()
    size = sum(tensor.nbytes for tensor in network.state_dict().values())
    marks, peaks = [time.process_time()], []
    coupling = isthmus.trace(network, (x,))
    marks.append(time.process_time())
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)
    verdict = coupling.verify(network, (x,), quick=True)
    assert verdict.passed, verdict.summary()
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)
    marks.append(time.process_time())
    trace, quick = (after - before for before, after in itertools.pairwise(marks))
    print(
        f"{name}: {size / 1e6:.0f} MB; trace {trace:.1f} s, verify {quick:.1f} s, {peaks[1] - peaks[0]:.0f} MB more",
        flush=True,
    )


if __name__ == "__main__":
    for name in NETWORKS:  # each in a process of its own, for the sake of its peak
        process = multiprocessing.get_context("spawn").Process(target=measure, args=(name,))
        process.start()
        process.join()
