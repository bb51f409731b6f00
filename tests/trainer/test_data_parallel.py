"""Gradients that travel while others are computed: the mean is right whatever a backward pass does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from cases.loops import WAYS, batch, in_turn, same, sgd, state_of
from isthmus import Training
from isthmus.errors import WorkerError
from isthmus.strategies import DataParallel
from isthmus.trainer.plan.traffic import Nobody
from isthmus.trainer.strategies import Worker, buckets, data_parallel, part_of
from isthmus.trainer.task.network import describe

EXAMPLE = (torch.zeros(2, 6),)
WORKERS = 3


class Twice(nn.Module):
    """A layer that two checkpointed parts of the network share: a backward pass brings it two gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.shared, self.last = nn.Linear(6, 5), nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for _ in range(2):
            x = self._part(x)
        return torch.as_tensor(self.last(x))

    def _part(self, x: Tensor) -> Tensor:
        if not (self.training and x.requires_grad):
            return self.shared(x).tanh()
        return torch.as_tensor(checkpoint(lambda each: self.shared(each).tanh(), x, use_reentrant=True))


class Plain(Twice):
    """The same, kept in memory."""

    def _part(self, x: Tensor) -> Tensor:
        return self.shared(x).tanh()


class Branches(nn.Module):
    """Every worker goes through a branch of its own; a layer lies idle on all."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 5)
        self.branches = nn.ModuleList(nn.Linear(5, 5) for _ in range(WORKERS))
        self.idle, self.last = nn.Linear(5, 5), nn.Linear(5, 3)
        self.branch = 0

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.last(self.branches[self.branch](self.first(x))))


class Wide(nn.Module):
    """A convolution in channels-last, whose gradients are so too, and four layers."""

    def __init__(self) -> None:
        super().__init__()
        self.images = nn.Conv2d(2, 5, 2).to(memory_format=torch.channels_last)
        self.layers = nn.Sequential(nn.Linear(10, 7), nn.ReLU(), nn.Linear(7, 4), nn.ReLU(), nn.Linear(4, 3))

    def forward(self, x: Tensor) -> Tensor:
        images = x.view(-1, 1, 2, 3).repeat(1, 2, 1, 1).contiguous(memory_format=torch.channels_last)
        return torch.as_tensor(self.layers(self.images(images).flatten(1)))


def made(kind: Callable[[], nn.Module], **changes: Any) -> Training:
    torch.manual_seed(3)
    return Training(kind(), EXAMPLE, sgd, "data-parallel", local_steps=2, **changes)


def loss_of(module: nn.Module, worker: int, step: int) -> Tensor:
    if isinstance(module, Branches):
        module.branch = worker
    x, y = batch(worker, step)
    return functional.cross_entropy(module(x), y)


def stepped(kind: Callable[[], nn.Module], bucket: int, passes: int) -> tuple[list[dict[str, Tensor]], bool]:
    """Four steps of some backward passes each; the gradients of every one, and whether all lay as their weights do."""
    buckets.BUCKET = bucket
    training, grads, alike = made(kind), [], True
    for step in range(4):
        for each in range(passes):
            loss_of(training.module, training.worker, passes * step + each).backward()
        named = dict(training.module.named_parameters())
        alike &= all(p.grad is not None and p.grad.stride() == p.stride() for p in named.values())
        grads.append({name: p.grad.clone() for name, p in named.items() if p.grad is not None})
        training.optimizer.step()
        training.optimizer.zero_grad(set_to_none=step % 2 == 0)
    training.close()
    return grads, alike


def means(kind: Callable[[], nn.Module], passes: int) -> list[dict[str, Tensor]]:
    """The same by one process, in double precision."""
    torch.manual_seed(3)
    network = kind()
    optimizer, found = sgd(network.double()), []
    for step in range(4):
        optimizer.zero_grad()
        for worker in range(WORKERS):
            for each in range(passes):
                if isinstance(network, Branches):
                    network.branch = worker
                x, y = batch(worker, passes * step + each)
                (functional.cross_entropy(network(x.double()), y) / WORKERS).backward()
        for parameter in network.parameters():
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        found.append({name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None})
        optimizer.step()
    return found


CASES = {"second gradients": (Twice, Plain), "branches": (Branches, Branches), "channels last": (Wide, Wide)}


@pytest.fixture(autouse=True)
def _buckets_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "BUCKET", buckets.BUCKET)


@pytest.mark.processes
@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("case", CASES)
def test_gradients_are_the_mean_whatever_the_buckets_and_the_way(case: str, passes: int) -> None:
    kind, plain = CASES[case]
    expected = means(plain, passes)
    for bucket in (1, 100, 1 << 20):
        found = [each for way in WAYS.values() for each in way(stepped, WORKERS, kind, bucket, passes)]
        for grads, alike in found:
            assert alike
            for one, twin, mean in zip(grads, found[0][0], expected, strict=True):
                assert same(one, twin)
                for name, grad in one.items():
                    torch.testing.assert_close(grad.double(), mean[name], rtol=1e-4, atol=1e-7)


def kept_in_place(keep: bool) -> tuple[list[int], int]:
    """Where the gradients of some steps lie, and how many numbers are kept for them."""
    training, places = made(Wide), []
    for step in range(4):
        loss_of(training.module, training.worker, step).backward()
        places.append([p.grad.data_ptr() for p in training.module.parameters() if p.grad is not None])
        training.optimizer.step()
        training.optimizer.zero_grad(set_to_none=not keep)
    part = training._members.part
    assert isinstance(part, data_parallel.DataParallelPart)
    numbers = sum(flat.numel() for flat in part._buckets._kept.values())
    for parameter in list(training.module.parameters())[2:]:  # what is trained no more is not kept
        parameter.requires_grad_(False)
    loss_of(training.module, training.worker, 4).backward()
    fewer = sum(flat.numel() for flat in part._buckets._kept.values())
    training.close()
    return len({tuple(each[1:]) for each in places}), numbers - fewer  # the first, in channels-last, lies elsewhere


@pytest.mark.parametrize("keep", [False, True])
def test_gradients_lie_where_they_lay_in_the_step_before(keep: bool) -> None:
    rest = 7 * 10 + 7 + 4 * 7 + 4 + 3 * 4 + 3
    assert in_turn(kept_in_place, 2, keep) == [(1, rest)] * 2


def test_what_a_bucket_holds_comes_back_with_what_was_added_meanwhile() -> None:
    """Also where the gradient lies in the bucket already, and where there is none."""
    parameters = {name: nn.Parameter(torch.zeros(2, 3)) for name in "abc"}
    (bucket,) = buckets.buckets_of(parameters)
    memory = buckets.Buckets(torch.device("cpu"))
    memory.arrange([bucket], 0)
    for parameter in (parameters["a"], parameters["c"]):
        parameter.grad = torch.arange(6.0).view(3, 2).t()
    parameters["a"].grad = torch.arange(6.0).view(2, 3)
    flat = memory.collect(bucket, parameters)
    assert all(parameter.grad is None for parameter in parameters.values())
    assert flat.tolist() == [0, 2, 4, 1, 3, 5, *[0] * 6, 0, 1, 2, 3, 4, 5]  # from the last to the first
    flat += 1
    parameters["a"].grad, parameters["b"].grad = torch.full((2, 3), 10.0), torch.full((2, 3), 20.0)
    memory.give(bucket, parameters)
    found = {name: parameter.grad for name, parameter in parameters.items()}
    assert found["a"] is not None
    assert found["a"].tolist() == [[11, 12, 13], [14, 15, 16]]
    assert found["b"] is not None
    assert found["b"].tolist() == [[21] * 3] * 2
    assert found["c"] is not None
    assert found["c"].tolist() == [[1, 3, 5], [2, 4, 6]]
    assert found["c"].stride() == (1, 2)
    again = memory.collect(bucket, parameters)
    assert again.data_ptr() == flat.data_ptr()
    assert again.tolist() == [1, 3, 5, 2, 4, 6, *[21] * 6, 11, 12, 13, 14, 15, 16]


def penalized() -> list[Tensor]:
    """The gradients of a loss with a penalty on its gradient's norm, whose pass keeps its graph."""
    training = made(Plain)
    for step in range(2):
        loss = loss_of(training.module, training.worker, step)
        slopes = torch.autograd.grad(loss, list(training.module.parameters()), create_graph=True)
        (loss + sum(slope.square().sum() for slope in slopes)).backward(create_graph=True)
        found = [p.grad for p in training.module.parameters() if p.grad is not None]
        assert not any(grad.requires_grad for grad in found)
        training.optimizer.step()
        training.optimizer.zero_grad()
    training.close()
    return [grad.clone() for grad in found]


