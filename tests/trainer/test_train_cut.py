"""What a worker of IST trains, what the merge keeps, what its rivals train."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from isthmus.nets.models.mlp import MLP, MLPSpec, initialize, parameter_count
from isthmus.nets.pieces.merge import holders
from isthmus.trainer import configure
from isthmus.trainer.executors.in_turn import run_in_turn
from isthmus.trainer.local.loop import Loop
from isthmus.trainer.strategies.ist import ISTPart
from isthmus.trainer.strategies.narrow import widest
from isthmus.trainer.task.network import Network
from isthmus.trainer.task.setup import Setup, set_up
from isthmus.trainer.task.shares import batch_at
from isthmus.trainer.training import Training

SMALL: dict[str, Any] = {
    "widths": (16, 12), "samples": 4 * 16 * 13, "local_steps": 5, "batch_size": 16, "lr": 0.1, "norm": "none",
}  # fmt: skip
CPU = torch.device("cpu")


def setup_of(**changes: Any) -> Setup:
    unscaled = {} if "strategy" in changes else {"scale": "none"}
    return set_up(configure(**{**SMALL, **unscaled, **changes}), CPU)


def run_rounds(setup: Setup, rounds: int) -> list[Training]:
    """All workers' trainings after some rounds: each merged, none ended."""
    return [training for training, _ in _run(setup, rounds)]


def merged(setup: Setup, rounds: int) -> dict[str, Tensor]:
    """The weights of the merged network after some rounds."""
    return _run(setup, rounds)[0][1]


def _run(setup: Setup, rounds: int) -> list[tuple[Training, dict[str, Tensor]]]:
    return run_in_turn(_rounds, [(setup, rounds)] * setup.config.workers)


def _rounds(setup: Setup, rounds: int) -> tuple[Training, dict[str, Tensor]]:
    config = setup.config
    training = Training(
        setup.network,
        optimizer=config.optimizer.make,
        strategy=config.strategy,
        local_steps=config.local_steps,
        seed=config.seed,
        keep_state=config.keeps_state,
    )
    loop = Loop(config, training, setup.objective, setup.shares.of(training.worker, CPU))
    for number, steps in enumerate(config.steps_by_round[:rounds]):
        loop.round(number, steps)
        training.merge()
    with training.whole() as model:
        assert model is not None
        return training, {name: values.clone() for name, values in weights(model).items()}


def partition_of(setup: Setup) -> Any:
    config = setup.config
    return setup.network.coupling.partition(config.workers, config.seed, 0, config.strategy.dealt)


