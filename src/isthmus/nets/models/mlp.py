"""The multilayer perceptron, trained where no other network is named, and how it is initialised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from isthmus.errors import InvalidInput, check_choice, check_integer
from isthmus.nets.models.standardize import Standardize
from isthmus.randomness import generator

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "gelu": functional.gelu,
    "tanh": torch.tanh,
}
NORMS = ("batch", "none")
_DRAWN_AT_ONCE = 1 << 18  # numbers: 2 MiB


@dataclass(frozen=True)
class MLPSpec:
    """What an MLP is made of: inputs -> [linear -> norm -> activation] per hidden layer -> outputs.

    Attributes:
        inputs: number of features p.
        widths: units of each hidden layer.
        outputs: number of classes.
        activation: "relu", "gelu" or "tanh".
        norm: "batch" (batch norm before the activation; the linear layer then has no bias) or "none".

    Raises:
        InvalidInput: a size below 1, no hidden layer, or an unknown activation or norm.
    """

    inputs: int
    widths: tuple[int, ...]
    outputs: int
    activation: str = "relu"
    norm: str = "batch"

    def __post_init__(self) -> None:
        check_integer("inputs", self.inputs, at_least=1)
        check_integer("outputs", self.outputs, at_least=1)
        if not self.widths:
            raise InvalidInput("`widths` must name at least one hidden layer, got none")
        for width in self.widths:
            check_integer("widths", width, at_least=1)
        check_choice("activation", self.activation, ACTIVATIONS)
        check_choice("norm", self.norm, NORMS)


class MLP(nn.Module):
    """The network of a spec; its weights are left unset, for :func:`initialize` or a state to be loaded.

    It takes features as they are: ``standardize`` brings them to mean 0 and deviation 1, or, at first, does nothing.
    """

    def __init__(self, spec: MLPSpec, device: torch.device | str = "cpu") -> None:
        super().__init__()
        self.spec = spec
        self.standardize = Standardize.identity(spec.inputs, device)
        sizes = [spec.inputs, *spec.widths]
        bias = spec.norm == "none"
        self.hidden = nn.ModuleList(
            [_linear(fan_in, fan_out, bias, device) for fan_in, fan_out in pairwise(sizes)]
        )
        normed = spec.widths if spec.norm == "batch" else ()
        self.norms = nn.ModuleList([nn.BatchNorm1d(width, device=device) for width in normed])
        self.output = _linear(sizes[-1], spec.outputs, True, device)
        self._activation = ACTIVATIONS[spec.activation]

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits [m, outputs] of features [m, inputs]."""
        values = self.standardize(features)
        for layer, linear in enumerate(self.hidden):
            values = linear(values)
            if self.norms:
                values = self.norms[layer](values)
            values = self._activation(values)
        return self.output(values)


def parameter_count(spec: MLPSpec) -> int:
    """Return the number of parameters, without allocating any.

    >>> parameter_count(MLPSpec(inputs=3, widths=(4,), outputs=2, norm="none"))  # 3*4 + 4 + 4*2 + 2
    26
    """
    return sum(parameter.numel() for parameter in MLP(spec, "meta").parameters())


def initialize(model: MLP, seed: int) -> MLP:
    """Set the parameters in place; return the network.

    Weights are drawn as in :func:`initial_rows`; biases are 0, norms the identity.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2:
                parameter.copy_(initial_rows(name, parameter, seed, 0, parameter.shape[0]))
            elif name.endswith("bias"):
                parameter.zero_()
    return model


def initial_rows(name: str, weight: Tensor, seed: int, start: int, stop: int) -> Tensor:
    """Return rows start .. stop of a matrix of an MLP, drawn by name from the seed, a few at a time.

    Hidden weights are normal with variance 2 / fan-in, output weights with 1 / fan-in.

    Args:
        name, weight: the parameter; only its shape and type matter.
        seed: of the run.
        start, stop: which rows.

    Reference:
        He, Zhang, Ren, Sun, "Delving deep into rectifiers" (ICCV 2015).
    """
    fan_in = weight.shape[1]
    deviation = ((1.0 if name.startswith("output") else 2.0) / fan_in) ** 0.5
    result = torch.empty((stop - start, fan_in), dtype=weight.dtype)
    stream, rows = generator(seed, f"init/{name}"), max(1, _DRAWN_AT_ONCE // fan_in)
    for first in range(0, stop, rows):
        end = min(first + rows, stop)
        drawn = stream.standard_normal((end - first, fan_in))[max(0, start - first) :]
        if len(drawn):
            result[end - start - len(drawn) : end - start] = torch.from_numpy(drawn * deviation)
    return result


def _linear(fan_in: int, fan_out: int, bias: bool, device: torch.device | str) -> nn.Linear:
    return nn.utils.skip_init(nn.Linear, fan_in, fan_out, bias=bias, device=device)
