"""What a worker of IST trains, what the merge keeps, and which scale makes the merged network match its pieces."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from isthmus.nets.mlp import MLP, MLPSpec, index_map, initial_state, parameter_count, parameter_shapes
from isthmus.nets.ownership import slice_state
from isthmus.partitions import LAWS, partition_at
from isthmus.train import TrainConfig
from isthmus.train.evaluate import Evaluator, recalibrate
from isthmus.train.exchange import Meter
from isthmus.train.executors.serial import step_together
from isthmus.train.loop import make_worker
from isthmus.train.scaling import evaluation_scales, zero_cross_blocks
from isthmus.train.shards import load_shards
from isthmus.train.strategies import STRATEGIES, Whole
from isthmus.train.strategies.ist import IST
from isthmus.train.strategies.ist import partitions as partitions_of
from isthmus.train.strategies.narrow import narrow_spec

PLAIN = MLPSpec(inputs=5, widths=(8, 6), outputs=3, activation="tanh", norm="none")


def network(spec: MLPSpec, state: dict[str, Tensor]) -> MLP:
    model = MLP(spec)
    model.load_state_dict(state)
    return model.double()


def noisy_state(spec: MLPSpec) -> dict[str, Tensor]:
    """An initial state with biases that are not zero, so that a forgotten one is seen."""
    random = np.random.Generator(np.random.Philox(5))
    state = initial_state(spec, 0)
    return {name: t + torch.from_numpy(random.normal(0, 0.1, t.shape)).to(t.dtype) for name, t in state.items()}


def features(spec: MLPSpec, samples: int = 7) -> Tensor:
    return torch.from_numpy(np.random.Generator(np.random.Philox(6)).standard_normal((samples, spec.inputs)))


def pieces(spec: MLPSpec, state: dict[str, Tensor], law: str, workers: int, core: float = 0.0) -> list[MLP]:
    held = [partition_at(law, d, workers, 0, f"hidden{i}", 0, core) for i, d in enumerate(spec.widths)]
    return [
        network(
            spec.with_widths([p.sizes[w] for p in held]),
            slice_state(state, index_map(spec, [p.held(w) for p in held])),
        )
        for w in range(workers)
    ]


@pytest.mark.parametrize(("workers", "core"), [(1, 0.0), (2, 0.0), (3, 0.0), (3, 0.25)])
def test_a_piece_computes_what_the_whole_does_with_the_other_units_zeroed(workers: int, core: float) -> None:
    state, x = noisy_state(PLAIN), features(PLAIN)
    held = [partition_at("uniform", d, workers, 0, f"hidden{i}", 0, core) for i, d in enumerate(PLAIN.widths)]
    for worker, piece in enumerate(pieces(PLAIN, state, "uniform", workers, core)):
        whole, values = network(PLAIN, state), x
        for layer, linear in enumerate(whole.hidden):
            alive = torch.zeros(PLAIN.widths[layer], dtype=torch.float64)
            alive[held[layer].held(worker)] = 1.0
            values = torch.tanh(linear(values)) * alive
        masked, cut = whole.output(values), piece(x)
        torch.testing.assert_close(cut, masked, rtol=0, atol=1e-12)
        cut.square().sum().backward()
        masked.square().sum().backward()
        gradients = {name: p.grad for name, p in whole.named_parameters() if p.grad is not None}
        expected = slice_state(gradients, index_map(PLAIN, [p.held(worker) for p in held]))
        for name, parameter in piece.named_parameters():
            torch.testing.assert_close(parameter.grad, expected[name], rtol=0, atol=1e-12)


def test_shapes_follow_the_cut() -> None:
    """Four workers: the outer matrices shrink by 4, those between hidden layers by 16; inputs and outputs are whole."""
    spec = MLPSpec(inputs=10, widths=(40, 20), outputs=7)
    piece = parameter_shapes(spec.with_widths([10, 5]))
    assert dict(piece) == {
        "hidden.0.weight": (10, 10),
        "hidden.1.weight": (5, 10),
        "norms.0.weight": (10,),
        "norms.0.bias": (10,),
        "norms.1.weight": (5,),
        "norms.1.bias": (5,),
        "output.weight": (7, 5),
        "output.bias": (7,),
    }
    assert parameter_count(spec) == sum(p.numel() for p in MLP(spec).parameters())


def scaled(spec: MLPSpec, state: dict[str, Tensor], law: str, workers: int, core: float) -> MLP:
    held = [partition_at(law, d, workers, 0, f"hidden{i}", 0, core) for i, d in enumerate(spec.widths)]
    scales = evaluation_scales(law, held)
    return network(spec, {name: t * scales[name] if name in scales else t for name, t in state.items()})


@pytest.mark.parametrize(("law", "core"), [*((law, 0.0) for law in LAWS), *((law, 0.25) for law in LAWS[1:])])
def test_one_hidden_layer_gives_the_mean_of_the_pieces_logits(law: str, core: float) -> None:
    """One hidden layer: mean over workers of (core + piece) = core + (1/n) all pieces, exactly."""
    spec = MLPSpec(inputs=5, widths=(8,), outputs=3, norm="none")
    state, x = noisy_state(spec), features(spec)
    mean = torch.stack([piece(x) for piece in pieces(spec, state, law, 3, core)]).mean(dim=0)
    torch.testing.assert_close(scaled(spec, state, law, 3, core)(x), mean, rtol=1e-6, atol=1e-7)


def test_a_block_network_is_the_mean_of_its_pieces_at_any_depth() -> None:
    spec = MLPSpec(inputs=5, widths=(8, 9, 7), outputs=3, norm="none")
    state, x = noisy_state(spec), features(spec)
    zero_cross_blocks(state, [partition_at("block", d, 3, 0, f"hidden{i}") for i, d in enumerate(spec.widths)])
    mean = torch.stack([piece(x) for piece in pieces(spec, state, "block", 3)]).mean(dim=0)
    torch.testing.assert_close(scaled(spec, state, "block", 3, 0.0)(x), mean, rtol=1e-6, atol=1e-7)


def test_a_core_units_input_under_block_is_the_mean_over_workers() -> None:
    """The second layer's core units see core + (1/n) of every piece; its other units see what they saw in training."""
    spec = MLPSpec(inputs=5, widths=(8, 8), outputs=3, norm="none")
    state, x = noisy_state(spec), features(spec)
    held = [partition_at("block", d, 3, 0, f"hidden{i}", 0, 0.25) for i, d in enumerate(spec.widths)]
    zero_cross_blocks(state, held)
    merged = scaled(spec, state, "block", 3, 0.25)
    inner = merged.hidden[1](torch.relu(merged.hidden[0](x)))
    total = torch.zeros_like(inner)
    count = torch.zeros(8, dtype=torch.float64)
    for worker, piece in enumerate(pieces(spec, state, "block", 3, 0.25)):
        mine = held[1].held(worker)
        total[:, mine] += piece.hidden[1](torch.relu(piece.hidden[0](x)))
        count[mine] += 1
    torch.testing.assert_close(inner, total / count, rtol=1e-6, atol=1e-7)


