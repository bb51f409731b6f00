"""Other sizes than the traced ones: batch, sequence and image, where a network leaves them open."""

import pytest
import torch
from torch import Tensor, nn

import isthmus
from isthmus.errors import InvalidInput
from isthmus.nets.check.verify import verify
from isthmus.nets.coupling.coupling import Coupling
from isthmus.nets.graph.sizes import size_of
from isthmus.nets.pieces.subnetwork import build
from nets.traced import ALL, fresh

OTHER = {5: (9, 3), 8: (12, 4)}
"""Lengths and image sides of the examples, and what is tried in their place."""


def open_sides(coupling: Coupling) -> list[tuple[int, int]]:
    """Return the (input, dimension) pairs beside the batch whose size both graphs leave open."""
    found = []
    for exported in coupling.exports.values():
        nodes = [node for node in exported.module.graph.nodes if node.op == "placeholder"][len(exported.state) :]
        shapes = [[size_of(size) for size in node.meta["val"].shape] for node in nodes]
        pairs = [(i, d, size) for i, shape in enumerate(shapes) for d, size in enumerate(shape)]
        found.append({(i, d) for i, d, size in pairs if d > 0 and not isinstance(size, int)})
    return sorted((i, d) for i, d in set.intersection(*found) if coupling.example.tensors[i].shape[d] in OTHER)


def resized(args: tuple[Tensor, ...], sides: list[tuple[int, int]], which: int) -> tuple[Tensor, ...]:
    """Return inputs of other sizes, with values of the same kind."""
    result = list(args)
    for i, d in sides:
        size = OTHER[args[i].shape[d]][which]
        result[i] = torch.cat([result[i], result[i].flip(d)], d).narrow(d, 0, size)
    return tuple(result)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(("batch", "which"), [(1, 0), (2, 1), (7, 0)])
def test_runs_at_other_sizes_as_the_masked_whole(name: str, batch: int, which: int) -> None:
    """Traced with 3 samples; outputs and gradients, in training and evaluation, and at twice the batch."""
    network, model, coupling = fresh(name)
    args = resized(network.inputs(batch), open_sides(coupling), which)
    verdict = verify(coupling, model, args, network.kwargs, seeds=(batch,))
    assert verdict.passed, verdict.summary()


def test_most_networks_leave_their_sizes_open() -> None:
    sides = {name: open_sides(fresh(name)[2]) for name in ALL}
    whole = {name for name in ALL if fresh(name)[2].fixed_inputs}
    assert whole == {"lenet", "vit", "mlp-mixer", "transformers vit"}
    assert sum(bool(each) for each in sides.values()) >= 20


@pytest.mark.parametrize("name", ["lenet", "mlp-mixer", "vit"])
def test_a_size_that_is_fixed_is_refused_in_one_line(name: str) -> None:
    """A graph that is bound to a size may well run at another, and be wrong."""
    network, model, coupling = fresh(name)
    sub = isthmus.cut(model, coupling, coupling.partition(2, seed=0), 0)
    (args,) = network.inputs(2)
    place, size = coupling.fixed_inputs[0].removeprefix("size fixed at tracing: ").rsplit(": ", 1)
    dim = int(place.rpartition(" ")[2])
    wanted = f"input 0 must have size {size} in dimension {dim}.*trace it again"
    with pytest.raises(InvalidInput, match=wanted) as caught:
        sub.module(torch.cat([args, args], dim))
    assert "\n" not in str(caught.value)


class LastThree(nn.Module):
    """Runs at any length, but its graph does not."""

    def __init__(self) -> None:
        super().__init__()
        self.step, self.head = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        steps = [self.step(x[:, 0])]
        for number in range(1, x.shape[1]):
            steps.append((steps[-1] + self.step(x[:, number])).tanh())
        return self.head(torch.stack(steps, 1)[:, -3:])


def test_what_would_run_and_be_wrong_is_refused() -> None:
    model, x = LastThree(), torch.randn(2, 5, 4)
    coupling = isthmus.trace(model, (x,), verify=True)
    sub = isthmus.cut(model, coupling, coupling.partition(1, seed=0), 0)
    torch.testing.assert_close(sub.module(x), model(x))
    with pytest.raises(InvalidInput, match="size 5 in dimension 1"):
        sub.module(torch.randn(2, 7, 4))


class Asks(nn.Module):
    """Does otherwise with few samples, and with long sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x).relu()
        y = y if x.shape[0] > 2 else 2 * y
        y = y if x.shape[1] < 9 else 3 * y
        return self.b(y if x.shape[1] % 2 else 5 * y)


def test_what_a_branch_asked_of_a_size_has_to_hold() -> None:
    model, x = Asks(), torch.randn(3, 5, 4)
    coupling = isthmus.trace(model, (x,), verify=True)
    assert coupling.verify(model, (x,)).passed
    piece = build(model, coupling, {}).module
    for other in (torch.randn(7, 3, 4), torch.randn(3, 7, 4)):
        torch.testing.assert_close(piece(other), model(other))
    with pytest.raises(InvalidInput, match="input 0 must have a size of 3 or more in dimension 0, got 2"):
        piece(torch.randn(2, 5, 4))
    with pytest.raises(InvalidInput, match="input 0 must have a size from 0 to 8 in dimension 1, got 9"):
        piece(torch.randn(3, 9, 4))
    with pytest.raises(InvalidInput, match="input 0 has size 6 in dimension 1, by which the network does otherwise"):
        piece(torch.randn(3, 6, 4))


class Windows(nn.Module):
    """Reads overlapping windows by their places in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(12, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x.as_strided((x.shape[0], 3, 12), (20, 4, 1))).relu())


def test_strides_fix_the_sizes_they_follow_from() -> None:
    model, x = Windows(), torch.randn(4, 20)
    coupling = isthmus.trace(model, (x,))
    assert [axis.name for axis in coupling.cut_axes] == ["a"]
    assert coupling.problems == ()
    assert coupling.fixed_inputs == ("size fixed at tracing: input 0, dimension 1: 20",)
    verdict = coupling.verify(model, (x,))
    assert verdict.passed, verdict.summary()
    assert any("another batch size" in check.what for check in verdict.checks)