def weights(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("law", ["fixed", "rotated", "uniform", "rolling"])
def test_a_round_changes_what_was_held_and_nothing_else(law: str) -> None:
    setup = setup_of(law=law)
    after, before = merged(setup, 1), weights(setup.network.make())
    held = holders(setup.network.coupling, partition_of(setup))
    for name, values in after.items():
        owned = torch.from_numpy(held[name] > 0)
        assert torch.equal(values[~owned], before[name][~owned])
        moved = (values != before[name]) & owned
        assert moved.double().mean() > 0.5 * owned.double().mean(), name


def test_cross_blocks_stay_zero_under_block() -> None:
    setup = setup_of(law="block")
    state, partition = merged(setup, 3), partition_of(setup)
    owner = [np.empty(width, dtype=int) for width in SMALL["widths"]]
    for layer in range(2):
        for worker, units in enumerate(partition.held[f"hidden.{layer}"]):
            owner[layer][units] = worker
    crossing = torch.from_numpy(owner[1][:, None] != owner[0][None, :])
    assert torch.all(state["hidden.1.weight"][crossing] == 0)
    assert torch.all(state["hidden.1.weight"][~crossing] != 0)


def test_the_last_short_round_is_merged_too() -> None:
    """13 steps in rounds of 5, 5 and 3: at the end the whole model holds every worker's very weights."""
    setup = setup_of(law="uniform")
    assert [len(steps) for steps in setup.config.steps_by_round] == [5, 5, 3]
    results = _run(setup, 3)
    trainings, (whole, *_) = zip(*results, strict=True)
    for training in trainings:
        assert isinstance(training._members.part, ISTPart)
        for name, values in weights(training.module).items():
            if name != "output.bias":
                assert torch.equal(training._members.part._piece.slice(name, whole[name]), values)
    biases = torch.stack([weights(training.module)["output.bias"] for training in trainings])
    torch.testing.assert_close(whole["output.bias"], biases.mean(dim=0))


def test_workers_hold_only_their_piece_and_their_shards() -> None:
    trainings = run_rounds(setup_of(), 1)
    shapes = {name: values.shape for name, values in weights(trainings[0]._network.make()).items()}
    for worker, training in enumerate(trainings):
        rows = {name: shape[0] for name, shape in shapes.items()}
        sizes = {name: -(-count // 4) for name, count in rows.items()}
        shard = {name: min(rows[name], (worker + 1) * size) - worker * size for name, size in sizes.items()}
        assert {n: t.shape for n, t in training._rounds.state.tensors.items()} == {
            name: (shard[name], *shapes[name][1:]) for name in rows
        }
    piece = parameter_count(MLPSpec(64, (4, 3), 10, norm="none"))
    assert [sum(p.numel() for p in training.module.parameters()) for training in trainings] == [piece] * 4


@pytest.mark.parametrize("core", [0.0, 0.3])
def test_narrow_is_as_wide_as_the_widest_piece(core: float) -> None:
    setup = setup_of(strategy="narrow", widths=(33, 18), core=core)
    held = widest(partition_of(setup))
    sizes = [len(held["hidden.0"]), len(held["hidden.1"])]
    assert sizes == ([9, 5] if not core else [16, 9])  # 10 + 6 and 5 + 4 (of 13 over 4)
    network = run_rounds(setup, 1)[2].module
    assert sum(p.numel() for p in network.parameters()) == parameter_count(MLPSpec(64, tuple(sizes), 10, norm="none"))


def test_narrow_starts_from_the_weights_of_a_network_built_narrow() -> None:
    """Hidden weights have variance 2 / fan-in and output weights 1 / fan-in, with the fan-in that is left."""
    state = weights(run_rounds(setup_of(strategy="narrow", widths=(400, 400)), 0)[1].module)
    for name, fan_in, gain in (("hidden.0", 64, 2.0), ("hidden.1", 100, 2.0), ("output", 100, 1.0)):
        values = state[f"{name}.weight"]
        assert values.shape[1] == fan_in
        spread = 4 / values.numel() ** 0.5  # of a variance, in four standard errors over sqrt(2)
        assert values.var().item() * fan_in / gain == pytest.approx(1.0, abs=1.5 * spread)


def test_the_data_parallel_gradient_is_that_of_the_big_batch() -> None:
    """One step of 4 workers with 16 samples each equals one step on the 64 samples together (no norm over a batch)."""
    setup = setup_of(strategy="data-parallel", local_steps=1, samples=64, warmup=0.0)
    after = merged(setup, 1)
    model = setup.network.make()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    batches = [first_batch(setup, worker) for worker in range(4)]
    inputs, targets = (torch.cat([batch[side] for batch in batches]) for side in (0, 1))
    torch.nn.functional.cross_entropy(model(inputs), targets).backward()
    optimizer.step()
    for name, values in weights(model).items():
        torch.testing.assert_close(after[name], values, rtol=1e-5, atol=1e-6)


def first_batch(setup: Setup, worker: int) -> tuple[Tensor, Tensor]:
    share = setup.shares.of(worker, CPU)
    positions = batch_at(setup.config.seed, setup.config.step.batch_size, worker, share.count, 0)
    batch = share.batch(positions)
    return batch.args[0], batch.targets


def test_statistics_are_those_of_the_merged_network() -> None:
    """The perceptron standardizes within itself; here by constants that do nothing."""
    inputs = torch.randn(200, 64)
    training = alone(setup_of(norm="batch", features="raw", workers=1).network)
    training.recalibrate([inputs])
    with training.whole() as ready:
        assert isinstance(ready, MLP)
        first = ready.hidden[0](inputs)
        torch.testing.assert_close(ready.norms[0].running_mean, first.mean(dim=0), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(ready.norms[0].running_var, first.var(dim=0), rtol=1e-5, atol=1e-6)
        tested = ready(inputs)
    in_training = initialize(MLP(ready.spec), 0).train()
    torch.testing.assert_close(tested, in_training(inputs), rtol=2e-2, atol=2e-2)  # 1/m against 1/(m - 1)


def alone(network: Network) -> Training:
    return Training(network, optimizer=lambda module: torch.optim.SGD(module.parameters(), lr=0.1))


def test_scales_of_the_evaluation_are_on_the_merged_weights() -> None:
    plain, used = (merged(setup_of(law="block", scale=scale), 1) for scale in ("none", "expected"))
    assert torch.equal(used["output.weight"], plain["output.weight"] * 0.25)
    assert torch.equal(used["hidden.0.weight"], plain["hidden.0.weight"])
