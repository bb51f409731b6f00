"""What is traced, refused or kept whole, with the reason."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import isthmus
from cases.networks import GPT, T5, Basic, Bottleneck, LeNet, Llama, mlp, resnet
from isthmus.errors import InvalidInput
from isthmus.nets.axes.registry import RULES
from isthmus.nets.check.verify import verify
from isthmus.nets.coupling import tracing
from isthmus.nets.graph import conditions
from isthmus.nets.graph.export import export_graph
from isthmus.nets.pieces.subnetwork import build
from isthmus.nets.rules import rule


def reasons(coupling) -> str:
    return " ".join(reason for whole in coupling.whole for reason in whole.reasons)


def test_layouts_of_a_transformer() -> None:
    """Fused q|k|v rows and output columns move by whole heads; grouped queries move with their key."""
    coupling = isthmus.trace(GPT(), (torch.zeros(2, 5, dtype=torch.long),))
    head = next(axis for axis in coupling.axes if axis.name == "blocks.0.attn.qkv")
    kept = coupling.index_map({head.name: np.array([1, 3])})
    inside = [4, 5, 6, 7, 12, 13, 14, 15]
    assert kept["blocks.0.attn.qkv.weight"][0].tolist() == [p * 16 + i for p in range(3) for i in inside]
    assert kept["blocks.0.attn.out.weight"][1].tolist() == inside
    assert kept["blocks.0.attn.out.weight"][0] is None
    llama = isthmus.trace(Llama(), (torch.zeros(2, 5, dtype=torch.long),))
    kept = llama.index_map({"layers.0.q": np.array([2])})
    assert kept["layers.0.q.weight"][0].tolist() == [8, 9, 10, 11]
    assert kept["layers.0.k.weight"][0].tolist() == [4, 5]


def test_convolution_to_linear_moves_whole_places() -> None:
    coupling = isthmus.trace(LeNet(), (torch.zeros(2, 1, 14, 14),))
    kept = coupling.index_map({"c2": np.array([1, 7])})
    assert kept["f1.weight"][1].tolist() == [4, 5, 6, 7, 28, 29, 30, 31]


def test_relative_bias_follows_its_heads() -> None:
    coupling = isthmus.trace(T5(), tuple(torch.zeros(2, 5, dtype=torch.long) for _ in range(2)))
    kept = coupling.index_map({"self_attention.q": np.array([3])})
    assert kept["self_attention.bias.weight"] == (None, np.array([3]))


class SameSizes(nn.Module):
    """Batch, heads, width of a head and length are all 4: sizes say nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.o = nn.Linear(4, 48), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.q(x).view(4, 4, 3, 4, 4).permute(2, 0, 3, 1, 4).unbind(0)
        y = (q @ k.mT).softmax(-1) @ v
        return self.o(y.transpose(1, 2).reshape(4, 4, 16))


def test_equal_sizes_are_told_apart() -> None:
    x = torch.randn(4, 4, 4)
    model = SameSizes()
    coupling = isthmus.trace(model, (x,))
    assert [(axis.size, axis.kind) for axis in coupling.cut_axes] == [(4, "head")]
    assert verify(coupling.select(["*"]), model, (x,)).passed


class Sigmoid(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.sigmoid()

    @staticmethod
    def backward(ctx, grad):
        return grad


class Custom(nn.Module):
    def __init__(self, f) -> None:
        super().__init__()
        self.a, self.b, self.f = nn.Linear(4, 8), nn.Linear(8, 2), f

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.f(self.a(x)))


@pytest.mark.parametrize(
    ("f", "message"),
    [
        (Sigmoid.apply, "custom autograd function 'Sigmoid'"),
        (lambda x: x if x.sum() > 0 else -x, "cannot be traced"),
        (lambda x: x[x > 0][: int(x.shape[0])].sum() + x if bool((x > 0).any()) else x, "cannot be traced"),
    ],
)
def test_out_of_reach_is_refused_in_one_line(f, message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as caught:
        isthmus.trace(Custom(f), (torch.randn(3, 4),))
    assert "\n" not in str(caught.value)


class Gelu(torch.autograd.Function):
    """A GELU that keeps its input alone, as Bloom has it; and two whose backward is something else."""

    factor = 1.0

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * 0.5 * (1.0 + torch.tanh(0.79788456 * x * (1 + 0.044715 * x * x)))

    @classmethod
    def backward(cls, ctx, grad):
        (x,) = ctx.saved_tensors
        tanh = torch.tanh(0.79788456 * x * (1 + 0.044715 * x * x))
        slope = 0.5 * x * ((1 - tanh * tanh) * (0.79788456 + 0.1070322243 * x * x)) + 0.5 * (1 + tanh)
        return cls.factor * slope * grad


class Reversed(Gelu):
    factor = -1.0


class Bounded(torch.autograd.Function):
    """A round that passes gradients on between -1 and 1, its context set up apart; and a clamp that does."""

    @staticmethod
    def forward(x):
        return torch.round(x)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, grad):
        return grad * (ctx.saved_tensors[0].abs() <= 1)


