"""Networks of one's own in the trainer: what travels, what stays, what is saved."""

from __future__ import annotations

import gc
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_model

import isthmus
from cases.runs import DIGITS, READER, trained, write_text
from cases.strategies import ON_ANY
from cases.traffic import round_bytes
from cases.trainable import ALIVE, Digits, Reader, Settled
from isthmus.cli import main
from isthmus.nets.axes.structure import written
from isthmus.nets.graph.example import example_of
from isthmus.nets.pieces.merge import zero_cross_blocks
from isthmus.randomness import derived_seed
from isthmus.records import read_run
from isthmus.trainer import configure
from isthmus.trainer.local.flops import flops
from isthmus.trainer.observe.evaluate import Evaluator
from isthmus.trainer.task.examples import ArrayExamples, even_pieces
from isthmus.trainer.task.setup import Setup, set_up
from isthmus.trainer.task.shares import batch_at
from isthmus.trainer.training import Training
from isthmus.trainer.wire.layout import digest

CPU = torch.device("cpu")


@pytest.fixture
def text(tmp_path: Path) -> str:
    return write_text(tmp_path)


def setup_of(**flags: Any) -> Setup:
    return set_up(configure(**flags), CPU)


def test_tied_weights_are_saved_once_and_load_back(tmp_path: Path, text: str) -> None:
    trained(tmp_path / "run", **READER, data=text)
    load_model(Reader(), str(tmp_path / "run" / "model.safetensors"))


def test_bytes_of_what_travels(tmp_path: Path, text: str) -> None:
    """All parameters and the buffer that forward writes to go out, frozen ones once; these do not come back; masks
    never travel. The seed is one under which no worker gets the same heads twice running."""
    flags = {**READER, "law": "uniform", "data": text, "seed": 5}
    run = trained(tmp_path / "run", **flags)
    coupling = setup_of(**flags).network.coupling
    living = written(coupling)
    still = [name for name, entry in coupling.entries.items() if not entry.is_parameter and name not in living]
    frozen = [name for name, entry in coupling.entries.items() if entry.is_parameter and not entry.trained]
    assert (len(still), len(frozen), len(living)) == (1, 1, 1)
    back = set(coupling.entries) - {*still, *frozen}
    for number, row in enumerate(run.rows[1:]):
        partition = coupling.partition(2, 5, number, "uniform")
        at_rest = still if number == 0 else [*still, *frozen]
        assert (row["sent_bytes"], row["received_bytes"]) == round_bytes(coupling, partition, back, at_rest)
    assert run.rows[0]["sent_bytes"] == [0, 0]
    assert run.summary["cut_axes"] == {"qkv": 4, "mlp.1": 24}


def test_a_network_from_elsewhere_trains(tmp_path: Path, text: str) -> None:
    """A Llama of the transformers package: keyword arguments, an object as result, values read in forward."""
    changes = {"model": "cases.trainable:llama", "data": text, "optimizer": "adamw", "rounds": 10}
    run = trained(tmp_path / "run", **{**READER, **changes})
    assert set(run.summary["cut_axes"].values()) == {2, 24}  # heads with their keys, feed-forward units
    assert run.rows[-1]["test_loss"] < 0.95 * run.rows[0]["test_loss"]


