"""Running statistics: which buffers they are, and measuring them on the merged network."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import isthmus
from cases.networks import GPT, Basic, mlp, resnet
from isthmus.errors import InvalidInput
from isthmus.nets.scale.norms import recalibrate, statistics


class Own(nn.Module):
    """A norm by hand, with dropout before it and two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.out = nn.Linear(6, 8), nn.Linear(8, 2)
        self.register_buffer("center", torch.full((8,), float("nan")))
        self.register_buffer("scale", torch.zeros(8))
        self.register_buffer("other", torch.ones(8))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        h = F.dropout(self.a(x + y), 0.5, self.training) * self.other
        return self.out(F.batch_norm(h, self.center, self.scale, training=self.training).relu())


def test_recalibrate_measures_what_the_merged_network_sees() -> None:
    torch.manual_seed(0)
    model, data = mlp(nn.BatchNorm1d), [torch.randn(32, 6) for _ in range(4)]
    before = model[0].weight.clone()
    assert recalibrate(model, data) == 2
    seen = [model[0](x) for x in data]
    torch.testing.assert_close(model[1].running_mean, torch.stack([s.mean(0) for s in seen]).mean(0))
    torch.testing.assert_close(model[1].running_var, torch.stack([s.var(0) for s in seen]).mean(0))
    assert torch.equal(model[0].weight, before)
    assert all(module.training for module in model.modules())
    kept = model[1].running_mean.clone()
    with pytest.raises(InvalidInput, match="at least one batch"):
        recalibrate(model, [])
    assert torch.equal(model[1].running_mean, kept)
    assert recalibrate(mlp(), data) == 0
    assert recalibrate(GPT(), []) == 0


def test_recalibrate_is_a_function_of_the_data() -> None:
    """In spite of dropout, whatever the mode, the momentum and what was there before."""
    torch.manual_seed(0)
    data = [((torch.randn(16, 6), torch.randn(16, 6)), torch.zeros(16)) for _ in range(3)]
    model = Own()
    found = []
    for training in (True, False):
        assert recalibrate(model.train(training), data) == 1
        assert model.training == training
        found.append((model.center.clone(), model.scale.clone()))
        model.scale.fill_(7.0)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    expected = torch.stack([model.a(x + y).mean(0) for (x, y), _ in data]).mean(0)
    torch.testing.assert_close(found[0][0], expected)
    layers = nn.Sequential(nn.Dropout(0.5), nn.InstanceNorm1d(3, track_running_stats=True))
    sequences = torch.randn(4, 3, 9)
    assert recalibrate(layers, [sequences]) == 1
    torch.testing.assert_close(layers[1].running_mean, sequences.mean((0, 2)))


def test_statistics_are_found_in_the_graph() -> None:
    own = isthmus.trace(Own(), (torch.randn(4, 6), torch.randn(4, 6)))
    assert statistics(own) == {"center", "scale"}
    images = isthmus.trace(resnet(Basic(8, 8)), (torch.randn(2, 3, 8, 8),))
    keys = ("running_mean", "running_var", "num_batches_tracked")
    assert statistics(images) == {f"{norm}.{key}" for norm in ("1", "3.bn1", "3.bn2") for key in keys}
    assert statistics(isthmus.trace(GPT(), (torch.randint(0, 11, (2, 5)),))) == frozenset()
