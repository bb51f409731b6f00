"""Looking at what several workers train: nobody holds it, all see the same, and the file is what was seen."""

from __future__ import annotations

import math
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, load_model
from torch import Tensor, nn
from torch.nn import functional

from cases.loops import batch, in_turn, perceptron, same, sgd, state_of, take_step
from cases.strategies import ON_ANY
from isthmus import Training
from isthmus.errors import InvalidInput, WorkerError
from isthmus.nets.graph.example import example_of
from isthmus.partitions import Uniform
from isthmus.strategies import IST
from isthmus.trainer.observe.evaluate import Evaluation, Evaluator
from isthmus.trainer.store import reader as reading
from isthmus.trainer.store import tensorfile
from isthmus.trainer.store.reader import Reader
from isthmus.trainer.store.serve import Service
from isthmus.trainer.store.whole import saved_digest
from isthmus.trainer.task.examples import ArrayExamples
from isthmus.trainer.task.objective import Objective
from isthmus.trainer.wire.layout import digest

EXAMPLE = (torch.zeros(2, 6),)


def trained(steps: int = 3, **changes: Any) -> Training:
    torch.manual_seed(3)
    training = Training(perceptron(), EXAMPLE, sgd, **{"local_steps": 2, **changes})
    for step in range(steps):
        take_step(training, step)
    return training


# ------------------------------------------------------------------- inside the block


CALLS: dict[str, Callable[[Training], Any]] = {
    "a step": lambda training: training.module.train()(EXAMPLE[0]),
    "open()": lambda training: training.open(),
    "merge()": lambda training: training.merge(),
    "gather()": lambda training: training.gather(1.0),
    "account()": lambda training: training.account(),
    "whole()": lambda training: training.whole().__enter__(),
    "export()": lambda training: training.export("model.safetensors"),
    "close()": lambda training: training.close(),
}


@pytest.mark.parametrize("strategy", ["ist", "local-sgd"])
def test_other_calls_come_after_the_block(strategy: str) -> None:
    def job() -> None:
        training = trained(strategy=strategy)
        with training.whole():
            for name, call in CALLS.items():
                with pytest.raises(InvalidInput) as refused:
                    call(training)
                assert str(refused.value).startswith(f"{name} comes after the block of whole()")
        take_step(training, 3)
        training.close()

    in_turn(job, 2)


def test_a_worker_that_fails_in_the_block_lets_the_others_finish() -> None:
    """It serves them until they are done; only then its failure is heard of."""
    seen = []

    def job() -> None:
        training = trained()
        with training.whole() as merged:
            assert merged is not None
            if training.worker == 0:
                raise KeyError("mine")
            seen.append(state_of(merged))

    with pytest.raises(WorkerError, match=r"worker 0 failed \(KeyError: 'mine'\)"):
        in_turn(job, 3)
    assert len(seen) == 2


def test_the_network_of_the_user_is_not_touched() -> None:
    def job() -> None:
        torch.manual_seed(3)
        network = perceptron()
        before = state_of(network)
        training = Training(network, EXAMPLE, sgd, law="uniform", local_steps=1)
        take_step(training, 0)
        with training.whole() as merged:
            assert merged is not network
            assert type(merged) is type(network)
            assert not same(state_of(merged), before)  # type: ignore[arg-type]
        assert same(state_of(network), before)
        training.close()

    in_turn(job, 2)


def test_looking_is_counted_apart() -> None:
    """Every worker fetches what it is not home to, once, and sends each of the others what it is home to."""

    def job() -> Any:
        training = trained(4)
        before = training.account()
        with training.whole() as merged:
            for _ in range(3):
                merged(EXAMPLE[0])  # type: ignore[misc]
        kept = training._rounds.state.tensors
        home = sum(tensor.numel() * tensor.element_size() for tensor in kept.values())
        after = training.account()
        training.close()
        return home, before, after

    results = in_turn(job, 3)
    homes = [home for home, _, _ in results]
    before, after = results[0][1:]
    assert before.viewing_bytes == (0, 0, 0)
    assert after.viewing_bytes == tuple(sum(homes) - home + 2 * home for home in homes)
    assert after.sent_bytes[0] >= before.sent_bytes[0]


# ------------------------------------------------------------------- files


@pytest.mark.parametrize("block", [16, 1 << 20])
@pytest.mark.parametrize("strategy", ON_ANY)
def test_the_file_is_what_all_saw(strategy: str, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "BLOCK", block)
    monkeypatch.setattr(tensorfile, "_BLOCK", block)
    monkeypatch.setattr(Reader, "most", 0)

    def job() -> None:
        training = trained(strategy=strategy)
        path = training.export(tmp_path / "model.safetensors", {"by": "me"}, factor=2.0)
        with training.whole(factor=2.0) as merged:
            assert merged is not None
            assert same(load_file(path), state_of(merged))
            assert saved_digest(path, (name for name, _ in merged.named_parameters())) == digest(load_file(path))
        training.close()

    in_turn(job, 3)
    if strategy != "narrow":
        load_model(perceptron(), tmp_path / "model.safetensors")


