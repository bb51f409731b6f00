"""Which optimizer; a class an optimizer, in one table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from isthmus.errors import check_number

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with Nesterov momentum.

    Attributes:
        lr: peak learning rate; by default one that suits the strategy.
        momentum: 0 for none.
        weight_decay: L2 penalty.

    Raises:
        InvalidInput: a value that breaks its rule.
    """

    name: ClassVar[str] = "sgd"
    keeps_state: ClassVar[bool] = False  # momentum that starts anew every round was measured to do no harm
    rate: ClassVar[float | None] = None

    lr: float | None = None
    momentum: float = 0.9
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _check(self.lr, self.weight_decay)
        check_number("momentum", self.momentum, at_least=0.0, below=1.0)

    def make(self, module: nn.Module) -> Optimizer:
        """Return the optimizer of a module's trained parameters; the schedule sets the rate."""
        from torch import optim

        return optim.SGD(
            _trained(module),
            lr=1.0,
            momentum=self.momentum,
            nesterov=self.momentum > 0,
            weight_decay=self.weight_decay,
        )


@dataclass(frozen=True)
class AdamW:
    """AdamW with decay rates 0.9 and 0.999.

    Attributes:
        lr: peak learning rate; by default 0.001.
        weight_decay: decoupled.

    Raises:
        InvalidInput: a value that breaks its rule.
    """

    name: ClassVar[str] = "adamw"
    keeps_state: ClassVar[bool] = True
    rate: ClassVar[float | None] = 1e-3

    lr: float | None = None
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _check(self.lr, self.weight_decay)

    def make(self, module: nn.Module) -> Optimizer:
        """Return the optimizer of a module's trained parameters; the schedule sets the rate."""
        from torch import optim

        return optim.AdamW(_trained(module), lr=1.0, weight_decay=self.weight_decay)


@dataclass(frozen=True)
class OwnOptimizer:
    """An optimizer of one's own, from Python.

    Attributes:
        function: returns a torch optimizer of a module's parameters; its rates are peaks, which the schedule follows.
        lr: None: the optimizer has its own.
    """

    name: ClassVar[str] = "own"
    keeps_state: ClassVar[bool] = True
    rate: ClassVar[float | None] = 1.0

    function: Callable[[Any], Any]
    lr: None = None

    def make(self, module: nn.Module) -> Optimizer:
        """Return what the function makes."""
        made: Optimizer = self.function(module)
        return made


OptimizerChoice = SGD | AdamW | OwnOptimizer
OPTIMIZERS: dict[str, type[SGD] | type[AdamW]] = {kind.name: kind for kind in (SGD, AdamW)}


def _check(lr: float | None, weight_decay: float) -> None:
    if lr is not None:
        check_number("lr", lr, above=0.0)
    check_number("weight_decay", weight_decay, at_least=0.0)


def _trained(module: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad]
