"""What cannot be traced is refused in one line that says where in the user's own code it is."""

import inspect
import logging
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import isthmus
from isthmus.errors import InvalidInput
from isthmus.nets.graph.failures import is_theirs
from isthmus.nets.pieces.subnetwork import build


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)


class Branch(Inner):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return self.linear(x)
        return x


class Number(Inner):
    def forward(self, x: Tensor) -> Tensor:
        scale = float(x.abs().max())
        return self.linear(x) / scale


class Item(Inner):
    def forward(self, x: Tensor) -> Tensor:
        if x.mean().item() > 0:
            return self.linear(x)
        return x


class Shape(Inner):
    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.view(-1, 7))


class Assigns(Inner):
    def forward(self, x: Tensor) -> Tensor:
        x[:, 3:] = 0
        return self.linear(x)


class InPlace(Inner):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x.t().mul_(2.0)
        return self.linear(x)


class Differentiates(Inner):
    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            u = self.linear(x).tanh()
            return u + torch.autograd.grad(u.sum(), x, create_graph=True)[0]


class PythonsChance(Inner):
    def forward(self, x: Tensor) -> Tensor:
        if self.training and random.random() < 0.5:
            return x
        return self.linear(x)


class PythonsFunction(Inner):
    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) * random.uniform(0.5, 1.0)


class NumPysChance(Inner):
    def forward(self, x: Tensor) -> Tensor:
        scale = np.random.uniform(0.5, 1.0)  # noqa: NPY002
        return self.linear(x) * scale


