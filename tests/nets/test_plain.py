"""Norms and recurrent layers traced by their shapes alone: the same graphs, open lengths, torch's own refusals."""

import contextlib

import pytest
import torch
import torch.utils._pytree as pytree
from torch import Tensor, nn

import isthmus
from isthmus.errors import InvalidInput
from isthmus.nets.graph import export
from isthmus.nets.graph.example import example_of
from isthmus.nets.pieces.subnetwork import build

LAYERS = {
    "batch norm": lambda: nn.BatchNorm1d(6),
    "batch norm without statistics or weights": lambda: nn.BatchNorm1d(6, affine=False, track_running_stats=False),
    "layer norm": lambda: nn.LayerNorm(6),
    "layer norm over two dimensions, without weights": lambda: nn.LayerNorm((1, 6), elementwise_affine=False),
    "lstm": lambda: nn.LSTM(6, 8, 2, batch_first=True, bidirectional=True, dropout=0.1),
    "lstm with projections": lambda: nn.LSTM(6, 8, proj_size=3, batch_first=True),
    "gru": lambda: nn.GRU(6, 8, bias=False, batch_first=True),
    "tanh": lambda: nn.RNN(6, 8, batch_first=True),
    "relu": lambda: nn.RNN(6, 8, nonlinearity="relu"),
}


class Layer(nn.Module):
    """One layer over a sequence, and the last three places of what it makes."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> object:
        if isinstance(self.layer, nn.BatchNorm1d):
            return self.layer(x.mT).mT[:, -3:]
        if isinstance(self.layer, nn.LayerNorm):
            return self.layer(x.mT.contiguous().mT[:, :, None])[:, -3:, 0]  # not as it lies in memory
        y, state = self.layer(x)
        return y[:, -3:], state


def nodes(model: nn.Module, x: Tensor, mode: str) -> list[str]:
    """Return the nodes of a graph, each with what is known of its results; no size is open."""
    names, closed = {name: name for name in model.state_dict()}, frozenset({(0, 0), (0, 1)})
    graph = export.export_graph(model, example_of(model, (x,), None), mode, names, closed).module.graph
    results = [[v for v in pytree.tree_leaves(n.meta.get("val")) if isinstance(v, Tensor)] for n in graph.nodes]
    known = [[(each.shape, each.stride(), each.dtype) for each in found] for found in results]
    return [f"{node.format_node()} {said}" for node, said in zip(graph.nodes, known, strict=True)]


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("name", LAYERS)
def test_the_graph_is_that_of_torch(name: str, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = Layer(LAYERS[name]()), torch.randn(3, 5, 6)
    mine = nodes(model, x, mode)
    monkeypatch.setattr(export, "ByShapes", contextlib.nullcontext)
    assert mine == nodes(model, x, mode)
    assert not any("isthmus" in node for node in mine)


@pytest.mark.parametrize("name", LAYERS)
def test_lengths_stay_open(name: str) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(6, 6), Layer(LAYERS[name]())), torch.randn(3, 5, 6)
    coupling = isthmus.trace(model, (x,), verify=True)
    assert coupling.fixed_inputs == ()
    piece = build(model, coupling, {}).module
    for length in (4, 9):
        other = torch.randn(2, length, 6)
        torch.manual_seed(1)
        wanted = model(other)
        torch.manual_seed(1)
        torch.testing.assert_close(piece(other), wanted, rtol=0, atol=0)


def test_what_torch_casts_in_a_region_is_cast() -> None:
    class Region(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.rnn = nn.Linear(6, 6), nn.LSTM(6, 8, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return self.rnn(self.a(x))[0]

    model, x = Region(), torch.randn(3, 5, 6)
    assert build(model, isthmus.trace(model, (x,)), {}).module(x).dtype == model(x).dtype == torch.bfloat16


def test_what_torch_refuses_is_refused() -> None:
    for layer in (nn.BatchNorm1d(5), nn.LayerNorm(5), nn.LSTM(5, 8, batch_first=True)):
        with pytest.raises(InvalidInput, match="cannot be traced"):
            isthmus.trace(Layer(layer), (torch.randn(3, 4, 6),))


def test_a_custom_backward_before_a_norm_is_still_seen() -> None:
    class Reversed(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx, gradient: Tensor) -> Tensor:
            return -gradient

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.norm = nn.Linear(6, 6), nn.BatchNorm1d(6)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(Reversed.apply(self.a(x)))

    with pytest.raises(InvalidInput, match="custom autograd function"):
        isthmus.trace(Own(), (torch.randn(3, 6),))