def test_a_network_in_double_precision_is_given_its_numbers_and_counted_by_them(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", **{**DIGITS, "model": "cases.trainable:double", "law": "fixed", "lr": 0.3})
    piece, bias = 64 * 6 + 6 + 6 * 10 + 10, 10
    first, second = (row["sent_bytes"] for row in run.rows[1:3])
    assert sum(first) == 8 * (piece + bias)  # half of each piece from the other home, half of the last bias to it
    assert sum(second) == 8 * 2 * bias
    assert run.rows[-1]["train_loss"] < 0.97 * run.rows[1]["train_loss"]


def test_a_network_that_had_to_be_built_for_real_is_dropped_after_the_trace() -> None:
    """So that a worker that is not the root ends up with its piece alone, whatever the factory needs."""
    setup = setup_of(**{**DIGITS, "model": "cases.trainable:remembered"})
    assert [axis.size for axis in setup.network.coupling.cut_axes] == [12]
    gc.collect()
    assert not list(ALIVE)
    assert setup.network.make() in ALIVE  # where it is made on purpose it lives


def test_norm_statistics_do_not_travel(tmp_path: Path) -> None:
    network = setup_of(**DIGITS).network
    assert written(network.coupling) == {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}
    run = trained(tmp_path / "run", **DIGITS, law="uniform")
    coupling = network.coupling
    back = {name for name, entry in coupling.entries.items() if entry.is_parameter}
    sent, _ = round_bytes(coupling, coupling.partition(2, 0, 0, "uniform"), back, set(coupling.entries) - back)
    assert run.rows[1]["sent_bytes"] == sent


def test_dropout_is_drawn_by_seed_and_the_users_generator_left_alone(tmp_path: Path) -> None:
    """The same seed twice gives the same bits, although both runs start from other states of torch's generator."""
    torch.manual_seed(1)
    first = trained(tmp_path / "a", **DIGITS)
    torch.manual_seed(2)
    before = torch.random.get_rng_state()
    again = trained(tmp_path / "b", **DIGITS)
    assert first.summary["weights_sha256"] == again.summary["weights_sha256"]
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_state_that_stays_makes_rounds_vanish(tmp_path: Path, optimizer: str) -> None:
    """With one worker nothing is averaged: rounds of 5 steps are one run of 20, as in data-parallel training.

    The network draws nothing: what is random in it is keyed by the round.
    """
    once = {"workers": 1, "samples": 16 * 20, "optimizer": optimizer, "lr": 0.01, "model": "cases.trainable:quiet"}
    alone = {**DIGITS, **once}
    digests = {
        trained(tmp_path / name, **{**alone, **changes}).summary["weights_sha256"]
        for name, changes in {
            "ist": {"strategy": "ist", "law": "fixed", "keep_state": True},
            "local": {"strategy": "local-sgd", "keep_state": True},
            "parallel": {"strategy": "data-parallel"},
            "one round": {"strategy": "local-sgd", "local_steps": 20},
        }.items()
    }
    assert len(digests) == 1
    restarted = trained(tmp_path / "restarted", **alone, strategy="local-sgd", keep_state=False)
    assert restarted.summary["weights_sha256"] not in digests


def test_state_starts_anew_where_units_change_hands(tmp_path: Path) -> None:
    """Under `rotated` two workers never hold the same units twice in a row: momentum of what is cut starts anew, and
    keeping it matters only to the parameters that all hold whole. Without these, it changes nothing."""
    cut_throughout = {**DIGITS, "model": "cases.trainable:cut_throughout", "data": "digits", "law": "rotated"}
    kept, dropped = (
        trained(tmp_path / f"cut-{keep}", **cut_throughout, keep_state=keep).summary["weights_sha256"]
        for keep in (True, False)
    )
    assert kept == dropped
    kept, dropped = (
        trained(tmp_path / f"whole-{keep}", **DIGITS, law="rotated", keep_state=keep).summary["weights_sha256"]
        for keep in (True, False)
    )
    assert kept != dropped


def test_a_clipped_gradient_moves_no_further(tmp_path: Path) -> None:
    """Plain SGD, one step of rate 0.05: no worker's weights move further than rate x clip."""
    one = {"samples": 2 * 16, "momentum": 0.0, "clip": 0.01, "warmup": 0.0, "strategy": "data-parallel"}
    run = trained(tmp_path / "run", **{**DIGITS, **one})
    before = setup_of(**{**DIGITS, **one}).network.make()
    after = Digits()
    load_model(after, str(tmp_path / "run" / "model.safetensors"))
    pairs = zip(before.parameters(), after.parameters(), strict=True)
    moved = torch.cat([(new - old).detach().reshape(-1) for old, new in pairs]).norm().item()
    assert run.config["clip"] == 0.01
    assert moved == pytest.approx(0.05 * 0.01, rel=1e-3)


@pytest.mark.parametrize("strategy", ["local-sgd", "data-parallel", "ist"])
def test_a_network_that_starts_differently_everywhere_starts_as_on_worker_0(tmp_path: Path, strategy: str) -> None:
    """Where every worker builds it whole, worker 0 sends its weights to those that start from others."""
    whole = 4 * (64 * 12 + 12 + 12 * 10 + 10)
    sent = {
        name: trained(tmp_path / name, **{**DIGITS, "model": f"cases.trainable:{name}"}, strategy=strategy).rows[0]
        for name in ("unlike", "bias_of_one")
    }
    assert sent["unlike"]["sent_bytes"] == [0 if strategy == "ist" else whole, 0]
    assert sent["bias_of_one"]["sent_bytes"] == [0, 0]


def test_depth_cuts_hold_fewer_blocks_and_keep_the_least(tmp_path: Path) -> None:
    depth = {"model": "cases.trainable:deep", "cut": ("block",), "law": "overlapping", "minimum": 3}
    run = trained(tmp_path / "run", **{**DIGITS, **depth, "workers": 4, "rounds": 3, "samples": None})
    stem, block, head = 64 * 16 + 16, 2 * 16 + 16 * 24 + 24 + 24 * 16 + 16, 16 * 10 + 10
    assert run.summary["worker_parameters"] == [stem + 3 * block + head] * 4
    assert run.summary["model_parameters"] == stem + 4 * block + head


def test_operations_are_those_of_the_piece() -> None:
    network = torch.nn.Conv2d(3, 8, 3, padding=1)
    image = torch.zeros(2, 3, 5, 7)
    assert flops(lambda: network(image).sum().backward())[1] == 2 * 2 * (2 * 5 * 7 * 8 * 3 * 9)  # no input gradient
    q = torch.zeros(2, 4, 8, 16, requires_grad=True)
    product = 2 * (2 * 4) * 8 * 8 * 16
    attend = torch.nn.functional.scaled_dot_product_attention
    assert flops(lambda: attend(q, q, q))[1] == 2 * product
    assert flops(lambda: attend(q, q, q).sum().backward())[1] == 2 * product + 5 * product
    bag, active = torch.nn.EmbeddingBag(9, 4, mode="sum"), torch.zeros(3, 5, dtype=torch.int64)
    assert flops(lambda: bag(active).sum().backward())[1] == 2 * 2 * (3 * 5 * 4)  # rows of its table, there and back


def test_a_graph_is_trained_on_its_own_nodes(tmp_path: Path) -> None:
    """No worker sees the label of a node that is not its own, of a test node, or of one held out."""
    flags = {"data": "sbm", "model": "cases.trainable:nodes", "workers": 4, "lr": 0.01}
    shares = setup_of(**flags).shares
    parts = [*(shares.of(worker, CPU) for worker in range(4)), shares.held_out(CPU), shares.test(CPU)]
    seen = [set(part.features[:, 0].tolist()) for part in parts]
    assert sum(map(len, seen)) == len(set.union(*seen)) == 2000
    metric = "cases.objectives:share_right"
    run = trained(tmp_path / "run", **flags, optimizer="adamw", rounds=10, law="fixed", metric=metric)
    assert run.summary["test_metric"] == run.summary["test_accuracy"] > 0.5


def test_every_sample_is_evaluated_once() -> None:
    setup = setup_of(**{**DIGITS, "workers": 1})
    test = setup.shares.test(CPU)
    training = Training(setup.network, optimizer=setup.config.optimizer.make)
    found = Evaluator(training, setup.objective, None, False, test, test)()
    with training.whole() as model:
        expected = torch.nn.functional.cross_entropy(model(test.features).double(), test.targets).item()
    assert found.loss == pytest.approx(expected, rel=1e-6)
    assert found.targets == test.count == sum(len(piece) for piece in test.pieces())


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "cases.trainable:deep", "cut": ("block", "ffn"), "law": "block"},
        {"model": "cases.trainable:settled", "law": "block", "core": 0.25, "workers": 3},
        {"model": "cases.trainable:weighted", "law": "weighted", "capacities": (1, 3)},
        {"model": "cases.trainable:reader", "law": "uniform", "core": 0.25, "batch_size": 8},
    ],
    ids=lambda changes: f"{changes['model']}-{changes['law']}",
)
def test_a_run_is_cut_steps_and_merge(tmp_path: Path, text: str, changes: dict[str, Any]) -> None:
    """Bit for bit what the public functions give when no piece travels and all networks are held whole."""
    own = {"samples": None, "rounds": 3, "local_steps": 2, "data": text if "reader" in changes["model"] else "digits"}
    flags = {**DIGITS, **own, **changes}
    expected = by_hand(setup_of(**flags))
    run = trained(tmp_path / "run", **flags, scale="none")  # the digest is that of the exported, scaled weights
    assert run.summary["weights_sha256"] == digest(dict(expected.named_parameters()))


