"""Networks for graphs, of PyTorch Geometric's layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric import nn as graph_nn
from torch_geometric.nn import models

from zoo.public import Public, graph

WIDTH, INNER, CLASSES = 12, 32, 5


class Layers(nn.Module):
    """Two layers of one kind, with an activation between."""

    def __init__(self, layer: Callable[[int, int], nn.Module], inner: int = INNER) -> None:
        super().__init__()
        self.first, self.second = layer(WIDTH, inner), layer(inner, inner)
        self.head = nn.Linear(inner, CLASSES)

    def forward(self, x: Tensor, *edges: Tensor) -> Tensor:
        """Return scores of nodes."""
        x = F.relu(self.first(x, *edges))
        return self.head(F.dropout(F.relu(self.second(x, *edges)), 0.2, self.training))


class Heads(nn.Module):
    """Two attention layers of several heads."""

    def __init__(self, layer: Any, **kwargs: Any) -> None:
        super().__init__()
        self.first, self.second = layer(WIDTH, 8, heads=4, **kwargs), layer(32, 8, heads=4, **kwargs)
        self.head = nn.Linear(32, CLASSES)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        """Return scores of nodes."""
        return self.head(F.elu(self.second(F.elu(self.first(x, edges)), edges)))


class Deep(nn.Module):
    """GCNII: every layer also looks at the first."""

    def __init__(self, depth: int = 4) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(WIDTH, INNER), nn.Linear(INNER, CLASSES)
        self.layers = nn.ModuleList(
            graph_nn.GCN2Conv(INNER, 0.1, 0.5, i + 1, add_self_loops=False) for i in range(depth)
        )

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        """Return scores of nodes."""
        start = x = F.relu(self.first(x))
        for layer in self.layers:
            x = F.relu(layer(x, start, edges))
        return self.head(x)


class WholeGraphs(nn.Module):
    """GIN with a sum over all nodes."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            graph_nn.GINConv(models.MLP([a, INNER, INNER], norm="batch_norm"), train_eps=True) for a in (WIDTH, INNER)
        )
        self.head = nn.Linear(INNER, CLASSES)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        """Return scores of nodes, each with what the graph adds."""
        for layer in self.layers:
            x = F.relu(layer(x, edges))
        return self.head(x + x.sum(0, keepdim=True))


class Edges(nn.Module):
    """Messages made of both ends by a perceptron (EdgeConv)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = graph_nn.EdgeConv(models.MLP([2 * WIDTH, INNER, INNER], norm=None), aggr="max")
        self.second = graph_nn.EdgeConv(models.MLP([2 * INNER, INNER, INNER], norm=None), aggr="mean")
        self.head = nn.Linear(INNER, CLASSES)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        """Return scores of nodes."""
        return self.head(self.second(self.first(x, edges), edges))


def _public(name: str, build: Callable[[], nn.Module], *more: Callable[[int], Tensor]) -> Public:
    return Public(f"pyg {name}", "torch_geometric", build, graph(WIDTH, *more), (40, 56))


def _plain(name: str, **kwargs: Any) -> Public:
    layer = getattr(graph_nn, name)
    return _public(name, lambda: Layers(lambda a, b: layer(a, b, **kwargs)))


def _model(name: str, **kwargs: Any) -> Public:
    return _public(name, lambda: getattr(models, name)(WIDTH, INNER, 3, CLASSES, **kwargs))


def _numbers(high: int) -> Callable[[int], Tensor]:
    return lambda size: torch.randint(0, high, (size,))


def _features(width: int) -> Callable[[int], Tensor]:
    return lambda size: torch.rand(size, width)


NETWORKS = (
    _plain("GCNConv", add_self_loops=False),
    _plain("SAGEConv"),
    _plain("GraphConv"),
    _plain("TAGConv", K=2, normalize=False),
    _plain("LEConv"),
    _plain("ARMAConv", num_stacks=2, num_layers=2),
    _plain("SGConv", K=2, add_self_loops=False),
    _plain("ResGatedGraphConv"),
    _plain("MFConv", max_degree=4),
    _plain("FeaStConv", heads=2, add_self_loops=False),
    _plain("ChebConv", K=3),
    _plain("ClusterGCNConv"),
    _public("GATConv", lambda: Heads(graph_nn.GATConv, add_self_loops=False)),
    _public("GATv2Conv", lambda: Heads(graph_nn.GATv2Conv, add_self_loops=False)),
    _public("TransformerConv", lambda: Heads(graph_nn.TransformerConv)),
    _public("GCN2Conv", Deep),
    _public("GINConv", WholeGraphs),
    _public("EdgeConv", Edges),
    _public("RGCNConv", lambda: Layers(lambda a, b: graph_nn.RGCNConv(a, b, 3)), _numbers(3)),
    _public("FastRGCNConv", lambda: Layers(lambda a, b: graph_nn.FastRGCNConv(a, b, 3)), _numbers(3)),
    _public("GatedGraphConv", lambda: Layers(lambda a, b: graph_nn.GatedGraphConv(b, 2))),
    _public("PNAConv", lambda: Layers(lambda a, b: graph_nn.PNAConv(
        a, b, ["mean", "max", "std"], ["identity", "amplification"], deg=torch.tensor([2, 8, 8, 4])))),
    _public("NNConv", lambda: Layers(lambda a, b: graph_nn.NNConv(a, b, nn.Linear(4, a * b)), 8), _features(4)),
    _public("GMMConv", lambda: Layers(lambda a, b: graph_nn.GMMConv(a, b, 2, 3), 16), _features(2)),
    _public("GINEConv", lambda: Layers(lambda a, b: graph_nn.GINEConv(models.MLP([a, 32, b], norm=None), edge_dim=4)),
            _features(4)),
    _model("GraphSAGE", norm="batch_norm", jk="cat"),
    _model("GIN", norm="layer_norm", jk="max"),
    _model("EdgeCNN"),
)