class Unmasked(Inner):
    """As some networks of transformers: a mask that is left out is made only where nobody traces."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is None and not torch.compiler.is_compiling():
            mask = x.new_ones(len(x))
        return self.linear(x) * mask[:, None]


class Outer(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.stem, self.encoder = nn.Linear(6, 6), nn.ModuleDict({"gate": inner})

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder["gate"](self.stem(x))


def refusal(model: nn.Module, *args: Tensor) -> str:
    with pytest.raises(InvalidInput) as caught:
        isthmus.trace(model, args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def line_of(cls: type, code: str) -> str:
    lines, first = inspect.getsourcelines(cls)
    number = next(i for i, line in enumerate(lines) if code in line)
    return f"(test_refusals.py:{first + number}: `{' '.join(code.split())}`)"


@pytest.mark.parametrize(
    ("cls", "said", "code"),
    [
        (Branch, "it branches on values in `encoder.gate`", "if x.sum() > 0:"),
        (Number, "it turns a tensor into a Python number in `encoder.gate`", "scale = float(x.abs().max())"),
        (Item, "it turns a tensor into a Python number in `encoder.gate`", "if x.mean().item() > 0:"),
        (Shape, "cannot be traced in `encoder.gate`", "return self.linear(x.view(-1, 7))"),
        (Unmasked, "give it what the call leaves out", "return self.linear(x) * mask[:, None]"),
        (Differentiates, "it differentiates itself in `encoder.gate`",
         "return u + torch.autograd.grad(u.sum(), x, create_graph=True)[0]"),
        (PythonsChance, "asks Python or NumPy for some in `encoder.gate`",
         "if self.training and random.random() < 0.5:"),
        (PythonsFunction, "asks Python or NumPy for some in `encoder.gate`",
         "return self.linear(x) * random.uniform(0.5, 1.0)"),
        (NumPysChance, "asks Python or NumPy for some in `encoder.gate`",
         "scale = np.random.uniform(0.5, 1.0)  # noqa: NPY002"),
    ],
)
def test_the_line_that_cannot_be_traced_is_named(cls: type, said: str, code: str, capfd) -> None:
    message = refusal(Outer(cls()), torch.randn(4, 6))
    assert said in message
    assert line_of(cls, code) in message
    assert capfd.readouterr().err == ""


def test_packages_whose_names_begin_with_torch_are_not_torch() -> None:
    folder = Path(torch.__file__).parent
    assert is_theirs(f"{folder}_geometric/nn/conv/rgcn_conv.py")
    assert not is_theirs(f"{folder}/nn/modules/linear.py")
    assert not is_theirs(random.__file__)
    assert is_theirs(pytest.__file__)


def test_what_is_drawn_outside_of_the_forward_is_nobodys_business() -> None:
    """Also: a generator that the network makes and seeds itself gives the same in every step without us."""

    class Own(Inner):
        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x) * random.Random(3).uniform(0.5, 1.0)

    random.seed(1)
    before = random.getstate()
    isthmus.trace(Own(), (torch.randn(4, 6),), verify=True)
    assert random.getstate() == before


@pytest.mark.parametrize(("cls", "code"), [(Assigns, "x[:, 3:] = 0"), (InPlace, "x.t().mul_(2.0)")])
def test_a_forward_that_writes_to_its_input_is_refused(cls: type, code: str) -> None:
    x = torch.randn(4, 6)
    before = x.clone()
    message = refusal(cls(), x)
    assert message == f"`model` must not write to its input 0, it does so in its forward {line_of(cls, code)}"
    assert torch.equal(x, before)
    isthmus.trace(Outer(cls()), (x,))  # what it writes to there is its own


class First(Inner):
    """Makes a layer when it first runs."""

    def __init__(self) -> None:
        super().__init__()
        self.head: nn.Module | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.head is None:
            self.head = nn.Linear(x.shape[1], 3)
        return self.head(self.linear(x))


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (nn.Sequential(nn.LazyLinear(8), nn.ReLU()), "has a layer without sizes yet (LazyLinear in 0)"),
        (nn.Sequential(nn.Linear(6, 8), nn.LazyBatchNorm1d()), "has a layer without sizes yet (LazyBatchNorm1d in 1)"),
        (First(), "makes head when it first runs"),
    ],
)
def test_a_layer_that_never_ran_is_to_be_run_once(model: nn.Module, said: str) -> None:
    x = torch.randn(4, 6)
    assert refusal(model, x) == f"`model` {said}: run it once on a batch, then trace it"
    model(x)
    isthmus.trace(model, (x,))


class Conditional(Inner):
    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x)
        return torch.cond(x.sum() > 0, torch.relu, torch.tanh, (x,))


def test_a_branch_of_torch_is_refused() -> None:
    code = "return torch.cond(x.sum() > 0, torch.relu, torch.tanh, (x,))"
    said = f"it calls torch.cond in `encoder.gate` {line_of(Conditional, code)}; torch.where chooses without a branch"
    assert refusal(Outer(Conditional()), torch.randn(4, 6)) == f"`model` must not branch on values, {said}"


def test_a_number_that_only_scales_is_traced() -> None:
    class Scaled(Inner):
        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x) * x.mean().item()

    model, x = Scaled(), torch.randn(4, 6)
    piece = build(model, isthmus.trace(model, (x,)), {}).module
    other = torch.randn(3, 6)
    assert torch.equal(piece(other), model(other))


def test_a_submodule_of_torch_is_named() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8))
    assert "cannot be traced in `1` (ValueError" in refusal(model, torch.randn(6))


def test_levels_of_loggers_are_put_back() -> None:
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    before = logger.level
    refusal(Outer(Shape()), torch.randn(4, 6))
    assert logger.level == before


class Convolutions(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(channels, 8, 3), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).relu().mean((-1, -2)))


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), (6,)),
        (Convolutions(3), (3, 8, 8)),
        (Convolutions(1), (1, 8, 8)),
        (nn.Sequential(nn.ReLU(), nn.Conv1d(4, 8, 3), nn.ReLU()), (4, 9)),
    ],
)
def test_one_sample_is_no_batch(model: nn.Module, shape: tuple[int, ...]) -> None:
    message = refusal(model, torch.randn(shape))
    assert message.startswith("`args` must hold a batch of samples, got one sample in input 0 of shape " + str(shape))
    isthmus.trace(model, (torch.randn(2, *shape),))


def test_a_bare_number_is_no_batch() -> None:
    assert "a tensor without dimensions" in refusal(nn.Linear(1, 2), torch.tensor(1.0))


class PerNode(nn.Module):
    """A graph network: nodes with features of their own, a fixed number of them, and their adjacency."""

    def __init__(self) -> None:
        super().__init__()
        self.own, self.a, self.b = nn.Parameter(torch.randn(10, 6)), nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        return self.b(adjacency @ self.a(x + self.own).relu())


class Scaled(nn.Module):
    """What it learns it has learnt without an input; a number scales it."""

    def __init__(self) -> None:
        super().__init__()
        self.values, self.a, self.b = nn.Parameter(torch.randn(5, 6)), nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.b(self.a(self.values).relu())


class OfNumbers(nn.Module):
    """Samples are single numbers: a batch is a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(1, 8), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x[:, None]).relu())[:, 0]


@pytest.mark.parametrize(
    ("model", "args"),
    [
        (PerNode(), (torch.randn(10, 6), torch.eye(10))),
        (OfNumbers(), (torch.randn(5),)),
        (Scaled(), (torch.tensor(2.0),)),
    ],
)
def test_legal_inputs_that_look_like_one_sample(model: nn.Module, args: tuple[Tensor, ...]) -> None:
    coupling = isthmus.trace(model, args)
    assert coupling.problems == ()
    assert 8 in [axis.size for axis in coupling.cut_axes]


def test_results_that_do_not_follow_the_batch_are_noted() -> None:
    class Pooled(Inner):
        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x).mean(0)

    class Loss(Inner):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.linear(x).mean(), self.linear.weight

    x = torch.randn(4, 6)
    assert isthmus.trace(Pooled(), (x,)).problems == (
        "no result has a size that follows the batch (result output: (6,))",
    )
    assert isthmus.trace(Loss(), (x,)).problems == ()