def test_the_uniform_scale_is_how_often_a_unit_is_held() -> None:
    """d = 7, n = 2, core round(0.3 * 7) = 2: every unit is held with probability (2 + 5/2) / 7."""
    rounds = 4000
    held = np.zeros(7)
    for number in range(rounds):
        held[partition_at("uniform", 7, 2, 0, "axis", number, 0.3).held(0)] += 1
    scale = evaluation_scales("uniform", [partition_at("uniform", 7, 2, 0, "axis", 0, 0.3)])["output.weight"]
    assert scale[0].tolist() == pytest.approx([4.5 / 7] * 7)
    sigma = np.sqrt(4.5 / 7 * 2.5 / 7 / rounds)
    assert np.all(np.abs(held / rounds - 4.5 / 7) < 4.5 * sigma)


CONFIG = TrainConfig(
    widths=(16, 12), samples=4 * 16 * 13, local_steps=5, batch_size=16, lr=0.1, executor="serial", norm="none"
)


def run_rounds(config: TrainConfig, rounds: int) -> list[Any]:
    """All workers of a strategy after some rounds."""
    shards = load_shards(config)
    workers = [make_worker(config, shards, index, torch.device("cpu")) for index in range(config.workers)]
    spec = MLPSpec(shards.train.dim, config.widths, shards.train.classes, config.activation, config.norm)
    strategies = [STRATEGIES[config.strategy](spec, worker) for worker in workers]
    for number, steps in itertools.islice(enumerate(config.steps_by_round), rounds):
        step_together([s.round(number, steps) for s in strategies], [Meter() for _ in workers])
    return strategies


@pytest.mark.parametrize("law", ["fixed", "rotated", "uniform"])
def test_a_round_changes_what_was_held_and_nothing_else(law: str) -> None:
    config = dataclasses.replace(CONFIG, law=law)
    root = run_rounds(config, 1)[0].whole()
    before = initial_state(root.spec, config.seed)
    held = partitions_of(root.spec, config, 0)
    for name, after in root.state.items():
        owned = torch.zeros_like(after, dtype=torch.bool)
        for worker in range(4):
            places = index_map(root.spec, [p.held(worker) for p in held])[name]
            axes = [torch.arange(s) if p is None else torch.tensor(p) for s, p in zip(after.shape, places, strict=True)]
            owned[torch.meshgrid(*axes, indexing="ij")] = True
        assert torch.equal(after[~owned], before[name][~owned])
        moved = (after != before[name]) & owned
        assert moved.double().mean() > 0.5 * owned.double().mean(), name