def by_hand(setup: Setup) -> torch.nn.Module:
    """The whole network after all rounds of plain SGD with Nesterov momentum that starts anew in every one."""
    config, whole, example = setup.config, setup.network.make(), setup.network.example
    args, kwargs = example.call([torch.zeros(tensor.shape, dtype=tensor.dtype) for tensor in example.tensors])
    coupling = isthmus.trace(whole, args, kwargs, cut=config.cut)
    law = config.strategy.dealt
    assert law is not None
    if law.zero_cross_blocks:
        zero_cross_blocks(whole, coupling, coupling.partition(config.workers, config.seed, 0, law))
    shares = [setup.shares.of(worker, CPU) for worker in range(config.workers)]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for number, steps in enumerate(config.steps_by_round):
        partition = coupling.partition(config.workers, config.seed, number, law)
        parts = [isthmus.cut(whole, coupling, partition, worker) for worker in range(config.workers)]
        for worker, part in enumerate(parts):
            torch.manual_seed(derived_seed(config.seed, "train/noise", number, worker))
            optimizer = config.optimizer.make(part.module.train())
            for step in steps:
                positions = batch_at(config.seed, config.step.batch_size, worker, shares[worker].count, step)
                batch = shares[worker].batch(positions)
                optimizer.param_groups[0]["lr"] = config.lr_at(step)
                setup.objective.training_loss(part.module, batch).backward()
                optimizer.step()
                optimizer.zero_grad()
        isthmus.merge(whole, parts)
    torch.set_num_threads(threads)
    return whole


