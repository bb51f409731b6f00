"""DiLoCo against its definition, worked out by one process; and the networks cut in depth beside it."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch.nn import functional

from cases.loops import batch, in_turn, perceptron, sgd, state_of, take_step
from isthmus import Training
from isthmus.errors import InvalidInput
from isthmus.strategies import DiLoCo, LocalSGD, Narrow, Shallow, Strategy
from isthmus.trainer import configure, train
from isthmus.trainer.strategies.diloco import fragments

EXAMPLE = (torch.zeros(2, 6),)
WORKERS, STEPS, ROUNDS = 3, 2, 5


def job(strategy: Strategy, rounds: int = ROUNDS, **more: Any) -> dict[str, Any]:
    torch.manual_seed(7)
    training = Training(perceptron(), EXAMPLE, sgd, strategy, local_steps=STEPS, **more)
    sent = [training.account().sent_bytes[training.worker]]
    for step in range(rounds * STEPS):
        take_step(training, step)
        if training.merged:
            sent.append(training.account().sent_bytes[training.worker])
    own = state_of(training.module)
    with training.whole() as merged:
        assert merged is not None
        return {"weights": state_of(merged), "own": own, "sent": [b - a for a, b in pairwise(sent)]}


def twin(strategy: DiLoCo) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the outer network and those of the workers, after all rounds."""
    torch.manual_seed(7)
    outer = perceptron()
    nets = [perceptron() for _ in range(WORKERS)]
    for net in nets:
        net.load_state_dict(outer.state_dict())
    inner = [sgd(net) for net in nets]
    momentum = {name: torch.zeros_like(p) for name, p in outer.named_parameters()}
    parts = fragments(dict(outer.named_parameters()), strategy.fragments)
    for number in range(ROUNDS):
        for worker, (net, optimizer) in enumerate(zip(nets, inner, strict=True)):
            for step in range(number * STEPS, (number + 1) * STEPS):
                x, y = batch(worker, step)
                functional.cross_entropy(net(x), y).backward()
                optimizer.step()
                optimizer.zero_grad()
        with torch.no_grad():
            for name in parts[number % len(parts)]:
                whole = outer.get_parameter(name)
                change = torch.stack([whole - net.get_parameter(name) for net in nets]).mean(0)
                momentum[name] = strategy.outer_momentum * momentum[name] + change
                whole -= strategy.outer_lr * (change + strategy.outer_momentum * momentum[name])
                for net in nets:
                    net.get_parameter(name).copy_(whole)
    return state_of(outer), [state_of(net) for net in nets]


@pytest.mark.parametrize("count", [1, 2, 6, 99])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_it_does_what_its_definition_says(count: int, momentum: float) -> None:
    strategy = DiLoCo(outer_momentum=momentum, fragments=count)
    outer, nets = twin(strategy)
    for found, net in zip(in_turn(job, WORKERS, strategy), nets, strict=True):
        torch.testing.assert_close(found["weights"], outer, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found["own"], net, rtol=1e-5, atol=1e-6)


def test_with_whole_outer_steps_and_no_momentum_it_is_local_sgd() -> None:
    expected = in_turn(job, WORKERS, LocalSGD())[0]["weights"]
    found = in_turn(job, WORKERS, DiLoCo(outer_lr=1.0, outer_momentum=0.0))[0]["weights"]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_in_fragments_a_round_moves_as_many_times_less_and_all_rounds_of_a_turn_the_same() -> None:
    whole = in_turn(job, WORKERS, DiLoCo())[0]["sent"]
    parts = in_turn(job, WORKERS, DiLoCo(fragments=3), 6)[0]["sent"]
    assert len(set(whole)) == 1
    assert sum(parts[:3]) == sum(parts[3:]) == whole[0]
    assert max(parts) < 0.65 * whole[0]  # the largest tensor is more than a third


def test_fragments_are_all_parameters_once_in_parts_of_about_the_same_size() -> None:
    trained = {f"p{i}": torch.zeros(size) for i, size in enumerate([7, 1, 5, 5, 3, 9, 2, 4])}
    for number in (1, 2, 3, 8, 20):
        parts = fragments(trained, number)
        assert sorted(name for part in parts for name in part) == sorted(trained)
        sizes = [sum(trained[name].numel() for name in part) for part in parts]
        assert min(sizes) > 0
        assert max(sizes) <= max(9, 1.5 * 36 / len(parts))


@pytest.mark.parametrize(
    ("values", "what"),
    [({"outer_lr": 0.0}, "outer_lr"), ({"outer_momentum": 1.0}, "outer_momentum"), ({"fragments": 0}, "fragments")],
)
def test_values_out_of_range_are_refused(values: dict[str, Any], what: str) -> None:
    with pytest.raises(InvalidInput, match=f"`{what}` must be"):
        DiLoCo(**values)


def test_a_checkpoint_of_three_is_gone_on_from_by_two(tmp_path: Any) -> None:
    def first() -> dict[str, Any]:
        training = Training(perceptron, EXAMPLE, sgd, DiLoCo(fragments=2), local_steps=1)
        for step in range(3):
            take_step(training, step)
        training.save(tmp_path)
        with training.whole() as merged:
            assert merged is not None
            return state_of(merged)

    def second() -> tuple[dict[str, Any], dict[str, Any]]:
        training = Training(perceptron, EXAMPLE, sgd, DiLoCo(fragments=2), local_steps=1)
        training.resume(tmp_path)
        with training.whole() as merged:
            assert merged is not None
            found = state_of(merged)
        take_step(training, 3)
        with training.whole() as merged:
            assert merged is not None
            return found, state_of(merged)

    before = in_turn(first, 3)[0]
    (found, later), (_, others) = in_turn(second, 2)
    assert all(torch.equal(found[name], value) for name, value in before.items())
    assert all(torch.equal(later[name], value) for name, value in others.items())


def test_the_shallow_network_is_as_deep_as_a_piece_and_as_wide_as_the_whole(tmp_path: Any) -> None:
    own = {"data": "digits", "model": "cases.trainable:deep", "rounds": 1, "local_steps": 1, "executor": "serial"}
    shallow = train(configure(**own, strategy="shallow", workers=2, out=tmp_path / "shallow")).summary
    narrow = train(configure(**own, strategy="narrow", cut=("block",), workers=2, out=tmp_path / "narrow")).summary
    assert shallow["weights_sha256"] == narrow["weights_sha256"]
    assert shallow["cut_axes"] == narrow["cut_axes"] != {}
    assert Shallow().check_cut(None) == ("block",)
    assert Narrow().check_cut(None) is None


def test_a_shallow_network_needs_blocks_and_cuts_nothing_else() -> None:
    with pytest.raises(InvalidInput, match="`cut` has no effect with strategy 'shallow', which cuts block"):
        configure(strategy="shallow", cut=("hidden",), model=perceptron)
    with pytest.raises(InvalidInput, match="block"):
        train(configure(data="digits", strategy="shallow", rounds=1, executor="serial"))