def test_cross_blocks_stay_zero_under_block() -> None:
    config = dataclasses.replace(CONFIG, law="block")
    state = run_rounds(config, 3)[0].whole().state
    owner = [np.empty(d, dtype=int) for d in config.widths]
    for layer, partition in enumerate(partitions_of(MLPSpec(64, config.widths, 10), config, 0)):
        for worker, block in enumerate(partition.blocks):
            owner[layer][block] = worker
    crossing = torch.from_numpy(owner[1][:, None] != owner[0][None, :])
    assert torch.all(state["hidden.1.weight"][crossing] == 0)
    assert torch.all(state["hidden.1.weight"][~crossing] != 0)


def test_the_last_short_round_is_merged_too() -> None:
    """13 steps in rounds of 5, 5 and 3: at the end the whole model holds every worker's very weights."""
    config = dataclasses.replace(CONFIG, law="uniform")
    assert [len(steps) for steps in config.steps_by_round] == [5, 5, 3]
    strategies = run_rounds(config, 3)
    whole = strategies[0].whole()
    held = partitions_of(whole.spec, config, 2)
    for worker, strategy in enumerate(strategies):
        places = index_map(whole.spec, [p.held(worker) for p in held])
        expected = slice_state({k: v for k, v in whole.state.items() if k != "output.bias"}, places)
        for name, values in expected.items():
            assert torch.equal(strategy.trained.state_dict()[name], values)
    biases = torch.stack([strategy.trained.output.bias.detach() for strategy in strategies])
    torch.testing.assert_close(whole.state["output.bias"], biases.mean(dim=0))


def test_workers_hold_only_their_piece() -> None:
    strategies = run_rounds(CONFIG, 1)
    assert all(isinstance(strategy, IST) and not strategy._state for strategy in strategies[1:])
    piece = parameter_count(MLPSpec(64, (4, 3), 10, norm="none"))
    assert [sum(p.numel() for p in strategy.trained.parameters()) for strategy in strategies] == [piece] * 4


@pytest.mark.parametrize("core", [0.0, 0.3])
def test_narrow_is_as_wide_as_the_widest_piece(core: float) -> None:
    config = dataclasses.replace(CONFIG, widths=(33, 18), core=core)
    spec = MLPSpec(64, config.widths, 10)
    sizes = [max(p.sizes) for p in partitions_of(spec, config, 0)]
    assert narrow_spec(spec, config).widths == tuple(sizes)
    assert sizes == ([9, 5] if not core else [16, 9])  # 10 + 6 and 5 + 4 (of 13 over 4)


def test_the_data_parallel_gradient_is_that_of_the_big_batch() -> None:
    """One step of 4 workers with 16 samples each equals one step on the 64 samples together (no norm over a batch)."""
    config = dataclasses.replace(CONFIG, strategy="data-parallel", local_steps=1, samples=64, warmup=0.0)
    after = run_rounds(config, 1)[0].whole()
    shards = load_shards(config)
    workers = [make_worker(config, shards, index, torch.device("cpu")) for index in range(4)]
    model = MLP(after.spec)
    model.load_state_dict(initial_state(after.spec, config.seed))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    (sum(worker.loss(model, 0) for worker in workers) / 4).backward()
    optimizer.step()
    for name, values in model.state_dict().items():
        torch.testing.assert_close(after.state[name], values, rtol=1e-5, atol=1e-6)


def test_statistics_are_those_of_the_merged_network() -> None:
    spec = MLPSpec(inputs=5, widths=(8, 6), outputs=3)
    state, x = initial_state(spec, 0), features(spec, 200).float()
    evaluator = Evaluator(x, (x, torch.zeros(200, dtype=torch.int64)), (x, torch.zeros(200, dtype=torch.int64)), False)
    model = evaluator.model(Whole(spec, state))
    first = model.hidden[0](x)
    torch.testing.assert_close(model.norms[0].running_mean, first.mean(dim=0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(model.norms[0].running_var, first.var(dim=0), rtol=1e-5, atol=1e-6)
    in_training = MLP(spec)
    in_training.load_state_dict(state)
    torch.testing.assert_close(model(x), in_training.train()(x), rtol=2e-2, atol=2e-2)  # 1/m against 1/(m - 1)
    recalibrate(torch.nn.Linear(2, 2), x)  # nothing to do