class Clamped(Bounded):
    @staticmethod
    def forward(x):
        return torch.clamp(x, -1, 1)


@pytest.mark.parametrize("function", [Gelu, Clamped])
def test_a_custom_function_whose_backward_is_the_derivative_of_its_forward_is_cut(function) -> None:
    model, x = Custom(lambda x: function.apply(x)).double(), torch.randn(5, 4).double()
    coupling = isthmus.trace(model, (x,), verify=True)
    assert [axis.name for axis in coupling.cut_axes] == ["a"]
    piece = isthmus.cut(model, coupling, coupling.partition(1, seed=0), 0).module
    for network in (piece, model):
        network(x).square().sum().backward()
    for name, parameter in piece.named_parameters():
        torch.testing.assert_close(parameter.grad, model.get_parameter(name).grad, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("function", [Reversed, Bounded])
def test_a_custom_function_with_another_backward_is_refused(function) -> None:
    with pytest.raises(InvalidInput, match=f"custom autograd function '{function.__name__}', whose backward is not"):
        isthmus.trace(Custom(lambda x: function.apply(x)), (torch.randn(3, 4),))
    assert "apply" in vars(torch.autograd.Function)


@pytest.mark.parametrize(
    ("f", "reason"),
    [
        (lambda x: x.softmax(-1), "softmax over this axis"),
        (lambda x: x.cumsum(-1), "the order along this axis matters"),
        (lambda x: x * torch.arange(8), "positions used as values"),
        (lambda x: x.sort(-1).values, "sorted along this axis"),
        (lambda x: torch.trace(x) + x, "no rule for this operator (aten.trace)"),
        (lambda x: torch.linalg.qr(x.t() @ x)[0][: x.shape[0]] + x, "no rule for this operator (aten.linalg_qr)"),
    ],
)
def test_kept_whole_with_the_reason(f, reason: str) -> None:
    model, x = Custom(f), torch.randn(8, 4)
    coupling = isthmus.trace(model, (x,))
    assert coupling.cut_axes == ()
    assert reason in reasons(coupling)
    assert reason.split(" (")[0] in str(coupling)
    with pytest.raises(InvalidInput, match="no axis"):
        coupling.partition(2, seed=0)


def test_a_permuted_axis_is_an_axis_of_its_own() -> None:
    """Behind a fixed permutation the units are new ones: the index is sliced with them, what it reads is whole."""
    model, x = Custom(lambda x: x[:, torch.tensor([1, 0, 2, 7, 4, 5, 6, 3])].relu()), torch.randn(8, 4)
    coupling = isthmus.trace(model, (x,), verify=True)
    assert [axis.members[0].name for axis in coupling.cut_axes] == ["b.weight"]
    assert "indexed by value" in reasons(coupling)


def test_an_unknown_operator_names_its_submodule_and_leaves_the_rest() -> None:
    class Frozen(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.linalg.matrix_exp(x.t() @ x)[: x.shape[0]]

    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), Frozen(), nn.Linear(6, 2))
    coupling = isthmus.trace(model, (torch.randn(6, 4),))
    assert [axis.name for axis in coupling.cut_axes] == ["0"]
    assert coupling.problems == ("kept whole: no rule for this operator (aten.linalg_matrix_exp in 3)",)


