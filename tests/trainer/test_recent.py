"""The batches kept to measure norms on are passed through the network as they were in training."""

import pytest
import torch
from torch import nn

from isthmus.trainer.local.recent import Recent

CPU = torch.device("cpu")


def test_a_call_under_autocast_is_repeated_under_it() -> None:
    """Lightning Fabric converts the input itself: without autocast its product with float32 weights is an error."""
    network, x = nn.Linear(3, 2), torch.randn(4, 3).bfloat16()
    recent = Recent(CPU)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        recent.keep((x,), {})
        expected = network(x)
    [call] = recent.calls()
    torch.testing.assert_close(call.repeat(network), expected, rtol=0, atol=0)
    with pytest.raises(RuntimeError, match="dtype"):
        network(x)


def test_a_call_without_autocast_is_repeated_without_it() -> None:
    network, x = nn.Linear(3, 2), torch.randn(4, 3)
    recent = Recent(CPU)
    recent.keep((), {"input": x})
    [call] = recent.calls()
    assert torch.equal(call.repeat(network), network(x))
    assert call.repeat(network).dtype == torch.float32


def test_a_batch_that_was_written_to_is_left_out_and_old_ones_are_dropped() -> None:
    recent = Recent(CPU)
    batches = [torch.full((1000, 1), float(number)) for number in range(7)]
    for batch in batches:
        recent.keep((batch,), {})
    batches[4].add_(1)
    assert [call.args[0][0].item() for call in recent.calls()] == [2, 3, 5, 6]
