"""What a network is trained and tested by: a loss, and a metric."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from isthmus.errors import InvalidInput
from isthmus.factories import call_factory, load_factory
from isthmus.trainer.task.examples import Batch, Positions


@dataclass(frozen=True, eq=False)
class Objective:
    """A loss to train by, and a metric to test by.

    Attributes:
        loss: (output, targets) -> mean over the batch; None: the loss that the network returns, or cross-entropy.
        metric: (outputs, targets) -> number, larger is better; None: the accuracy.
        labels: whether, without a loss, targets say of each label whether it is there: the loss of a sample is then the
            binary cross-entropy summed over labels, and one is right whose largest logit is that of a label it has.
    """

    loss: Callable[[Any, Any], Tensor] | None = None
    metric: Callable[[Any, Any], Any] | None = None
    labels: bool = False

    def training_loss(self, network: Callable[..., Any], batch: Batch) -> Tensor:
        """Return the mean loss of a network on a batch.

        Raises:
            InvalidInput: output and targets that the loss cannot take; names the sample where one is to blame.
        """
        output = network(*batch.args, **batch.kwargs)
        return self._mean(chosen(output, batch), batch)

    def tested(self, output: Any, batch: Batch) -> tuple[float, int, float]:
        """Return the loss summed over targets, their number, and how many are right (nan without class numbers)."""
        output, targets = chosen(output, batch), batch.targets
        own = _own_loss(output)
        if self.loss is None and own is None and self.labels:
            logits = logits_of(output).double()
            right = targets.gather(1, logits.argmax(dim=1, keepdim=True)).sum()
            return float(_labels_loss(logits, targets)), len(targets), float(right)
        if self.loss is None and own is None:
            logits, wanted = _flat(logits_of(output), targets)
            total = _cross_entropy(logits.double(), wanted, batch, "sum").item()
            return total, len(wanted), float((logits.argmax(dim=1) == wanted).sum())
        count = targets.numel() if isinstance(targets, Tensor) else len(batch.numbers)
        mean = self._mean(output, batch)
        return float(mean) * count, count, _right(output, targets)

    def _mean(self, output: Any, batch: Batch) -> Tensor:
        if self.loss is not None:
            value = self.loss(output, batch.targets)
            if not isinstance(value, Tensor) or value.dim() != 0:
                shown = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise InvalidInput(f"`loss` must return one number, the mean over the batch, got {shown}")
            return value
        own = _own_loss(output)
        if own is not None:
            return own
        if self.labels:
            return _labels_loss(logits_of(output), batch.targets) / len(batch.targets)
        return _cross_entropy(*_flat(logits_of(output), batch.targets), batch, "mean")


def objective_of(loss: Any, metric: Any) -> Objective:
    """Return the objective of a configuration: names of factories, or objects.

    Raises:
        InvalidInput: no such factory, or it does not return a function.
    """
    return Objective(_function(loss, "loss"), _function(metric, "metric"))


def logits_of(output: Any) -> Tensor:
    """Return the logits among what a network returns: a tensor, something with ``logits``, or the first of several.

    Raises:
        InvalidInput: none of these.
    """
    if isinstance(output, (tuple, list)) and output and not hasattr(output, "logits"):
        output = output[0]
    found = output.get("logits") if isinstance(output, dict) else getattr(output, "logits", output)
    if not isinstance(found, Tensor):
        raise InvalidInput(
            f"`model` must return logits (a tensor, an object with `logits`, or a tuple that begins with them), "
            f"got {type(output).__name__}"
        )
    return found


def chosen(output: Any, batch: Batch) -> Any:
    """Return the outputs that are meant."""
    return output if batch.outputs is None else logits_of(output)[batch.outputs]


def _flat(logits: Tensor, targets: Any) -> tuple[Tensor, Tensor]:
    """Return logits [k, classes] and class numbers [k].

    Raises:
        InvalidInput: they do not fit each other.
    """
    if not isinstance(targets, Tensor):
        raise InvalidInput(
            f"cross-entropy needs class numbers, got targets of type {type(targets).__name__}: give a `loss`"
        )
    if logits.dim() < 2:
        raise InvalidInput(
            f"`model` must return logits of every sample, [samples, classes], got shape {tuple(logits.shape)}: if it "
            "returns its loss, return an object or dictionary with `loss`, or give a `loss`"
        )
    if targets.is_floating_point() or targets.shape != logits.shape[:-1]:
        kind = "several labels a sample?" if targets.shape == logits.shape else "values, or another number of them?"
        raise InvalidInput(
            f"cross-entropy needs one class number for each of {tuple(logits.shape[:-1])} outputs, got targets of "
            f"shape {tuple(targets.shape)}, {str(targets.dtype).removeprefix('torch.')} ({kind}): give a `loss`, as "
            "torch.nn.BCEWithLogitsLoss()"
        )
    return logits.reshape(-1, logits.shape[-1]), targets.reshape(-1)


def _cross_entropy(logits: Tensor, targets: Tensor, batch: Batch, reduction: str) -> Tensor:
    """Return the cross-entropy of logits [k, classes].

    Raises:
        InvalidInput: a class number that is none; names the sample.
    """
    try:
        return functional.cross_entropy(logits, targets, reduction=reduction)
    except IndexError:
        raise _out_of_range(logits, targets, batch.numbers) from None


def _labels_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the binary cross-entropy of logits [k, classes], summed: so a label weighs the same in every cut."""
    return functional.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), reduction="sum")


def _out_of_range(logits: Tensor, targets: Tensor, numbers: Positions) -> InvalidInput:
    classes, each = logits.shape[1], max(1, len(targets) // max(1, len(numbers)))
    bad = ((targets < 0) | (targets >= classes)).nonzero()
    if not len(bad):
        return InvalidInput("the loss fails: an index is out of range")
    first = int(bad[0])
    sample = int(numbers[min(first // each, len(numbers) - 1)])
    return InvalidInput(
        f"the target of sample {sample} is {int(targets[first])}, but the network returns {classes} classes, "
        f"0..{classes - 1}"
    )


def _own_loss(output: Any) -> Tensor | None:
    found = output.get("loss") if isinstance(output, dict) else getattr(output, "loss", None)
    return found if isinstance(found, Tensor) else None


def _right(output: Any, targets: Any) -> float:
    """Return how many class numbers are foretold; nan where there are none."""
    try:
        logits = logits_of(output)
    except InvalidInput:
        return float("nan")
    if not isinstance(targets, Tensor) or targets.is_floating_point() or targets.shape != logits.shape[:-1]:
        return float("nan")
    return float((logits.argmax(dim=-1) == targets).sum())


def _function(given: Any, flag: str) -> Callable[..., Any] | None:
    if given is None:
        return None
    made = call_factory(load_factory(given, flag), f"`{flag}` {given!r}") if isinstance(given, str) else given
    if not callable(made) or inspect.isclass(made):
        what = "return a function" if isinstance(given, str) else "be a function"
        raise InvalidInput(f"`{flag}` must {what} of (output, targets), got {made!r}")
    result: Callable[..., Any] = made
    return result


def detached(output: Any) -> Any:
    """Return what a metric is given of an output: its logits where it has some, on the CPU."""
    try:
        return logits_of(output).detach().cpu()
    except InvalidInput:
        return torch.utils._pytree.tree_map(lambda t: t.detach().cpu() if isinstance(t, Tensor) else t, output)
