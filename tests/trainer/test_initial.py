"""Initial values without the whole network: the same bits, from a function, a network or a file."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cases.initials import INITIALS, ODD, Tied, random_program
from isthmus.nets import trace
from isthmus.randomness import derived_seed
from isthmus.trainer import configure
from isthmus.trainer.task import replay
from isthmus.trainer.task.deferred import Recording
from isthmus.trainer.task.initial import Built, Deferred, Held, Initial, copied, tensors_of, whole
from isthmus.trainer.task.network import Network, describe, given
from isthmus.trainer.task.replay import BLOCK
from isthmus.trainer.task.setup import set_up

CALL = (torch.zeros(2, 4),)


def plain(factory: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """What the function makes where nothing is put off."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, "init/model"))
        return factory()


def described(factory: Callable[[], nn.Module], seed: int = 0) -> Network:
    return describe(factory, CALL, seed, device="cpu")


def pieces(rows: int) -> list[tuple[int, int]]:
    """Cuts of a tensor's rows, one of them empty."""
    return sorted({(0, rows // 3), (rows // 3, rows // 3), (rows // 3, rows - 1), (max(0, rows - 1), rows)})


def assert_same(initial: Initial, network: nn.Module) -> None:
    for name, tensor in tensors_of(network).items():
        expected = tensor.detach()
        got = whole(initial, name, tensor)
        assert (got.dtype, got.shape) == (expected.dtype, expected.shape), name
        assert torch.equal(got, expected), name
        assert got.is_contiguous()
        for start, stop in pieces(len(tensor)) if tensor.dim() else ():
            assert torch.equal(initial.rows(name, start, stop), expected[start:stop]), (name, start, stop)


@pytest.mark.parametrize("name", INITIALS)
def test_values_put_off_are_those_of_a_network_built_at_once(name: str) -> None:
    before = torch.get_rng_state()
    initial = described(INITIALS[name], seed=7).initial
    assert isinstance(initial, Deferred)
    assert not initial.in_turn
    assert torch.equal(before, torch.get_rng_state())
    assert_same(initial, plain(INITIALS[name], seed=7))


def test_a_few_rows_cost_little_more_memory_than_themselves() -> None:
    """A quarter of a layer of 32 MiB, in a process of its own: beside it blocks are held, and states of draws."""
    script = """
import sys, torch
from torch import nn
from isthmus.trainer.observe.account import resident_bytes
from isthmus.trainer.task import replay
from isthmus.trainer.task.deferred import Recording
from isthmus.trainer.task.initial import Deferred
def initial(size):
    layer = nn.Linear(2048, size)
    nn.init.trunc_normal_(layer.weight, std=0.02)
    return layer
for size in (64, 4096):
    before = resident_bytes(peak=True)
    quarter = Deferred(lambda: initial(size)).rows("weight", size // 4, size // 2)
print(resident_bytes(peak=True) - before - quarter.nbytes)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert int(done.stdout) < 12 * 2**20


def looks_at_memory() -> nn.Module:
    network = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 2))
    network[0].weight.detach().numpy()[0] = 1.0
    return network


def from_elsewhere() -> nn.Module:
    """More weights of numpy's than are worth to be kept."""
    network = nn.Linear(4, 2**17)
    network.weight.data = torch.from_numpy(np.random.default_rng(0).standard_normal((2**17, 4))).float()
    return network


def goes_on() -> nn.Module:
    """Catches what goes wrong."""
    network = nn.Linear(4, 2)
    try:
        network.weight.data.numpy()[0] = 1.0
    except Exception:
        network.weight.data.zero_()
    return network


@pytest.mark.parametrize("factory", [looks_at_memory, from_elsewhere, goes_on])
def test_a_function_that_cannot_be_put_off_is_called_for_real_and_says_what_that_costs(
    factory: Callable[[], nn.Module],
) -> None:
    initial = described(factory, seed=3).initial
    expected = plain(factory, seed=3)
    assert isinstance(initial, Built)
    assert initial.in_turn
    size = sum(tensor.numel() * 4 for tensor in expected.parameters())
    assert f"each worker builds it whole once, in turn ({size / 1e6:.1f} MB)" in initial.note
    assert_same(initial, expected)
    initial.drop()
    name, weight = next(expected.named_parameters())
    assert torch.equal(initial.rows(name, 0, 1), weight[:1])


def test_a_dropped_network_is_gone() -> None:
    built: list[nn.Module] = []
    initial = Built(lambda: built.append(nn.Linear(2, 2)) or built.pop(), 1, "no reason")  # type: ignore[func-returns-value]
    first = initial.rows("weight", 0, 2)
    gc.collect()
    assert torch.equal(first, initial.rows("weight", 0, 2))  # built once
    initial.drop()
    assert not torch.equal(first, initial.rows("weight", 0, 2))  # and again


def test_a_network_held_gives_rows_of_its_own_tensors() -> None:
    network = Tied()
    initial = given(network, (torch.zeros(2, 3, dtype=torch.int64),)).initial
    assert isinstance(initial, Held)
    assert_same(initial, network)
    initial.rows("embed.weight", 0, 1).fill_(9)
    assert not (network.embed.weight == 9).any()


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_the_perceptron_gives_its_rows(norm: str) -> None:
    network = set_up(configure(widths=(40, 30), norm=norm, workers=2, seed=5), torch.device("cpu")).network
    assert_same(network.initial, network.make())


class Constant(nn.Module):
    """Constants of three kinds: made in forward, a plain attribute, made while building from drawn numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(4, 12), nn.Linear(12, 2)
        self.gains, self.shifts = torch.arange(12) / 12, [torch.randn(12)]

    def forward(self, x: Tensor) -> Tensor:
        signs = torch.tensor([1.0, -1.0] * 6, device=x.device)
        return self.outer(torch.relu(self.inner(x)) * signs * self.gains + self.shifts[0])


def test_constants_are_known_without_the_network() -> None:
    network, made = described(Constant), plain(Constant)
    expected = trace(made, CALL).constants
    assert any(tensor.is_meta for tensor in network.coupling.constants.values())
    assert network.constants.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in network.constants.items())


def test_a_shell_has_the_users_class_ties_and_plain_attributes() -> None:
    call = (torch.zeros(2, 3, dtype=torch.int64),)
    shell, made = describe(Tied, call, 0, device="cpu").shell(), plain(Tied)
    assert type(shell) is Tied
    assert shell.out.weight is shell.embed.weight
    assert torch.equal(shell.table, made.table)
    assert torch.equal(shell.tables[1]["half"], made.tables[1]["half"])
    shell.load_state_dict(made.state_dict())
    shell.mask = made.mask
    assert torch.equal(shell(*call), made(*call))


def test_a_copy_has_other_tensors_in_the_same_places() -> None:
    network = plain(Tied)
    other = copied(network, lambda name, tensor: deepcopy(tensor).requires_grad_(False).zero_())
    assert not any(tensor.any() for tensor in tensors_of(other).values())
    assert other.out.weight is other.embed.weight
    assert network.embed.weight.any()


def test_blocks_are_smaller_than_what_the_tests_make() -> None:
    assert ODD[0] * ODD[1] > 2 * BLOCK


def test_random_programs_done_again_in_parts_give_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "BLOCK", 64)
    for seed in range(200):
        torch.manual_seed(seed)
        expected = random_program(seed)()
        after = torch.get_rng_state()
        torch.manual_seed(seed)
        recording = Recording(random_program(seed))
        assert torch.equal(after, torch.get_rng_state())
        recording.program.forget([recording.view(tensor) for tensor in recording.result])
        for made, tensor in zip(recording.result, expected, strict=True):
            view = recording.view(made)
            for start, stop in ((0, view.numel), (view.numel // 3, view.numel // 2), (view.numel - 1, view.numel)):
                got = recording.program.elements(view, start, stop)
                assert torch.equal(got, tensor.reshape(-1)[start:stop]), (seed, view)
