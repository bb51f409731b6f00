"""The store: who is home to what, what travels, what stays; against naive twins that hold everything."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cases.loops import adamw, in_turn, perceptron, processes, same, sgd, state_of, take_step
from cases.programs import Place, together
from cases.strategies import ON_ANY
from isthmus import Training, trace
from isthmus.errors import InvalidInput
from isthmus.nets.pieces.merge import holders
from isthmus.nets.pieces.ownership import Held, merge_into, slice_tensor
from isthmus.partitions import Block, Core, Fixed, Law, Overlapping, Rotated, Uniform
from isthmus.strategies import IST
from isthmus.trainer.store import routes as routing
from isthmus.trainer.store.draft import Draft
from isthmus.trainer.store.homes import Homes
from isthmus.trainer.store.keeping import Deal, places, rest_of, step_between
from isthmus.trainer.store.pieces import Pieces
from isthmus.trainer.store.routes import Box
from isthmus.trainer.strategies import Worker, part_of
from isthmus.trainer.task.network import describe

CPU = torch.device("cpu")
EXAMPLE = (torch.zeros(2, 6),)


# ------------------------------------------------------------------- homes


@given(rows=st.integers(0, 40), workers=st.integers(1, 9))
def test_homes_are_those_of_torch(rows: int, workers: int) -> None:
    homes = Homes(workers, {"w": (rows, 2)})
    chunks = list(torch.arange(rows).chunk(workers)) if rows else []
    chunks += [torch.empty(0, dtype=torch.int64)] * (workers - len(chunks))
    assert [list(range(*homes.rows("w", worker))) for worker in range(workers)] == [c.tolist() for c in chunks]


def made() -> nn.Module:
    """Weights drawn in several ways, and norms."""
    layers = [nn.Linear(6, 13), nn.BatchNorm1d(13), nn.ReLU(), nn.Linear(13, 8), nn.Tanh(), nn.Linear(8, 3)]
    network = nn.Sequential(*layers)
    nn.init.orthogonal_(network[3].weight)
    return network


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 8])
def test_the_first_weights_are_those_of_the_network_built_whole(workers: int) -> None:
    """Whatever the number of workers; entries that no piece holds under `block` start at zero."""
    network = describe(made, EXAMPLE, 5)
    whole = {name: tensor.detach() for name, tensor in network.make().named_parameters()}
    for law in (Fixed(), Block()):
        parts = [part_of(IST(law), Worker(Place(w, workers), network, 5)) for w in range(workers)]
        states, sent = together([part.start() for part in parts])
        assert all(max(numbers) == 1 for exchange in sent for numbers in exchange)  # a mark to compare, no weights
        partition = network.coupling.partition(workers, 5, 0, law)
        for name, tensor in whole.items():
            found = torch.cat([state.tensors[name] for state in states if name in state.tensors])
            held = torch.from_numpy(holders(network.coupling, partition)[name] > 0)
            expected = torch.where(held, tensor, torch.zeros(())) if law.zero_cross_blocks else tensor
            assert torch.equal(found, expected), name


# ------------------------------------------------------------------- routes


@st.composite
def network(draw: Any) -> tuple[dict[str, Tensor], list[dict[str, Held]]]:
    """Some tensors, and what each of some workers holds of them."""
    workers = draw(st.integers(1, 4))
    shapes = draw(st.lists(st.lists(st.integers(1, 7), max_size=3).map(tuple), min_size=1, max_size=4))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    types = [torch.float32, torch.float64, torch.int64, torch.bfloat16]
    tensors = {
        f"t{i}": torch.from_numpy(random.integers(-99, 99, shape)).to(types[draw(st.integers(0, 3))])
        for i, shape in enumerate(shapes)
    }
    maps = []
    for _ in range(workers):
        held = {}
        for name, tensor in tensors.items():
            if random.random() < 0.8:
                sets = [np.flatnonzero(random.random(size) < 0.6) for size in tensor.shape]
                held[name] = tuple(None if len(s) == n else s for s, n in zip(sets, tensor.shape, strict=True))
        maps.append(held)
    return tensors, maps


@given(network(), st.integers(1, 300))
@settings(max_examples=150)
def test_pieces_and_merges_are_those_of_the_whole(case: Any, at_once: int) -> None:
    tensors, maps = case
    workers = len(maps)
    homes = Homes(workers, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
    types = {name: tensor.dtype for name, tensor in tensors.items()}
    boxes = [[Box(name, held, tuple(tensors[name].shape)) for name, held in mine.items()] for mine in maps]
    shards = [shards_of(tensors, homes, worker) for worker in range(workers)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(routing, "AT_ONCE", at_once)  # in one exchange a type, or in many
        sides = [Pieces(homes, types, Place(worker, workers), CPU) for worker in range(workers)]
        routes = [side.routes(boxes) for side in sides]
    came, sent = together([s.outward(shards[w], routes[w], {}) for w, s in enumerate(sides)])
    for mine, values in zip(boxes, came, strict=True):
        for box, value in zip(mine, values, strict=True):
            assert torch.equal(value, slice_tensor(tensors[box.name], box.held))
    assert all(exchange[w][w] <= sum(exchange[w]) for exchange in sent for w in range(workers))
    trained = [[value * 3 + w + 1 for value in values] for w, values in enumerate(came)]
    together([s.homeward(Draft(shards[w], direct=True), trained[w], routes[w]) for w, s in enumerate(sides)])
    for name, tensor in tensors.items():
        parts = [(v, b.held) for mine, vs in zip(boxes, trained, strict=True) for b, v in zip(mine, vs, strict=True)
                 if b.name == name and v.numel()]  # fmt: skip
        merge_into(tensor, parts)
        for worker in range(workers):
            if name in shards[worker]:
                assert torch.equal(shards[worker][name], shards_of({name: tensor}, homes, worker)[name])


def shards_of(tensors: dict[str, Tensor], homes: Homes, worker: int) -> dict[str, Tensor]:
    found = {}
    for name, tensor in tensors.items():
        start, stop = homes.rows(name, worker)
        if start < stop:
            found[name] = (tensor[start:stop] if tensor.dim() else tensor).clone()
    return found


def test_no_worker_carries_more_than_its_share() -> None:
    """Uniform pieces of equal layers over 8 workers: nobody sends or receives 1.2 times the mean."""
    coupling = trace(nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64)),
                     (torch.zeros(2, 64),))  # fmt: skip
    partition = coupling.partition(8, 0)
    deal = Deal(coupling, [partition.of(worker) for worker in range(8)])
    names = list(coupling.entries)
    homes = Homes(8, {name: entry.shape for name, entry in coupling.entries.items()})
    found = [
        [sum(leg.size for leg in routing.legs(deal.boxes(worker, names), home, homes)) for worker in range(8)]
        for home in range(8)
    ]
    table = np.array(found) * (1 - np.eye(8))
    for carried in (table.sum(0), table.sum(1)):
        assert carried.max() <= 1.2 * carried.mean()


# ------------------------------------------------------------------- what stays


@given(st.integers(0, 2**32), st.integers(1, 3))
def test_the_rest_of_a_box_is_all_but_its_part(seed: int, dims: int) -> None:
    random = np.random.default_rng(seed)
    shape = tuple(random.integers(1, 6, dims))
    whole: Held = tuple(None if random.random() < 0.4 else np.flatnonzero(random.random(n) < 0.7) for n in shape)
    part: Held = tuple(
        None if held is None and random.random() < 0.5
        else (chosen := np.arange(n) if held is None else held)[random.random(len(chosen)) < 0.6]
        for held, n in zip(whole, shape, strict=True)
    )  # fmt: skip
    count = np.zeros(shape, int)
    for box in (part, *rest_of(whole, part, shape)):
        count[np.ix_(*(np.arange(n) if held is None else held for held, n in zip(box, shape, strict=True)))] += 1
    expected = np.zeros(shape, int)
    expected[np.ix_(*(np.arange(n) if held is None else held for held, n in zip(whole, shape, strict=True)))] = 1
    assert np.array_equal(count, expected)
    values = torch.from_numpy(random.random(shape))
    piece = slice_tensor(values, whole)
    assert torch.equal(slice_tensor(piece, places(whole, part)), slice_tensor(values, part))


@pytest.mark.parametrize("law", [Fixed(), Core(Fixed(), 0.3), Uniform(), Block(), Overlapping(2)], ids=str)
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_what_stays_is_what_nobody_else_needs(law: Law, workers: int) -> None:
    """Entry by entry, by counting who holds it: moved and kept are the piece, and none of what stays is another's."""
    network = nn.Sequential(nn.Linear(6, 12), nn.LayerNorm(12), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3))
    coupling = trace(network, EXAMPLE)
    partitions = [coupling.partition(workers, 3, number, law) for number in (1, 2)]
    deals = [Deal(coupling, [p.of(worker) for worker in range(workers)]) for p in partitions]
    step = step_between(*deals, list(coupling.entries))
    counts = [holders(coupling, partition) for partition in partitions]
    moved = 0
    for worker in range(workers):
        for name, entry in coupling.entries.items():
            whole = torch.zeros(entry.shape, dtype=torch.int64)
            mine = whole.clone()
            merge_into(mine, [(slice_tensor(whole + 1, deals[0].map(worker)[name]), deals[0].map(worker)[name])])
            seen = whole.clone()
            for box in (*step.homeward(worker, [name]), *step.kept(worker, [name])):
                merge_into(seen, [(slice_tensor(seen, box.held) + 1, box.held)])
            assert torch.equal(seen, mine)
            for box in step.kept(worker, [name]):
                for count in counts:
                    assert (slice_tensor(torch.from_numpy(count[name].copy()), box.held) == 1).all()
            moved += sum(box.size for box in step.homeward(worker, [name]))
    steady = isinstance(law, Fixed | Core)
    if workers == 1:
        assert moved == 0
    elif steady:
        needed = sum(int(c[c > 1].sum()) for c in counts[0].values())
        assert moved == needed
    else:
        assert not step.keeps or isinstance(law, Overlapping)