@pytest.mark.filterwarnings("ignore:Using backward\\(\\) with create_graph=True")
def test_a_backward_pass_may_keep_its_graph() -> None:
    one, other = in_turn(penalized, 2)
    assert len(one) == 6
    assert all(torch.equal(*pair) for pair in zip(one, other, strict=True))


def sent_by(bucket: int) -> list[int]:
    """How many bytes this worker has sent when the gradients of the last, of the second and of the first layer come."""
    buckets.BUCKET = bucket
    training, sent = made(Wide), list[int]()
    loss_of(training.module, training.worker, 0).backward()  # opens the round
    before = training._meter.sent
    assert isinstance(training.module, Wide)
    for layer in (training.module.layers[4], training.module.layers[2], training.module.images):
        layer.weight.register_hook(lambda grad: sent.append(training._meter.sent - before))
    loss_of(training.module, training.worker, 1).backward()
    sent.append(training._meter.sent - before)
    training.close()
    return sent


@pytest.mark.processes
def test_the_last_layers_gradients_travel_before_the_first_ones_are_there() -> None:
    for way in WAYS.values():
        for early in way(sent_by, WORKERS, 1):
            assert early[0] < early[1] < early[2] < early[3]
        for late in way(sent_by, WORKERS, 1 << 20):
            assert late[:3] == [0, 0, 0] < late[3:]