def test_a_rule_for_a_custom_operator_takes_a_few_lines() -> None:
    @torch.library.custom_op("isthmustest::scaled", mutates_args=())
    def scaled(x: Tensor, factor: float) -> Tensor:
        return x * factor

    scaled.register_fake(lambda x, factor: torch.empty_like(x))
    scaled.register_autograd(lambda ctx, grad: (grad * ctx.factor, None),
                             setup_context=lambda ctx, inputs, output: setattr(ctx, "factor", inputs[1]))  # fmt: skip
    model, x = Custom(lambda x: scaled(x, 2.0)), torch.randn(3, 4)
    assert "no rule for this operator (isthmustest.scaled)" in reasons(isthmus.trace(model, (x,)))
    try:
        rule("isthmustest::scaled")(lambda call: call.dims(call["x"]))
        coupling = isthmus.trace(model, (x,), verify=True)
        assert [axis.name for axis in coupling.cut_axes] == ["a"]
    finally:
        del RULES["isthmustest::scaled"]


def test_verify_finds_a_wrong_rule() -> None:
    """A rule that lets a softmax be cut: the comparison must not agree."""
    right = RULES["aten::softmax"]
    model, x = Custom(lambda x: x.softmax(-1)), torch.randn(3, 4)
    try:
        rule("aten::softmax")(lambda call: call.dims(call["self"]))
        with pytest.raises(InvalidInput, match=r"not cut correctly: .* differ \(outputs"):
            isthmus.trace(model, (x,), verify=True)
    finally:
        RULES["aten::softmax"] = right


def test_shared_memory_and_unused_parameters_are_whole() -> None:
    model = Custom(torch.relu)
    model.b = nn.Linear(8, 4)
    model.b.weight = nn.Parameter(model.a.weight.t())
    model.unused = nn.Linear(5, 5)
    coupling = isthmus.trace(model, (torch.randn(3, 4),))
    assert coupling.cut_axes == ()
    assert "shares memory with" in reasons(coupling)
    assert "not used by the network's forward" in reasons(coupling)


