"""How long a worker's steps will take on this machine: a few are made on a piece of the real sizes."""

from __future__ import annotations

import logging
import math
import mmap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from isthmus.errors import InvalidInput
from isthmus.nets.pieces.subnetwork import blank, build
from isthmus.partitions import Block
from isthmus.trainer.local.flops import flops
from isthmus.trainer.local.heap import keep
from isthmus.trainer.local.optimizer import adopt
from isthmus.trainer.observe.account import held_bytes
from isthmus.trainer.plan.plan import Work
from isthmus.trainer.task.initial import copied, like
from isthmus.trainer.task.network import Network

_log = logging.getLogger("isthmus")
_LEAST, _MOST, _SECONDS = 3, 40, 0.15  # steps that are made: as few, as many, and no more once that long was spent
_OPERATIONS = 3e10  # of a step that is made to measure it
_NARROWER = 12  # halvings at most
_COPIED, _COPIES = 1 << 22, 5  # bytes at a time, how often, to know what writing takes
_PRIVATE = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}


@dataclass(frozen=True)
class Speed:
    """How fast a worker is.

    Attributes:
        seconds: of a step; nan where nobody knows.
        how: it is known.
        byte: seconds to write a byte of memory that was not there before; 0 where nobody knows.
    """

    seconds: float
    how: str
    byte: float = 0.0

    @property
    def known(self) -> bool:
        """Whether it is known."""
        return not math.isnan(self.seconds)


def measured(piece: nn.Module, work: Work, of: Callable[[list[float]], float] = fmean) -> Speed:
    """Return how long a step of a piece takes; what is random in it draws from no generator outside.

    Args:
        piece: on no device.
        work: what is done with it.
        of: of the seconds of a few steps. Their mean, where other workers compute on this machine at the same time;
            the least, where what else goes on here has nothing to do with it.
    """
    device = work.device
    assert work.step is not None
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.enable_grad():
            module = copied(piece, _filled(device)).train()
            spent = _seconds(module, work, work.step)
            # in the first step much is done that is not done later
            return Speed(of(spent[1:]), "measured", of(_seconds_of_a_byte(device)))
    except Exception as error:  # whatever a loss or an optimizer of one's own may raise on weights without a meaning
        said = " ".join(f"{type(error).__name__}: {error}".split())
        _log.warning("isthmus: the plan lacks the seconds of a step, which could not be made beforehand (%s)", said)
        return Speed(math.nan, "unknown")


def by_operations(piece: nn.Module, work: Work, network: Network, rate: float | None) -> Speed:
    """Return how long a step takes at a given rate, or at one measured on this machine: on the piece itself, or, where
    that is large, on a narrower piece of the network.

    Args:
        piece: on no device.
        work: what is done with it.
        network: the whole.
        rate: operations a second; None to measure.
    """
    wanted = operations(piece, work)
    if rate is not None:
        return Speed(wanted / rate, "by the rate given")
    with one_thread():
        if wanted <= _OPERATIONS and _fits(piece, work):
            return measured(piece, work, min)
        for halvings in range(1, _NARROWER):
            try:
                units = network.coupling.partition(2**halvings, 0, 0, Block()).of(0)
                narrow = build(*blank(network.coupling, torch.device("meta")), units).module
                made = operations(narrow, work)
            except InvalidInput:  # too few units, or a loss that takes other outputs than the network's own
                break
            if made <= _OPERATIONS and _fits(narrow, work):
                speed = measured(narrow, work, min)
                how = f"by operations, at the rate of a piece with 1/{2**halvings} of the units"
                return replace(speed, seconds=speed.seconds * wanted / max(1, made), how=how) if speed.known else speed
    _log.warning("isthmus: the plan lacks the seconds of a step, which is too large to be made here: give `flops`")
    return Speed(math.nan, "unknown")


def operations(piece: nn.Module, work: Work) -> int:
    """Return the operations of a pass forward and backward of a piece, which is made without memory."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        module = copied(piece, lambda name, tensor: like(tensor, work.device)).train()
        return flops(lambda: work.loss(module).backward())[1] * work.passes


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread inside the block, as workers that share a machine do."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _seconds(module: nn.Module, work: Work, step: Callable[[nn.Module], None]) -> list[float]:
    """Make a few steps; return the seconds of each."""
    keep()  # a step that fetches its memory from the system anew takes up to half as long again
    optimizer = adopt(module, work.optimizer)
    spent: list[float] = []
    while len(spent) < _LEAST or (sum(spent) < _SECONDS and len(spent) < _MOST):
        start = time.perf_counter()
        step(module)
        optimizer.step()
        optimizer.zero_grad()
        if work.device.type == "cuda":
            torch.cuda.synchronize(work.device)
        spent.append(time.perf_counter() - start)
    return spent


def _seconds_of_a_byte(device: torch.device) -> list[float]:
    """Write into memory that comes from the system anew, as exchanges do, a few times; return the seconds a byte of
    each."""
    given, spent = torch.ones(_COPIED, dtype=torch.uint8, device=device), list[float]()
    for _ in range(_COPIES):
        start = time.perf_counter()
        if device.type == "cpu":  # not from the C library, which may have some that is warm
            torch.frombuffer(mmap.mmap(-1, _COPIED, **_PRIVATE), dtype=torch.uint8).copy_(given)
        else:
            given.clone()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        spent.append((time.perf_counter() - start) / _COPIED)
    return spent


def _filled(device: torch.device) -> Callable[[str, Tensor], Tensor]:
    """Return what fills a piece: small random weights, and what is safe to compute with elsewhere."""

    def fill(name: str, tensor: Tensor) -> Tensor:
        made = like(tensor, device)
        with torch.no_grad():
            if isinstance(tensor, nn.Parameter) and made.is_floating_point():
                made.normal_(std=0.02)
            elif made.is_floating_point() or made.dtype == torch.bool:
                made.fill_(1)
            else:
                made.zero_()
        return made

    return fill


def _fits(piece: nn.Module, work: Work) -> bool:
    """Whether this machine has room for a piece, its gradients, and as much again."""
    return 2 * held_bytes(piece, None) <= _free_bytes()


def _free_bytes() -> float:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return math.inf
    return next((1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), math.inf)
