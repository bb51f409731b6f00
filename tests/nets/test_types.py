"""A piece is brought to another type of number like the network: whatever forward makes by itself follows its input."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import isthmus
from isthmus.nets.pieces.subnetwork import build


class Recurrent(nn.Module):
    """A layer, or a cell over three steps, that makes its own zero state."""

    def __init__(self, inner: nn.Module, steps: bool = False) -> None:
        super().__init__()
        self.inner, self.out, self.steps = inner, nn.Linear(12, 3), steps

    def forward(self, x: Tensor) -> Tensor:
        if not self.steps:
            return self.out(self.inner(x)[0][:, -1])
        state = None
        for step in range(3):
            state = self.inner(x[:, step], state)
        return self.out(state[0] if isinstance(state, tuple) else state)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "lstm": lambda: Recurrent(nn.LSTM(6, 12, batch_first=True)),
    "lstm, two layers, both ways": lambda: Recurrent(nn.LSTM(6, 6, 2, batch_first=True, bidirectional=True)),
    "gru": lambda: Recurrent(nn.GRU(6, 12, batch_first=True)),
    "rnn": lambda: Recurrent(nn.RNN(6, 12, batch_first=True)),
    "rnn, relu": lambda: Recurrent(nn.RNN(6, 12, batch_first=True, nonlinearity="relu")),
    "lstm cell": lambda: Recurrent(nn.LSTMCell(6, 12), steps=True),
    "gru cell": lambda: Recurrent(nn.GRUCell(6, 12), steps=True),
    "rnn cell": lambda: Recurrent(nn.RNNCell(6, 12), steps=True),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_piece_follows_the_network_to_another_type(name: str) -> None:
    torch.manual_seed(0)
    network, x = NETWORKS[name](), torch.randn(4, 3, 6)
    coupling = isthmus.trace(network, (x,))
    whole = build(network, coupling, {}).module
    part = isthmus.cut(network, coupling, coupling.partition(3, seed=0), 0).module if coupling.cut_axes else whole
    for dtype in (torch.float64, torch.bfloat16):
        given = x.to(dtype)
        found = whole.to(dtype)(given)
        assert torch.equal(found, network.to(dtype)(given))
        assert found.dtype == part.to(dtype)(given).dtype == dtype
        found.float().sum().backward()


@pytest.mark.parametrize("name", ["lstm", "gru", "lstm cell"])
def test_a_network_is_traced_in_another_type(name: str) -> None:
    network, x = NETWORKS[name]().bfloat16(), torch.randn(4, 3, 6).bfloat16()
    coupling = isthmus.trace(network, (x,), verify=True)
    part = isthmus.cut(network, coupling, coupling.partition(3, seed=0), 0).module
    assert part(x).dtype == torch.bfloat16
