"""The multilayer perceptron: how it is built, initialised, and which entries of it a set of hidden units holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional

from isthmus.errors import InvalidInput, check_choice, check_integer
from isthmus.nets.ownership import Held, IndexMap
from isthmus.partitions import Indices
from isthmus.randomness import generator

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "gelu": functional.gelu,
    "tanh": torch.tanh,
}
NORMS = ("batch", "none")


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

    def with_widths(self, widths: Sequence[int]) -> MLPSpec:
        """Return the same network with other hidden widths."""
        return dataclasses.replace(self, widths=tuple(int(width) for width in widths))


class MLP(nn.Module):
    """The network of a spec; parameters are left unset, for a state to be loaded (building draws no random number)."""

    def __init__(self, spec: MLPSpec, device: torch.device | str = "cpu") -> None:
        super().__init__()
        self.spec = spec
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
        values = features
        for layer, linear in enumerate(self.hidden):
            values = linear(values)
            if self.norms:
                values = self.norms[layer](values)
            values = self._activation(values)
        return self.output(values)


@lru_cache(maxsize=256)
def parameter_shapes(spec: MLPSpec) -> MappingProxyType[str, torch.Size]:
    """Return name -> shape of every parameter in the module's order, without allocating any."""
    shapes = {name: parameter.shape for name, parameter in MLP(spec, "meta").named_parameters()}
    return MappingProxyType(shapes)


def parameter_count(spec: MLPSpec) -> int:
    """Return the number of parameters.

    >>> parameter_count(MLPSpec(inputs=3, widths=(4,), outputs=2, norm="none"))  # 3*4 + 4 + 4*2 + 2
    26
    """
    return sum(shape.numel() for shape in parameter_shapes(spec).values())


def initial_state(spec: MLPSpec, seed: int) -> dict[str, Tensor]:
    """Return the initial parameters and buffers, drawn by name from the seed.

    Hidden weights are normal with variance 2 / fan-in, output weights with 1 / fan-in; biases 0, norms the identity.

    Reference:
        He, Zhang, Ren, Sun, "Delving deep into rectifiers" (ICCV 2015).
    """
    state = {name: value.clone() for name, value in MLP(spec).state_dict().items()}
    for name, tensor in state.items():
        if tensor.dim() == 2:
            variance = (1.0 if name.startswith("output") else 2.0) / tensor.shape[1]
            drawn = generator(seed, f"init/{name}").standard_normal(tuple(tensor.shape))
            state[name] = torch.from_numpy(drawn * variance**0.5).to(tensor.dtype)
        elif name.endswith("bias"):
            state[name] = torch.zeros_like(tensor)
    return state


def index_map(spec: MLPSpec, held: Sequence[Indices]) -> IndexMap:
    """Return which entries of every parameter and buffer belong to the held units of each hidden layer.

    One index set a layer serves its rows, its bias, its norm and the next layer's columns; inputs and outputs are
    never cut.

    Raises:
        InvalidInput: not one index array a hidden layer.
    """
    if len(held) != len(spec.widths):
        raise InvalidInput(f"`held` must have one index array for each of {len(spec.widths)} hidden layers")
    held_of: dict[str, Held] = {}
    columns: Indices | None = None
    for layer, rows in enumerate(held):
        held_of[f"hidden.{layer}.weight"] = (rows, columns)
        held_of[f"hidden.{layer}.bias"] = (rows,)
        for name in ("weight", "bias", "running_mean", "running_var"):
            held_of[f"norms.{layer}.{name}"] = (rows,)
        held_of[f"norms.{layer}.num_batches_tracked"] = ()
        columns = rows
    held_of["output.weight"] = (None, columns)
    held_of["output.bias"] = (None,)
    return held_of


def _linear(fan_in: int, fan_out: int, bias: bool, device: torch.device | str) -> nn.Linear:
    return nn.utils.skip_init(nn.Linear, fan_in, fan_out, bias=bias, device=device)