class Counting(nn.Module):
    """Keeps a mean of its hidden units and the last of them, as ``write`` says."""

    def __init__(self, write: str) -> None:
        super().__init__()
        self.a, self.b, self.write = nn.Linear(4, 8), nn.Linear(8, 2), write
        self.register_buffer("mean", torch.zeros(8))
        self.register_buffer("last", torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        new = 0.9 * self.mean + 0.1 * y.mean(0)
        if self.write == "in place":
            self.mean.copy_(new.detach())
            self.last.copy_(y[-1].detach())
        else:
            self.mean, self.last = new.detach(), y[-1].detach()
        return self.b((y + self.mean).relu())


@pytest.mark.parametrize("write", ["in place", "assigned"])
def test_buffers_that_forward_writes_follow_their_units(write: str) -> None:
    model, x = Counting(write), torch.randn(3, 4)
    coupling = isthmus.trace(model, (x,), verify=True)
    assert not model.mean.any()
    assert coupling.problems == ()
    assert [axis.size for axis in coupling.cut_axes] == [8]
    partition = coupling.partition(2, seed=0)
    parts = [isthmus.cut(model, coupling, partition, worker) for worker in range(2)]
    for part in parts:
        for _ in range(2):
            part.module(x)
    isthmus.merge(model, parts)
    torch.testing.assert_close(model.mean, 0.19 * model.a(x).mean(0).detach())
    torch.testing.assert_close(model.last, model.a(x)[-1].detach())


class Kept(nn.Module):
    """Keeps something from call to call, as ``how`` says."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.a, self.b, self.how = nn.Linear(4, 8), nn.Linear(8, 2), how
        self.register_buffer("places", torch.zeros(1))
        self.last = torch.zeros(8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        if self.how == "for its sizes" and len(self.places) != x.shape[1]:  # as ConViT does
            self.places = torch.arange(x.shape[1], dtype=x.dtype)
        elif self.how == "in half" and self.places.dtype != torch.float16:
            self.places = self.places.half()
        elif self.how == "all":
            self.places = torch.cat([self.places, y[0, :1].detach()])
        elif self.how in ("read", "written"):
            y = y + self.last
        if self.how in ("read", "looked at"):
            self.last = y.detach().mean(0)
        elif self.how == "written":
            self.last.copy_(y.detach().mean(0))
        return self.b(y.relu() + self.places.sum())


@pytest.mark.parametrize("how", ["for its sizes", "in half", "all"])
def test_a_buffer_that_changes_its_shape_is_refused_until_it_has_its_shape(how: str) -> None:
    model, x = nn.Sequential(Kept(how)), torch.randn(3, 4)
    with pytest.raises(InvalidInput, match=r"gives its buffer 0\.places another shape or type in forward: run it once"):
        isthmus.trace(model, (x,))
    model(x)
    if how == "all":
        with pytest.raises(InvalidInput, match="if every call changes it"):
            isthmus.trace(model, (x,))
    else:
        assert [axis.size for axis in isthmus.trace(model, (x,), verify=True).cut_axes] == [8]


@pytest.mark.parametrize(
    ("how", "said"), [("read", "reads its attribute 0.last and assigns it anew"), ("written", "`self.last.copy_(")]
)
def test_a_tensor_that_is_kept_and_no_buffer_is_refused(how: str, said: str) -> None:
    """A piece would go on with that of the trace for ever, and merging return none."""
    with pytest.raises(InvalidInput, match="make it a buffer") as caught:
        isthmus.trace(nn.Sequential(Kept(how)), (torch.randn(3, 4),))
    assert said in str(caught.value)


def test_what_is_kept_to_look_at_does_not_matter() -> None:
    assert isthmus.trace(Kept("looked at"), (torch.randn(3, 4),), verify=True).problems == ()


def test_results_of_unknown_types_are_left_out() -> None:
    class Cache:
        pass

    class Cached(Custom):
        def forward(self, x: Tensor) -> dict[str, object]:
            return {"y": super().forward(x), "cache": Cache(), "none": None}

    model, x = Cached(torch.relu), torch.randn(3, 4)
    coupling = isthmus.trace(model, (x,), verify=True)
    assert coupling.problems == ("result ['cache'] (Cache) is not made of tensors: a subnetwork returns None for it",)
    out = isthmus.cut(model, coupling, coupling.partition(2, seed=0), 0).module(x)
    assert out["y"].shape == (3, 2)
    assert out["cache"] is None


def test_meta_device_and_a_source_of_slices() -> None:
    """A network nobody holds: traced on meta, cut from a function that reads slices."""
    with torch.device("meta"):
        model = resnet(Bottleneck(8, 4))
        coupling = isthmus.trace(model, (torch.zeros(2, 3, 8, 8),))
    partition = coupling.partition(2, seed=0)
    asked = []

    def read(name, held):
        shape = [s if i is None else len(i) for i, s in zip(held, coupling.entries[name].shape, strict=True)]
        asked.append((name, shape))
        return torch.ones(shape, dtype=coupling.entries[name].dtype)

    sub = isthmus.cut(read, coupling, partition, 1)
    assert sub.module(torch.randn(5, 3, 8, 8)).shape == (5, 5)
    assert len(asked) == len(coupling.entries)
    with pytest.raises(InvalidInput, match="meta device"):
        coupling.verify(model, (torch.zeros(2, 3, 8, 8),))


def test_depth_cut_drops_parameters_and_counters() -> None:
    model = resnet(Bottleneck(8, 4), Bottleneck(8, 4), Bottleneck(8, 4))
    x = torch.randn(3, 3, 8, 8)
    coupling = isthmus.trace(model, (x,), cut=["block"])
    partition = coupling.partition(2, seed=0, law="overlapping", minimum=2)
    assert [len(units) for units in partition.held["blocks"]] == [2, 2]
    sub = isthmus.cut(model, coupling, partition, 0)
    gone = {"3", "4", "5"} - {name.split(".")[0] for name in sub.indices}
    assert len(gone) == 1
    model[int(gone.pop())] = nn.Identity()
    torch.testing.assert_close(sub.module.eval()(x), model.eval()(x))


class Half(nn.Module):
    """Residual blocks, the last inside a region of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 6)) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks[:2]:
            x = x + block(x)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=False):
            return x + self.blocks[2](x)


@pytest.mark.parametrize("law", ["fixed", "rotated", "uniform", "block", "rolling"])
def test_fewer_blocks_than_workers_are_refused_in_one_line(law: str) -> None:
    coupling = isthmus.trace(Half(), (torch.randn(3, 6),), cut=["block"])
    assert [len(units) for units in coupling.partition(3, seed=0, law=law).held["blocks"]] == [1, 1, 1]
    with pytest.raises(InvalidInput, match=r"'blocks' has 3 units, too few for 4 .*law='overlapping'") as caught:
        coupling.partition(4, seed=0, law=law)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("minimum", [1, 2, 3])
