"""The example networks: what of them is cut, provably; that they fit their data, and learn."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import isthmus
from isthmus.data import load, train_test
from isthmus.factories import load_factory

ROOT = Path(__file__).parents[2]


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A function from a factory's name and sizes to (network, args), as a person in the project's folder has it."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(ROOT)
    torch.manual_seed(0)
    return lambda name, **sizes: load_factory(f"examples.networks:{name}")(**sizes)


@pytest.mark.parametrize(
    ("name", "sizes", "cut"),
    [
        ("cnn", {"channels": (4, 6, 8)}, [("channel", 4), ("channel", 6), ("channel", 8)]),
        ("resnet", {"channels": (4, 6), "blocks": 2}, [("channel", 4)] * 2 + [("channel", 6)] * 2),
        ("gpt", {"layers": 2, "width": 16, "heads": 2, "context": 6}, [("head", 2), ("ffn", 64)] * 2),
        ("gcn", {"hidden": (6, 10), "nodes": 9}, [("hidden", 6), ("hidden", 10)]),
    ],
)
def test_what_is_cut_and_that_the_cut_is_right(
    example: Callable[..., Any], name: str, sizes: dict[str, Any], cut: list[tuple[str, int]]
) -> None:
    """verify=True compares random cuts with the masked whole network and raises on a difference."""
    network, args = example(name, **sizes)
    coupling = isthmus.trace(network, args, verify=True)
    assert sorted((axis.kind, axis.size) for axis in coupling.cut_axes) == sorted(cut)
    assert not coupling.problems


def test_the_residual_network_can_be_cut_in_depth(example: Callable[..., Any]) -> None:
    network, args = example("resnet", channels=(4, 6), blocks=3)
    coupling = isthmus.trace(network, args, cut=["block"], verify=True)
    assert [(axis.kind, axis.size) for axis in coupling.cut_axes] == [("block", 3)] * 2
    partition = coupling.partition(3, seed=0, law="fixed")
    parts = [isthmus.cut(network, coupling, partition, worker).module for worker in range(3)]
    whole, held = (sum(p.numel() for p in module.parameters()) for module in (network, parts[0]))
    block = sum(2 * channels * (9 * channels + 2) for channels in (4, 6))  # two convolutions, two norms
    assert whole - held == 2 * block


def test_defaults_fit_their_data(example: Callable[..., Any], tmp_path: Path) -> None:
    network, (image,) = example("cnn")
    assert network(image).shape == (2, 10)
    network, (image,) = example("resnet")
    assert network(image).shape == (2, 10)
    (tmp_path / "text").write_bytes(bytes(range(256)) * 8)
    network, (window,) = example("gpt")
    data = load(f"text:{tmp_path / 'text'}", length=window.shape[1])
    assert network(torch.from_numpy(data.features[:3])).shape == (3, 64, data.classes)
    network, (features, adjacency) = example("gcn")
    graph = load("sbm").graph
    assert (features.shape, adjacency.shape) == (graph.features.shape, graph.adjacency.shape)


def test_the_gpt_sees_nothing_of_what_it_predicts(example: Callable[..., Any]) -> None:
    network, _ = example("gpt", layers=2, width=16, heads=2, context=8)
    tokens = torch.randint(0, 256, (1, 8))
    changed = tokens.clone()
    changed[0, 5] = (changed[0, 5] + 1) % 256
    before, after = network.eval()(tokens), network(changed)
    assert torch.equal(before[:, :5], after[:, :5])
    assert not torch.equal(before[:, 5:], after[:, 5:])


def test_the_gcn_learns_from_neighbours(example: Callable[..., Any]) -> None:
    """More of the test nodes are right with their neighbours than with an adjacency that joins nobody."""
    data = load("sbm:800")
    train, test = train_test(data, 0)
    features, around = torch.from_numpy(data.graph.features), torch.from_numpy(data.graph.adjacency)

    def accuracy(adjacency: torch.Tensor) -> float:
        network, _ = example("gcn", hidden=(32, 32))
        optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
        for _ in range(60):
            optimizer.zero_grad()
            logits = network(features, adjacency)[torch.from_numpy(train.features[:, 0])]
            F.cross_entropy(logits, torch.from_numpy(train.targets)).backward()
            optimizer.step()
        found = network(features, adjacency).argmax(dim=1).numpy()[test.features[:, 0]]
        return float(np.mean(found == test.targets))

    assert accuracy(around) > accuracy(torch.eye(800)) + 0.15