def test_under_fixed_pieces_only_what_is_shared_travels() -> None:
    """6-12-8-3 over two workers: of a piece the last bias alone is anybody else's."""

    def job() -> Any:
        training = Training(perceptron(), EXAMPLE, sgd, law="fixed", local_steps=2)
        first = training.account().received_bytes
        for step in range(6):
            take_step(training, step)
        return first, training.account().received_bytes

    first, last = in_turn(job, 2)[0]
    # home of the three biases: two rows at worker 0, one at worker 1; home twice three times, out again twice
    assert [b - a for a, b in zip(first, last, strict=True)] == [4 * (3 * 2 + 2 * 1), 4 * (3 * 1 + 2 * 2)]


@pytest.mark.parametrize("law", [Fixed(), Core(Fixed(), 0.3), Rotated()], ids=str)
def test_looking_does_not_change_what_is_trained(law: Law) -> None:
    """What stayed with the workers comes home to be looked at, stays with them still, and loops may end apart."""

    def job(look: bool) -> list[dict[str, Tensor]]:
        torch.manual_seed(3)
        training = Training(perceptron(), EXAMPLE, adamw, law=law, local_steps=2)
        seen = []
        for step in range(8 + 3 * training.worker):
            take_step(training, step)
            if look and step in (3, 5):
                with training.whole() as merged:
                    assert merged is not None
                    seen.append(state_of(merged))
        training.close()
        with training.whole() as merged:
            assert merged is not None
            return [*seen, state_of(merged)]

    plain, looked = (in_turn(job, 3, look) for look in (False, True))
    assert all(same(found[-1], plain[0][-1]) for found in (*plain, *looked))
    assert not same(looked[0][0], looked[0][1])