def test_depth_is_never_less_than_the_minimum(minimum: int) -> None:
    model, x = Half(), torch.randn(3, 6)
    coupling = isthmus.trace(model, (x,), cut=["block"])
    for workers in (2, 3, 5):
        partition = coupling.partition(workers, seed=1, law="overlapping", minimum=minimum)
        held = partition.held["blocks"]
        assert min(len(units) for units in held) >= minimum
        assert set(np.concatenate(held).tolist()) == {0, 1, 2}
        for worker in range(workers):
            sub = isthmus.cut(model, coupling, partition, worker)
            expected = x
            for number, block in enumerate(model.blocks):
                if number in held[worker]:
                    expected = expected + block(expected)
            torch.testing.assert_close(sub.module(x), expected)
    with pytest.raises(InvalidInput, match="has 3 units, fewer than `minimum` 4"):
        coupling.partition(2, seed=1, law="overlapping", minimum=4)


def test_a_block_with_a_projection_is_a_unit_that_leaves_its_shortcut() -> None:
    """The shortcut changes the stream: without it the next block has nothing of its shape to run on."""
    model = resnet(Basic(8, 8), Basic(8, 12, 2), Basic(12, 12), Basic(12, 12), last=12)
    coupling = isthmus.trace(model, (torch.randn(3, 3, 8, 8),))
    blocks = [axis for axis in coupling.axes if axis.kind == "block"]
    assert [axis.size for axis in blocks] == [1, 3]
    assert [block.shortcut for axis in blocks for block in axis.blocks if block.shortcut] == ["4.down"]
    held = {".".join(member.name.split(".")[:2]) for axis in blocks for member in axis.members}
    assert held == {f"{number}.{name}" for number in (3, 4, 5, 6) for name in ("conv1", "bn1", "conv2", "bn2")}


def test_dropout_batch_norm_and_autocast_in_training() -> None:
    model = mlp(nn.BatchNorm1d)
    x = torch.randn(16, 6)
    coupling = isthmus.trace(model, (x,))
    sub = isthmus.cut(model, coupling, coupling.partition(2, seed=0), 0)
    sub.module.train()
    assert not torch.equal(sub.module(x), sub.module(x))
    assert sub.module.state_dict()["1.num_batches_tracked"] == 2
    assert sub.module.state_dict()["1.num_batches_tracked"].dtype == torch.int64
    sub.module.eval()
    assert torch.equal(sub.module(x), sub.module(x))
    assert set(sub.module.state_dict()) == set(model.state_dict())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert sub.module(x).dtype == torch.bfloat16


def test_another_call_than_the_traced_one_is_refused() -> None:
    class Flagged(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor, double: bool = False, mask: Tensor | None = None) -> Tensor:
            y = self.b(self.a(x).relu())
            return 2 * y if double else y

    model, x = Flagged(), torch.randn(3, 4)
    coupling = isthmus.trace(model, (x,), {"double": True})
    sub = isthmus.cut(model, coupling, coupling.partition(2, seed=0), 0)
    assert sub.module(x=x, double=True).shape == (3, 2)
    with pytest.raises(InvalidInput, match="traced with True"):
        sub.module(x, double=False)
    with pytest.raises(InvalidInput, match="traced with `double`"):
        sub.module(x)
    with pytest.raises(InvalidInput, match="traced without `mask`"):
        sub.module(x, double=True, mask=x)


def test_the_model_is_left_as_it_was() -> None:
    model = mlp(nn.BatchNorm1d)
    model[3].eval()
    flags = [module.training for module in model.modules()]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    coupling = isthmus.trace(model, (torch.randn(3, 6),), verify=True)
    assert flags == [module.training for module in model.modules()]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert build(model, coupling, {}).module is not model


def test_weights_with_noise_are_weights() -> None:
    """NoisyNet: noise drawn by its size, not like a weight; both layers are cut in training and evaluation."""

    class Noisy(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            if not self.training:
                return super().forward(x)
            noise = torch.outer(torch.randn(self.out_features), torch.randn(self.in_features))
            return F.linear(x, self.weight + 0.1 * noise, self.bias)

    model, x = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), Noisy(8, 12), nn.ReLU(), Noisy(12, 2)), torch.randn(3, 6)
    coupling = isthmus.trace(model, (x,))
    assert [(axis.size, axis.kind) for axis in coupling.cut_axes] == [(8, "hidden"), (12, "hidden")]
    piece = isthmus.cut(model, coupling, coupling.partition(2, seed=0), 0).module.train()
    assert piece(x).shape == (3, 2)


