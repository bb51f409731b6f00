"""What people see of a coupling: like axes in one row, what they are made of, what is kept whole and why."""

from __future__ import annotations

import torch
from torch import nn

import isthmus
from cases.networks import GPT
from isthmus.nets.coupling.coupling import Coupling


def rows(coupling: Coupling) -> dict[str, list[str]]:
    """The cells of every row of the table by its first."""
    table = coupling.table()
    cells = [list(column.cells) for column in table.columns]
    return {str(row[0]): [str(cell) for cell in row[1:]] for row in zip(*cells, strict=True)}


def test_axes_that_differ_in_a_number_are_one_row() -> None:
    coupling = isthmus.trace(GPT(), (torch.zeros(2, 5, dtype=torch.long),))
    found = rows(coupling)
    heads = found["blocks.*.attn.qkv (2 axes)"]
    assert heads[:3] == ["head", "4", "yes"]
    assert heads[3].splitlines() == [
        "blocks.*.attn.qkv: weight[0], bias[0] = 3 x (units x 4)",
        "blocks.*.attn.out: weight[1] = units x 4",
    ]
    assert len(coupling.select(["blocks.*.attn.qkv"]).cut_axes) == 2  # the pattern shown is one that `cut` takes


def test_single_axes_show_their_own_places_and_layouts() -> None:
    network = nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 4 * 4, 3))
    coupling = isthmus.trace(network, (torch.zeros(2, 1, 6, 6),))
    assert rows(coupling) == {
        "0": ["channel", "6", "yes", "0: weight[0], bias[0]\n1: weight[0], bias[0]\n4: weight[1] = units x 4 x 4"],
        "4": ["class", "3", "no: class-cut alone", "4: weight[0], bias[0]"],
    }
    assert "- returned by the network (output): 4.weight[0], 4.bias[0]" in str(coupling)
    assert "where: tensor[dimension]" in str(coupling)


def test_a_member_says_how_much_one_unit_takes() -> None:
    coupling = isthmus.trace(GPT(), (torch.zeros(2, 5, dtype=torch.long),))
    head = next(axis for axis in coupling.axes if axis.kind == "head")
    for member in head.members:
        size = coupling.entries[member.name].shape[member.dim]
        assert member.per_unit * head.size == size


def test_blocks_are_listed_by_name_and_not_counted_as_held_by_all() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.inner(x)

    network = nn.Sequential(nn.Linear(4, 8), Block(), Block(), Block(), nn.Linear(8, 2))
    coupling = isthmus.trace(network, (torch.zeros(3, 4),), cut=["block"])
    assert rows(coupling)["blocks"] == ["block", "3", "yes", "1.inner, 2.inner, 3.inner"]
    held = coupling.partition(3, seed=0, law="fixed").of(0)
    sizes = coupling.sizes(held)
    assert sizes["replicated"] == 4 * 8 + 8 + 8 * 2 + 2
    assert sizes["parameters"] == sizes["replicated"] + 2 * (8 * 8 + 8)