# ------------------------------------------------------------------- a shorter wire


def trained(wire: str | None, strategy: Any, steps: int = 12) -> Any:
    torch.manual_seed(3)
    training = Training(perceptron(), EXAMPLE, sgd, strategy, local_steps=4, wire=wire)
    sent = []
    for step in range(steps):
        take_step(training, step)
        if step in (4, steps - 1):  # in the second round, which opens after the bytes of the first; at the end
            sent.append(training.account().sent_bytes)
    with training.whole() as merged:
        assert merged is not None
        return state_of(merged), [last - first for first, last in zip(*sent, strict=True)]


@pytest.mark.processes
@pytest.mark.parametrize("wire", ["bf16", "fp16"])
@pytest.mark.parametrize("strategy", [*ON_ANY, IST(Core(Fixed(), 0.3))], ids=str)
def test_a_shorter_wire_halves_the_bytes_and_rounds_changes_alone(wire: str, strategy: Any) -> None:
    found = in_turn(trained, 3, wire, strategy)
    real = wire == "bf16" and strategy in ("ist", "narrow")
    for other in (*found, *(processes(trained, 3, wire, strategy) if real else ())):
        assert same(other[0], found[0][0])
    exact, full = in_turn(trained, 3, None, strategy)[0]
    state, sent = found[0]
    assert [2 * each for each in sent] == full
    for name, tensor in state.items():
        assert 0 < (tensor - exact[name]).norm() <= 0.02 * exact[name].norm() + 1e-3, name


def test_changes_too_small_for_a_short_wire_add_up() -> None:
    """Every round adds 2^-12 to weights near 1, far less than bf16 can show beside them."""

    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(2, 4), nn.Linear(4, 2)
            for parameter in self.parameters():
                nn.init.ones_(parameter)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.last(self.first(x).relu())
            return out

    def job() -> dict[str, Tensor]:
        make = lambda module: torch.optim.SGD(module.parameters(), lr=2.0**-12)  # noqa: E731
        training = Training(Counter(), (torch.zeros(2, 2),), make, law="uniform", local_steps=1, wire="bf16")
        for _ in range(64):
            training.module(torch.ones(2, 2))
            for parameter in training.module.parameters():
                parameter.grad = -torch.ones_like(parameter)
            training.optimizer.step()
        training.close()
        with training.whole() as merged:
            assert merged is not None
            return state_of(merged)

    state = in_turn(job, 2)[0]
    assert torch.equal(state["first.weight"], torch.full((4, 2), 1 + 64 * 2.0**-12))
    assert torch.equal(state["last.bias"], torch.full((2,), 1 + 64 * 2.0**-12))


def test_a_wire_without_effect_is_refused() -> None:
    with pytest.raises(InvalidInput, match="`wire` has no effect with one worker: nothing travels"):
        Training(perceptron(), EXAMPLE, sgd, wire="bf16")
    with pytest.raises(InvalidInput, match="`wire` must be one of bf16, fp16, got 'int8'"):
        in_turn(lambda: Training(perceptron(), EXAMPLE, sgd, wire="int8"), 2)