def test_what_a_forward_keeps_in_lists_and_tables_is_gone_after_the_trace() -> None:
    class Keeping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 2)
            self.losses: list[Tensor] = []
            self.table: dict[str, dict[int, Tensor]] = {"positions": {}}

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x).relu()
            self.losses.append(y.mean())
            places = self.table["positions"].setdefault(len(self.losses), torch.linspace(0, 1, 8))
            return self.b(y + places)

    model, x = Keeping(), torch.randn(3, 6)
    isthmus.trace(model, (x,))
    assert model.losses == []
    assert model.table == {"positions": {}}


def test_hooks_that_a_first_call_registers_are_registered_once() -> None:
    """As transformers collects hidden states: the second mode would see each twice, and so would whoever owns them."""

    class Collecting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(6, 8), nn.Linear(8, 6)])
            self.first, self.second = nn.Linear(8, 2), nn.Linear(6, 2)
            self.hooked = False

        def forward(self, x: Tensor) -> Tensor:
            if not self.hooked:
                self.hooked = True
                for layer in self.layers:
                    layer.register_forward_hook(lambda module, args, result: self.found.append(result))
            self.found: list[Tensor] = []
            for layer in self.layers:
                x = layer(x).relu()
            wide, narrow = self.found
            return self.first(wide) + self.second(narrow)

    model, x = Collecting(), torch.randn(3, 6)
    isthmus.trace(model, (x,))
    assert model(x).shape == (3, 2)
    assert [len(layer._forward_hooks) for layer in model.layers] == [1, 1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, x: isthmus.trace("net", (x,)), "`model` must be a torch.nn.Module"),
        (lambda m, x: isthmus.trace(m, ()), "must fit the network's forward"),
        (lambda m, x: isthmus.trace(m, (x,), cut=["nothing*"]), "must name a kind .* got 'nothing"),
        (lambda m, x: isthmus.trace(m, (x,), cut=["block"]), "names 'block', and the network has no axis of that kind"),
        (lambda m, x: isthmus.trace(m, (x,)).partition(99, seed=0), "units, too few for 99 workers"),
        (lambda m, x: isthmus.trace(m, (x,)).partition(2, seed=0, law="unifrom"), "did you mean 'uniform'"),
        (lambda m, x: isthmus.trace(m, (x,)).partition(2, seed=0, law="weighted"), "`capacities` must be given"),
    ],
)
def test_misuse(call, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        call(mlp(), torch.randn(3, 6))


def test_pictures() -> None:
    coupling = isthmus.trace(mlp(), (torch.randn(3, 6),))
    assert "hidden" in str(coupling)
    assert '"0.weight"' in coupling.to_dot()
    assert coupling.to_dot().startswith("graph coupling {")


def test_importing_isthmus_loads_no_torch() -> None:
    code = textwrap.dedent("""
        import sys, isthmus
        assert "torch" not in sys.modules
        isthmus.trace
        assert "torch" in sys.modules
    """)
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_network_that_keeps_what_it_computed_fails_its_check_in_words() -> None:
    class Keeping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.inner, self.outer = nn.Parameter(torch.ones(6)), nn.Linear(4, 6), nn.Linear(6, 2)
            self.kept: dict[str, Tensor] = {}

        def forward(self, x: Tensor) -> Tensor:
            if not self.training and not torch.compiler.is_compiling():
                scale = self.kept.setdefault("scale", self.table.exp())
            else:
                scale = self.table.exp()
            return self.outer(self.inner(x) * scale)

    network, x = Keeping(), torch.randn(3, 4)
    network.eval()(x).sum().backward()
    coupling = isthmus.trace(network, (x,))
    verdict = coupling.verify(network, (x,))
    assert not verdict.passed
    assert "cannot be run and differentiated twice" in verdict.summary()


class Windows(nn.Module):
    """Windows of growing sides over an image that is filled up to whole ones, as in Swin."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 6, 1), nn.Linear(6, 4)
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 6)) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x).permute(0, 2, 3, 1)
        for side, layer in enumerate(self.layers, 2):
            height, width = x.shape[1:3]
            y = nn.functional.pad(x, (0, 0, 0, -width % side, 0, -height % side))
            rows, columns = y.shape[1] // side, y.shape[2] // side
            y = y.view(y.shape[0], rows, side, columns, side, 6).transpose(2, 3)
            y = layer(y).transpose(2, 3).reshape(y.shape[0], rows * side, columns * side, 6)
            x = x + y[:, :height, :width]
        return self.last(x.mean((1, 2)))


@pytest.mark.parametrize("limit", ["_CONDITIONS", "_OPERATIONS"])
def test_sizes_from_which_too_much_follows_stay_as_given(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one mode as in the other, and the batch stays open; else the export of Swin takes minutes."""
    monkeypatch.setattr(conditions, limit, 20)
    model, args = Windows(), (torch.randn(3, 3, 8, 8),)
    coupling = isthmus.trace(model, args)
    assert {each.given_up for each in coupling.exports.values()} == {frozenset({(0, 1), (0, 2), (0, 3)}), frozenset()}
    fixed = [f"size fixed at tracing: input 0, dimension {dimension}: 8" for dimension in (2, 3)]
    assert list(coupling.fixed_inputs) == fixed
    assert [axis.kind for axis in coupling.cut_axes] == ["ffn"] * 4
    verdict = coupling.verify(model, args)
    assert verdict.passed, verdict.summary()


def test_training_need_not_find_out_what_has_to_be_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Open sizes are dear: evaluation alone is exported with them, if a layer needs them as they are."""
    called = []

    def export_noted(model, example, mode, names, closed=frozenset()):  # type: ignore[no-untyped-def]
        called.append((mode, closed))
        return export_graph(model, example, mode, names, closed)

    monkeypatch.setattr(tracing, "export_graph", export_noted)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 2))
    assert len(isthmus.trace(model, (torch.randn(3, 3, 8, 8),)).fixed_inputs) == 2
    sides = frozenset({(0, 2), (0, 3)})
    assert called == [("eval", frozenset()), ("eval", sides), ("train", sides)]


class Alibi(nn.Module):
    """Attention whose scores fall with distance, by a slope a head that forward works out anew, as Bloom does it."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(6, 4 * 3 * 5), nn.Linear(20, 6)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        slopes = torch.pow(torch.tensor(0.25), torch.arange(1, 5, dtype=torch.int32))
        slopes = torch.cat([slopes[:2], 3 * slopes[2:]])
        bias = slopes[:, None, None] * torch.arange(length)
        q, k, v = self.qkv(x).view(batch, length, 4, 3, 5).unbind(3)
        q, k, v = (each.transpose(1, 2).reshape(batch * 4, length, 5) for each in (q, k, v))
        scores = torch.baddbmm(bias.repeat(batch, 1, 1).to(x.dtype), q, k.mT).softmax(-1)
        return self.out((scores @ v).view(batch, 4, length, 5).transpose(1, 2).reshape(batch, length, 20))


def test_what_forward_works_out_by_place_is_cut_like_a_buffer() -> None:
    torch.manual_seed(0)
    model, x = Alibi().double(), torch.randn(3, 7, 6).double()
    coupling = isthmus.trace(model, (x,), verify=True)
    assert [(axis.kind, axis.size) for axis in coupling.cut_axes] == [("head", 4)]
    partition = coupling.partition(2, seed=0)
    parts = [isthmus.cut(model, coupling, partition, worker).module for worker in range(2)]
    for size in (x, torch.randn(5, 4, 6).double()):  # the sum over pieces: each adds the bias of the result
        found = sum(part(size) for part in parts) - model.out.bias
        torch.testing.assert_close(found, model(size), rtol=0, atol=1e-7)


@pytest.mark.parametrize("kind", ["written to", "of whole numbers"])
def test_what_is_written_to_or_counts_is_made_anew_at_every_step(kind: str) -> None:
    class Net(Custom):
        def forward(self, x: Tensor) -> Tensor:
            made = torch.arange(8.0 if kind == "written to" else 8)
            if kind == "written to":
                made.mul_(2)
                made[0] = x.sum()
            return self.b(self.a(x) * made)

    model, x = Net(torch.relu), torch.randn(3, 4)
    coupling = isthmus.trace(model, (x,))
    assert not coupling.cut_axes
    assert all(tensor.dim() == 0 for tensor in coupling.constants.values())
    piece = isthmus.nets.pieces.subnetwork.build(model, coupling, {}).module
    for _ in range(2):
        torch.testing.assert_close(piece(x), model(x))
