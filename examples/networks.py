"""Networks to cut and train, in plain PyTorch: each function returns (network, args), args being an example call.

    isthmus inspect examples.networks:gpt
    isthmus train --model examples.networks:cnn --data idx:/usr/share/datasets/fashion-mnist

Nothing here knows of isthmus. For other sizes than the defaults, write a function of your own that calls one of these:
``def wide(): return gpt(width=256, heads=8)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def cnn(channels: Sequence[int] = (16, 32, 64), classes: int = 10) -> tuple[nn.Module, tuple[Tensor]]:
    """Three convolutions for 28 x 28 grey images, each with batch norm, ReLU and pooling, then a linear layer.

    The channels are cut; those of the last go, 3 x 3 positions each, into the linear layer.
    """
    layers: list[nn.Module] = []
    for before, after in pairwise((1, *channels)):
        layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        layers.append(nn.MaxPool2d(2))
    side = 28 >> len(channels)
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels[-1] * side * side, classes))
    return network, (torch.zeros(2, 1, 28, 28),)


class BasicBlock(nn.Module):
    """Two convolutions beside a path that skips them: relu(x + bn(conv(relu(bn(conv(x))))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        branch = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(x + branch)


def resnet(
    channels: Sequence[int] = (16, 32, 64), blocks: int = 4, classes: int = 10
) -> tuple[nn.Module, tuple[Tensor]]:
    """A residual network for 28 x 28 grey images: stages of equal blocks, each entered by a strided convolution.

    Inside a block the channels between its convolutions are cut (width); ``--cut block`` deals whole blocks (depth):
    all blocks of a stage have one shape, so that any of them can be left out.
    """
    layers: list[nn.Module] = []
    for before, after in pairwise((1, *channels)):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        layers += [BasicBlock(after) for _ in range(blocks)]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1], classes))
    return network, (torch.zeros(2, 1, 28, 28),)


class TransformerBlock(nn.Module):
    """Causal attention and a feed-forward layer, each on a normalised copy of the stream it adds to."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attend(self.norm1(x))
        return x + self.down(F.gelu(self.up(self.norm2(x))))

    def attend(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = (
            part.view(batch, length, self.heads, width // self.heads).transpose(1, 2)
            for part in self.qkv(x).split(width, dim=-1)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(mixed.transpose(1, 2).reshape(batch, length, width))


class GPT(nn.Module):
    """Tokens to the logits of what follows each of them; learned positions, norms before the layers."""

    def __init__(self, vocabulary: int, context: int, layers: int, width: int, heads: int) -> None:
        super().__init__()
        self.token, self.position = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.blocks = nn.ModuleList(TransformerBlock(width, heads) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:  # what is added to the stream starts smaller the more there is of it
                last = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(parameter, std=0.02 / (2 * layers) ** 0.5 if last else 0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.token(tokens) + self.position(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def gpt(
    layers: int = 4, width: int = 128, heads: int = 4, context: int = 64, vocabulary: int = 256
) -> tuple[nn.Module, tuple[Tensor]]:
    """A small GPT over bytes, for ``text:FILE``: the length of its example call is that of the windows of text.

    Heads and feed-forward units are cut; the stream, the embeddings and the norms stay whole. Fewer heads than workers
    (and heads that all of them share) are cut inside.
    """
    return GPT(vocabulary, context, layers, width, heads), (torch.zeros(2, context, dtype=torch.long),)


class GCN(nn.Module):
    """Graph convolutions (a linear layer on every node, a weighted sum over neighbours, ReLU), then a linear layer."""

    def __init__(self, features: int, hidden: Sequence[int], classes: int) -> None:
        super().__init__()
        widths = (features, *hidden, classes)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, features: Tensor, adjacency: Tensor) -> Tensor:
        *inner, last = self.layers
        for layer in inner:
            features = F.relu(adjacency @ layer(features))
        return last(features)


def gcn(
    hidden: Sequence[int] = (256, 256), nodes: int = 2000, features: int = 32, classes: int = 8
) -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    """A graph convolutional network for ``sbm``: features [N, F] and the normalised adjacency [N, N] to [N, classes].

    The hidden units are cut; the graph is whole on every worker.
    """
    return GCN(features, hidden, classes), (torch.zeros(nodes, features), torch.eye(nodes))