def test_a_file_that_hugging_face_reads(tmp_path: Path) -> None:
    """``from_pretrained`` of the folder gives the merged network, tied weights and all."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=40, n_positions=16, n_embd=16, n_layer=2, n_head=2)
    config.save_pretrained(tmp_path)
    tokens = torch.arange(12).reshape(2, 6)

    def job() -> Tensor:
        training = Training(lambda: GPT2LMHeadModel(config), {"input_ids": tokens}, sgd, local_steps=1)
        output = training.module(input_ids=tokens)
        functional.cross_entropy(output.logits.flatten(0, 1), tokens.flatten()).backward()
        training.optimizer.step()
        training.export(tmp_path / "model.safetensors")
        with training.whole() as merged, torch.no_grad():
            assert merged is not None
            logits: Tensor = merged(input_ids=tokens).logits
        training.close()
        return logits

    seen = in_turn(job, 2)
    assert torch.equal(*seen)
    loaded, report = GPT2LMHeadModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    with torch.no_grad():
        torch.testing.assert_close(loaded.eval()(input_ids=tokens).logits, seen[0])
    own = dict(loaded.named_parameters())  # tied ones once, as in the file
    assert saved_digest(tmp_path / "model.safetensors", own) == digest(own)


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that is lost in the middle of an export leaves what was there."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"before")
    monkeypatch.setattr(reading, "BLOCK", 16)
    monkeypatch.setattr(Reader, "most", 0)
    serve, asked = Service._packed, iter(range(4))

    def lost(self: Service, span: Any) -> Tensor:
        if self.link.index == 1 and next(asked, None) is None:
            raise RuntimeError("gone")
        return serve(self, span)

    monkeypatch.setattr(Service, "_packed", lost)
    with pytest.raises(WorkerError, match=r"worker 1 failed \(RuntimeError: gone\)"):
        in_turn(lambda: trained().export(path), 2)
    assert path.read_bytes() == b"before"
    assert [each.name for each in tmp_path.iterdir()] == ["model.safetensors"]


# ------------------------------------------------------------------- evaluation


class Small(ArrayExamples):
    """Seven at a time."""

    def pieces(self, most: int | None = None, parts: int = 1) -> Iterator[Any]:
        yield from np.array_split(np.arange(self.count), -(-self.count // 7))


def weighted(outputs: Tensor, targets: Tensor) -> Tensor:
    """A metric that minds the order."""
    return (outputs.double() * torch.arange(len(targets))[:, None]).sum() + targets[:9].sum()


class Noisy(nn.Sequential):
    """Draws numbers in evaluation too."""

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = super().forward(x + 0.1 * torch.randn_like(x))
        return found


def evaluated() -> tuple[Evaluation, ...]:
    torch.manual_seed(3)
    network = Noisy(*perceptron())
    training = Training(network, EXAMPLE, sgd, strategy=IST(Uniform(), scale="none"))
    x, y = batch(0, 0, size=40)
    test = Small(example_of(network, EXAMPLE, None), x, y)
    evaluator = Evaluator(training, Objective(None, weighted), None, True, test, test)
    found = evaluator(), *evaluator.search().values()
    training.close()
    return found


def test_evaluation_does_not_depend_on_how_many_share_it() -> None:
    """All hear the same numbers; the metric sees all outputs in their order, on worker 0."""
    alone = in_turn(evaluated, 1)[0]
    assert alone[0].targets == 40
    first, *others = in_turn(evaluated, 4)
    assert first == alone
    for other in others:
        assert math.isnan(other[0].metric)
        assert [astuple(each)[:2] for each in other] == [astuple(each)[:2] for each in alone]


# ------------------------------------------------------------------------- memory of it

JOB = """
import resource
import torch
from torch import nn
from isthmus import Training
from isthmus.trainer.observe.account import resident_bytes

training = Training(lambda: nn.Sequential(nn.Linear(8, 1024), nn.ReLU(), nn.Linear(1024, 4)), (torch.zeros(2, 8),),
                    lambda m: torch.optim.SGD(m.parameters(), lr=0.1))
before = resident_bytes()
faults = []
with training.whole() as model, torch.no_grad():
    for _ in range(10):  # after two or three all has found its place
        model(torch.zeros(5000, 8))  # 20 MB before and after the units
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(min(b - a for a, b in zip(faults, faults[1:])), resident_bytes() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library keeps memory as it likes")
def test_memory_is_kept_while_one_looks_and_no_longer() -> None:
    """40 MB, 10,000 pages, would else come anew with every batch, for half of the time; a step needs other memory."""
    done = subprocess.run([sys.executable, "-c", JOB], capture_output=True, text=True, check=True)
    faults, more = map(int, done.stdout.split())
    assert faults < 600
    assert more < 20e6
