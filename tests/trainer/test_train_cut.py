"""What a worker of IST trains, what the merge keeps, what its rivals train."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from isthmus.trainer.evaluate import Evaluator
from isthmus.trainer.exchange import Meter
from isthmus.trainer.executors.serial import step_together
from isthmus.trainer.loop import make_worker
from isthmus.trainer.round import Worker
from isthmus.trainer.samples import Samples
from isthmus.trainer.setup import set_up
from torch import Tensor

from isthmus.nets.merge import holders
from isthmus.nets.mlp import MLP, MLPSpec, initialize, parameter_count
from isthmus.trainer import TrainConfig
from isthmus.trainer.strategies import STRATEGIES, Whole
from isthmus.trainer.strategies.ist import IST
from isthmus.trainer.strategies.narrow import widest

CONFIG = TrainConfig(
    widths=(16, 12), samples=4 * 16 * 13, local_steps=5, batch_size=16, lr=0.1, executor="serial", norm="none"
)


def workers_of(config: TrainConfig) -> list[Worker]:
    return [make_worker(set_up(config), index, torch.device("cpu")) for index in range(config.workers)]


def run_rounds(config: TrainConfig, rounds: int) -> list[Any]:
    """All workers of a strategy after some rounds."""
    strategies = [STRATEGIES[config.strategy](worker) for worker in workers_of(config)]
    step_together([strategy.start() for strategy in strategies], [Meter() for _ in strategies])
    for number, steps in itertools.islice(enumerate(config.steps_by_round), rounds):
        step_together([s.round(number, steps) for s in strategies], [Meter() for _ in strategies])
    return strategies


def weights(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("law", ["fixed", "rotated", "uniform", "rolling"])
def test_a_round_changes_what_was_held_and_nothing_else(law: str) -> None:
    config = dataclasses.replace(CONFIG, law=law)
    network = set_up(config).network
    after, before = weights(run_rounds(config, 1)[0].whole().model), weights(network.make())
    held = holders(network.coupling, network.partition(0))
    for name, values in after.items():
        owned = torch.from_numpy(held[name] > 0)
        assert torch.equal(values[~owned], before[name][~owned])
        moved = (values != before[name]) & owned
        assert moved.double().mean() > 0.5 * owned.double().mean(), name


def test_cross_blocks_stay_zero_under_block() -> None:
    config = dataclasses.replace(CONFIG, law="block")
    state = weights(run_rounds(config, 3)[0].whole().model)
    partition = set_up(config).network.partition(0)
    owner = [np.empty(width, dtype=int) for width in config.widths]
    for layer in range(2):
        for worker, units in enumerate(partition.held[f"hidden.{layer}"]):
            owner[layer][units] = worker
    crossing = torch.from_numpy(owner[1][:, None] != owner[0][None, :])
    assert torch.all(state["hidden.1.weight"][crossing] == 0)
    assert torch.all(state["hidden.1.weight"][~crossing] != 0)


def test_the_last_short_round_is_merged_too() -> None:
    """13 steps in rounds of 5, 5 and 3: at the end the whole model holds every worker's very weights."""
    config = dataclasses.replace(CONFIG, law="uniform")
    assert [len(steps) for steps in config.steps_by_round] == [5, 5, 3]
    strategies = run_rounds(config, 3)
    whole = weights(strategies[0].whole().model)
    for strategy in strategies:
        for name, values in weights(strategy.trained).items():
            if name != "output.bias":
                assert torch.equal(strategy._piece.slice(name, whole[name]), values)
    biases = torch.stack([weights(strategy.trained)["output.bias"] for strategy in strategies])
    torch.testing.assert_close(whole["output.bias"], biases.mean(dim=0))


def test_workers_hold_only_their_piece() -> None:
    strategies = run_rounds(CONFIG, 1)
    assert all(isinstance(strategy, IST) and strategy._whole is None for strategy in strategies[1:])
    piece = parameter_count(MLPSpec(64, (4, 3), 10, norm="none"))
    assert [sum(p.numel() for p in strategy.trained.parameters()) for strategy in strategies] == [piece] * 4