@pytest.mark.parametrize("strategy", ON_ANY)
def test_evaluating_leaves_no_trace_in_training(tmp_path: Path, strategy: str) -> None:
    """However often the root evaluates, the same weights come out, also where forward uses what its buffers hold."""
    flags = {**DIGITS, "model": "cases.trainable:settled", "strategy": strategy}
    often, seldom = (trained(tmp_path / str(every), **flags, eval_every=every).summary for every in (1, 100))
    assert often["weights_sha256"] == seldom["weights_sha256"]
    assert often["test_loss"] == seldom["test_loss"]


def test_frozen_statistics_stay(tmp_path: Path) -> None:
    trained(tmp_path / "run", **{**DIGITS, "model": "cases.trainable:settled", "strategy": "local-sgd"})
    network = Settled()
    load_model(network, str(tmp_path / "run" / "model.safetensors"))
    assert torch.equal(network.norm.running_mean, torch.full((12,), 0.25))
    assert torch.equal(network.norm.running_var, torch.full((12,), 2.0))


@pytest.mark.parametrize(("count", "size"), [(1, 1000), (1000, 1000), (1001, 1000), (4097, 1000), (129, 128), (3, 1)])
def test_samples_go_through_the_network_in_even_pieces(count: int, size: int) -> None:
    """A last piece of one sample has no deviation, and one of few would count as much as a full one."""
    pieces = [piece.tolist() for piece in even_pieces(count, size)]
    assert [position for piece in pieces for position in piece] == list(range(count))
    assert max(map(len, pieces)) - min(map(len, pieces)) <= 1
    assert max(map(len, pieces)) <= size


@pytest.mark.parametrize(("length", "most"), [(1, 1000), (64, 128), (10_000, 1)])
def test_long_sequences_go_through_the_network_a_few_at_a_time(length: int, most: int) -> None:
    call = example_of(torch.nn.Identity(), (torch.zeros(2, 1),), None)
    examples = ArrayExamples(call, torch.zeros(1001, 1), torch.zeros(1001, length, dtype=torch.int64))
    sizes = [len(piece) for piece in examples.pieces()]
    assert sum(sizes) == 1001
    assert max(sizes) <= most < 2 * max(sizes)
    assert len(sizes) == math.ceil(1001 / most)  # each fetches what is away of the network, over whatever line there is
    assert sum(len(piece) for piece in examples.pieces(5)) == 5


def test_the_command_trains_a_network_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--workers", "2", "--rounds", "2", "--executor", "serial", "--cut", "inner", "--lr", "0.05"]
    main(["train", "--model", "cases.trainable:digits", *flags, "--out", str(tmp_path / "run")])
    assert "cases.trainable:digits on digits: ist, law block, 2 workers" in capsys.readouterr().out
    run = read_run(tmp_path / "run")
    assert run.summary["cut_axes"] == {"inner": 12}
    assert run.config["widths"] is None


def test_the_table_shows_a_metric_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--workers", "2", "--rounds", "2", "--executor", "serial", "--widths", "16"]
    main(["train", *flags, "--out", str(tmp_path / "plain")])
    assert "test metric" not in capsys.readouterr().out
    main(["train", *flags, "--metric", "cases.objectives:balanced", "--out", str(tmp_path / "run")])
    metric = read_run(tmp_path / "run").summary["test_metric"]
    assert re.search(rf"test metric +│ +{metric:.4g} ", capsys.readouterr().out)


def test_the_table_shows_what_is_sent_in_a_round(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is sent before the first round: every worker computes its part of the first weights."""
    flags = ["--strategy", "narrow", "--workers", "2", "--rounds", "2", "--executor", "serial", "--lr", "0.05"]
    main(["train", "--model", "cases.trainable:digits", *flags, "--out", str(tmp_path / "run")])
    cells = [line.split("│") for line in capsys.readouterr().out.splitlines() if line.count("│") == 3]
    shown = {name.strip(): value.strip() for _, name, value, _ in cells}
    sent = [row["sent_bytes"] for row in read_run(tmp_path / "run").rows]
    assert shown["sent a round, by worker"] == ", ".join(f"{count / 1000:.3g} kB" for count in sent[1])
    assert sent[0] == [0, 0]
    assert "sent before the first round" not in shown
