"""What a worker moves in a step is said beforehand, exactly."""

from typing import Any

import pytest
import torch
from torch import nn

from isthmus.trainer import configure, train


def network() -> tuple[nn.Module, tuple[Any, ...]]:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 37), nn.BatchNorm1d(37), nn.ReLU(), nn.Linear(37, 10)), (torch.zeros(2, 64),)


@pytest.mark.parametrize("wire", [None, "bf16"])
@pytest.mark.parametrize("workers", [2, 3])
def test_data_parallel_moves_in_a_step_what_it_says(tmp_path: Any, workers: int, wire: str | None) -> None:
    from isthmus.trainer.plan.traffic import Nobody
    from isthmus.trainer.strategies import Worker, part_of
    from isthmus.trainer.task.network import describe
    from isthmus.trainer.wire.exchange import TYPES

    config = configure(
        data="digits", model=network, strategy="data-parallel", workers=workers, rounds=2, local_steps=3,
        executor="serial", eval_every=100, wire=wire, out=tmp_path / "run",
    )  # fmt: skip
    row = train(config).rows[1]
    module, call = network()
    for worker in range(workers):
        kind = None if wire is None else TYPES[wire]
        here = Worker(Nobody(worker, workers), describe(module, call, 0, None), 0, kind)
        traffic = part_of(config.strategy, here).step_traffic(module)
        assert (3 * traffic.sent, 3 * traffic.received) == (row["sent_bytes"][worker], row["received_bytes"][worker])