def test_a_step_after_a_backward_pass_that_failed_is_refused() -> None:
    """The others wait for its gradients: to go on would leave the workers with different weights."""

    def job() -> None:
        training = made(Wide)
        loss_of(training.module, training.worker, 0).backward()
        training.optimizer.step()
        if training.worker == 1:
            assert isinstance(training.module, Wide)
            hook = training.module.images.weight.register_hook(fail)
            with pytest.raises(RuntimeError, match="out of memory"):
                loss_of(training.module, training.worker, 1).backward()
            hook.remove()
            training.optimizer.zero_grad()
            loss_of(training.module, training.worker, 2).backward()
        else:
            loss_of(training.module, training.worker, 1).backward()
        training.optimizer.step()

    with pytest.raises(WorkerError, match=r"^worker 1: a backward pass has not come to its end .*'data-parallel'"):
        in_turn(job, 2)


@pytest.mark.parametrize(("bucket", "beside"), [(1, 4 * (7 * 10 + 7 + 4 * 7 + 4 + 3 * 4 + 3 + 5)), (1 << 20, 0)])
def test_all_buckets_but_the_last_are_said_to_travel_beside(bucket: int, beside: int) -> None:
    """With a bucket for every parameter the last one is the convolution's weight."""
    buckets.BUCKET = bucket
    module = Wide()
    worker = Worker(Nobody(0, 2), describe(module, EXAMPLE, 0, None), 0)
    traffic = part_of(DataParallel(), worker).step_traffic(module)
    assert traffic.sent == traffic.received == 4 * sum(parameter.numel() for parameter in module.parameters())
    assert (traffic.beside, traffic.hops) == (beside, 2)


def fail(grad: Tensor) -> Tensor:
    raise RuntimeError("out of memory")


def lone() -> dict[str, Tensor]:
    training = made(Wide)
    for step in range(2):
        loss_of(training.module, 0, step).backward()
        training.optimizer.step()
        training.optimizer.zero_grad()
    training.close()
    return state_of(training.module)


def test_one_worker_alone_trains_as_without_isthmus() -> None:
    torch.manual_seed(3)
    network = Wide()
    optimizer = sgd(network)
    for step in range(2):
        loss_of(network, 0, step).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert same(in_turn(lone, 1)[0], state_of(network))