@pytest.mark.parametrize("core", [0.0, 0.3])
def test_narrow_is_as_wide_as_the_widest_piece(core: float) -> None:
    config = dataclasses.replace(CONFIG, strategy="narrow", widths=(33, 18), core=core)
    held = widest(set_up(config).network)
    sizes = [len(held["hidden.0"]), len(held["hidden.1"])]
    assert sizes == ([9, 5] if not core else [16, 9])  # 10 + 6 and 5 + 4 (of 13 over 4)
    trained = run_rounds(config, 1)[2].trained
    assert sum(p.numel() for p in trained.parameters()) == parameter_count(MLPSpec(64, tuple(sizes), 10, norm="none"))


def test_narrow_starts_from_the_weights_of_a_network_built_narrow() -> None:
    """Hidden weights have variance 2 / fan-in and output weights 1 / fan-in, with the fan-in that is left."""
    config = dataclasses.replace(CONFIG, strategy="narrow", widths=(400, 400), workers=4)
    state = weights(run_rounds(config, 0)[1].trained)
    for name, fan_in, gain in (("hidden.0", 64, 2.0), ("hidden.1", 100, 2.0), ("output", 100, 1.0)):
        values = state[f"{name}.weight"]
        assert values.shape[1] == fan_in
        spread = 4 / values.numel() ** 0.5  # of a variance, in four standard errors over sqrt(2)
        assert values.var().item() * fan_in / gain == pytest.approx(1.0, abs=1.5 * spread)


def test_the_data_parallel_gradient_is_that_of_the_big_batch() -> None:
    """One step of 4 workers with 16 samples each equals one step on the 64 samples together (no norm over a batch)."""
    config = dataclasses.replace(CONFIG, strategy="data-parallel", local_steps=1, samples=64, warmup=0.0)
    after = weights(run_rounds(config, 1)[0].whole().model)
    network = set_up(config).network
    model = network.make()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    (sum(worker.loss(network.caller(model), 0) for worker in workers_of(config)) / 4).backward()
    optimizer.step()
    for name, values in weights(model).items():
        torch.testing.assert_close(after[name], values, rtol=1e-5, atol=1e-6)


def test_statistics_are_those_of_the_merged_network() -> None:
    network = set_up(dataclasses.replace(CONFIG, norm="batch")).network
    model = network.make()
    samples = Samples(torch.randn(200, 64), torch.zeros(200, dtype=torch.int64))
    evaluator = Evaluator(network, samples, samples, samples, False)
    with evaluator.ready(Whole(model)) as ready:
        first = ready.hidden[0](samples.features)
        torch.testing.assert_close(ready.norms[0].running_mean, first.mean(dim=0), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(ready.norms[0].running_var, first.var(dim=0), rtol=1e-5, atol=1e-6)
        tested = ready(samples.features)
    in_training = initialize(MLP(model.spec), CONFIG.seed).train()
    torch.testing.assert_close(tested, in_training(samples.features), rtol=2e-2, atol=2e-2)  # 1/m against 1/(m - 1)


def test_scales_of_the_evaluation_leave_the_weights_as_they_were() -> None:
    strategy = run_rounds(dataclasses.replace(CONFIG, law="block"), 1)[0]
    whole = strategy.whole()
    before = {name: values.clone() for name, values in weights(whole.model).items()}
    samples = workers_of(CONFIG)[0].samples
    evaluator = Evaluator(set_up(CONFIG).network, samples, samples, samples, True)
    with evaluator.ready(whole, 2.0) as model:
        expected = before["output.weight"] * 0.25 * 2.0
        torch.testing.assert_close(dict(model.named_parameters())["output.weight"].detach(), expected)
    assert all(torch.equal(values, before[name]) for name, values in weights(whole.model).items())
