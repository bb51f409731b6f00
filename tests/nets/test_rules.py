"""Rules in networks: what passes an operator is cut and equals the masked whole, what does not is whole."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import isthmus
from isthmus.nets.axes.registry import RULES, is_pointwise
from isthmus.nets.check.verify import verify


class Probe(nn.Module):
    def __init__(self, f: Callable[..., Tensor], shape: tuple[int, ...]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.f, self.shape = f, shape
        self.a = nn.Linear(5, 8) if shape[0] == 8 else nn.Linear(5, int(torch.tensor(shape).prod()))
        self.w = nn.Parameter(torch.randn(8, 8))
        self.v = nn.Parameter(torch.rand(8) + 0.5)
        rest = int(torch.tensor(shape[1:]).prod()) if shape[0] == 8 else 1
        self.rest = rest
        with torch.no_grad():
            out = f(self.spread(torch.randn(3, 5)), self)
        out = out[0] if isinstance(out, (tuple, list)) else out
        self.size = out.reshape(3, -1).shape[1] if out.dim() and out.shape[0] == 3 else 0
        self.b = nn.Linear(max(self.size, 1), 2)

    def spread(self, x: Tensor) -> Tensor:
        x = self.a(x)
        if self.shape[0] == 8 and len(self.shape) > 1:
            grid = torch.linspace(0.5, 1.5, self.rest).reshape(self.shape[1:])
            return x.reshape(x.shape[0], 8, *[1] * (len(self.shape) - 1)) * grid
        return x.reshape(x.shape[0], *self.shape)

    def forward(self, x: Tensor) -> Tensor:
        out = self.f(self.spread(x), self)
        out = out[0] if isinstance(out, (tuple, list)) else out
        return self.b(out.flatten(1)) if self.size else self.b(out.reshape(1, 1).expand(x.shape[0], 1))


V, S, I = (8,), (8, 6), (8, 4, 4)
CUT: list[tuple[str, Callable[..., Tensor], tuple[int, ...]]] = [
    ("pointwise", lambda x, m: F.hardswish(x) + F.logsigmoid(x) + (1.0 - x), V),
    ("dropout", lambda x, m: F.dropout(F.alpha_dropout(x, 0.0), 0.0), V),
    ("casts", lambda x, m: x.to(torch.float64).to(x).type_as(x).contiguous().detach() + x, V),
    ("masks", lambda x, m: torch.where(x > 0, x, 0.1 * x).masked_fill((x > 1) & (x < 2), 0.5), V),
    ("copy_", lambda x, m: torch.zeros_like(x).copy_(x) * torch.ones_like(x).fill_(2.0), V),
    ("prelu", lambda x, m: F.prelu(x, m.v), V),
    ("glu", lambda x, m: F.glu(torch.cat([x, x.sin()], -1), -1), V),
    ("linear", lambda x, m: F.linear(x, m.w, m.v), V),
    ("linear of one output", lambda x, m: F.linear(x, m.v)[:, None], V),
    ("stack inside", lambda x, m: torch.stack([x, x.sin()], -2), V),
    ("hstack of one", lambda x, m: torch.hstack([x]), V),
    ("matmul", lambda x, m: x @ m.w, V),
    ("mm", lambda x, m: torch.mm(x, m.w.t()), V),
    ("bmm", lambda x, m: torch.bmm(x.mT, m.w.expand(x.shape[0], 8, 8)), S),
    ("addmm", lambda x, m: torch.addmm(m.v, x, m.w), V),
    ("baddbmm", lambda x, m: torch.baddbmm(m.v.expand(x.shape[0], 1, 8), x.mT, m.w.expand(x.shape[0], 8, 8)), S),
    ("mv", lambda x, m: torch.mv(x, m.v)[:, None], V),
    ("tensordot", lambda x, m: torch.tensordot(x, m.w, dims=([1], [0])), S),
    ("einsum", lambda x, m: torch.einsum("bct,cd->btd", x, m.w), S),
    ("outer", lambda x, m: x @ torch.outer(m.v, m.v.sin()), V),
    ("attention", lambda x, m: F.scaled_dot_product_attention(x[..., None], x[..., None], x[..., None]), S),
    ("sum", lambda x, m: x.sum(1), S),
    ("conv1d", lambda x, m: F.conv1d(x, m.w[..., None], m.v), S),
    ("conv2d, depthwise", lambda x, m: F.conv2d(x, m.v[:, None, None, None], groups=8, stride=2), I),
    ("conv_transpose2d", lambda x, m: F.conv_transpose2d(x, m.w[..., None, None], m.v), I),
    ("layer_norm", lambda x, m: F.layer_norm(x.mT, (8,), m.v, m.v.sin()), S),
    ("rms_norm", lambda x, m: F.rms_norm(x, (8,), m.v), V),
    ("group_norm", lambda x, m: F.group_norm(x, 4, m.v, m.v.sin()), S),
    ("batch_norm", lambda x, m: F.batch_norm(x, None, None, m.v, m.v.sin(), True), S),
    ("instance_norm", lambda x, m: F.instance_norm(x, weight=m.v), I),
    ("moments", lambda x, m: x * x.mean(1, keepdim=True) + x.std(1, keepdim=True) + x.norm(dim=1, keepdim=True), S),
    ("normalize", lambda x, m: F.normalize(x, dim=1), S),
    ("var_mean", lambda x, m: torch.var_mean(x, 1)[0], S),
    ("weight_norm", lambda x, m: F.linear(x, torch._weight_norm(m.w, m.v[:, None], 0)), V),
    ("softmax elsewhere", lambda x, m: x.softmax(2).log_softmax(2), S),
    ("order elsewhere", lambda x, m: x.cumsum(2).flip(2).roll(1, 2).diff(dim=2), S),
    ("topk elsewhere", lambda x, m: x.topk(3, 2)[0].sort(2)[0], S),
    ("extrema elsewhere", lambda x, m: x.amax(2) + x.max(2)[0] + x.logsumexp(2) + x.amin(2) + x.prod(2), S),
    ("index elsewhere", lambda x, m: x[:, :, torch.tensor([0, 2, 2])], S),
    ("index_select", lambda x, m: x.index_select(2, torch.tensor([0, 2, 2])), S),
    ("gather", lambda x, m: x.gather(2, torch.zeros_like(x, dtype=torch.long)[..., :2]), S),
    ("scatter_add", lambda x, m: x.scatter_add(2, torch.ones_like(x, dtype=torch.long), x.sin()), S),
    ("index_add", lambda x, m: x.index_add(2, torch.tensor([0, 3]), x[..., :2].sin()), S),
    ("index_put", lambda x, m: _written(x), S),
    ("pad the axis", lambda x, m: F.pad(x, (2, 1)), V),
    ("reflect elsewhere", lambda x, m: F.pad(x, (2, 1), mode="reflect"), S),
    ("tril", lambda x, m: x.tril(), I),
    ("pools", lambda x, m: F.avg_pool2d(F.max_pool2d(x, 2), 2) + F.adaptive_avg_pool2d(x, 1), I),
    ("max pool with positions", lambda x, m: F.adaptive_max_pool2d(x, 2, return_indices=True)[0], I),
    ("upsampling", lambda x, m: F.interpolate(x, scale_factor=2.0, mode="bilinear"), I),
    ("unfold", lambda x, m: x.unfold(2, 3, 1), S),
    ("pixel_shuffle", lambda x, m: F.pixel_shuffle(F.pixel_unshuffle(x, 2), 2), I),
    ("views", lambda x, m: x.flatten(1).unflatten(1, (8, 6)).view(-1, 4, 2, 6).reshape_as(x).view_as(x), S),
    ("squeezes", lambda x, m: x.unsqueeze(1).squeeze(1).squeeze(-1).squeeze() if x.dim() == 2 else x, V),
    ("permutes", lambda x, m: x.transpose(1, 2).swapaxes(1, 2).permute(0, 2, 1).movedim(2, 1).mT.movedim(1, -1), S),
    ("transposes", lambda x, m: (m.w.T @ x.t()).t(), V),
    ("cat and stack", lambda x, m: torch.stack([torch.cat([x, x * 2], 1), torch.cat([x, x], 1)], 2), V),
    ("splits", lambda x, m: torch.cat(x.split([3, 5], 1)[::-1], 1), V),
    ("halves", lambda x, m: torch.cat(x.split(4, 1)[::-1], 1) * torch.cat(x.chunk(2, 1), 1), V),
    ("slices", lambda x, m: torch.cat([x[:, 2:], x[:, :2]], 1), V),
    ("narrow", lambda x, m: x.narrow(1, 4, 4).repeat(1, 2), V),
    ("slices from the end", lambda x, m: F.pad(F.pad(x, (1, 0))[:, -8:], (0, 1))[:, :-1], V),
    ("narrow from the end", lambda x, m: F.pad(F.pad(x, (1, 0)).narrow(1, -8, 8), (2, 1))[:, :-1], V),
    ("expand", lambda x, m: x[:, :, None].expand(-1, 8, 3) * x[..., None].expand_as(x[:, :, None].repeat(1, 1, 3)), V),
    ("repeat_interleave", lambda x, m: x.repeat_interleave(3, 1).tile(1, 2), V),
    ("sources", lambda x, m: x + torch.full((8,), 0.3) + x.new_zeros(x.shape[0], 8) + torch.full_like(x, 0.2), V),
    ("median elsewhere", lambda x, m: x.median(2)[0], S),
    ("select elsewhere", lambda x, m: x.unbind(2)[0] + x.select(2, 1) + x[..., -1], S),
    ("region", lambda x, m: x * _without_gradient(x), V),
    ("autocast region", lambda x, m: _autocast(x), V),
    ("arange", lambda x, m: x * torch.arange(8.0), V),
    ("eye", lambda x, m: x @ torch.eye(8), V),
]
WHOLE: list[tuple[str, Callable[..., Tensor], tuple[int, ...]]] = [
    ("softmax", lambda x, m: x.softmax(1), V),
    ("cumsum", lambda x, m: x.cumsum(1), V),
    ("flip", lambda x, m: x.flip(1), V),
    ("argmax", lambda x, m: x * F.one_hot(x.argmax(1), 8), V),
    ("largest", lambda x, m: x * x.max(), V),
    ("unbind", lambda x, m: x.unbind(1)[0], S),
    ("arange of whole numbers", lambda x, m: x * torch.arange(8), V),
    ("loss", lambda x, m: F.cross_entropy(x, torch.zeros(x.shape[0], dtype=torch.long)), V),
    ("gather", lambda x, m: x.gather(1, torch.zeros_like(x, dtype=torch.long)), V),
    ("strided slice", lambda x, m: x[:, ::2], V),
    ("pool over units", lambda x, m: F.avg_pool1d(x[:, None], 2), V),
]


def _without_gradient(x: Tensor) -> Tensor:
    with torch.no_grad():
        return (x * 2).sigmoid()


def _written(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, :, torch.tensor([0, 3])] = x[..., :2].sin()
    return y


def _autocast(x: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return x.relu()


@pytest.mark.parametrize(("name", "f", "shape"), CUT, ids=[name for name, _, _ in CUT])
def test_what_passes_is_cut_right(name: str, f: Callable[..., Tensor], shape: tuple[int, ...]) -> None:
    model, x = Probe(f, shape), torch.randn(3, 5)
    coupling = isthmus.trace(model, (x,))
    assert not coupling.problems
    mine = [axis for axis in coupling.axes if any(member.name == "a.weight" for member in axis.members)]
    assert mine, [whole.reasons for whole in coupling.whole]
    verdict = verify(coupling.select(["*"]), model, (x,))
    assert verdict.passed, verdict.summary()


@pytest.mark.parametrize(("name", "f", "shape"), WHOLE, ids=[name for name, _, _ in WHOLE])
def test_what_does_not_pass_is_whole(name: str, f: Callable[..., Tensor], shape: tuple[int, ...]) -> None:
    model, x = Probe(f, shape), torch.randn(3, 5)
    coupling = isthmus.trace(model, (x,))
    assert not coupling.problems
    assert not any(member.name == "a.weight" for axis in coupling.axes for member in axis.members)


def test_a_rule_that_fails_on_a_call_keeps_it_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES, "aten::hardswish", lambda call: call.node.meta["val"].names_of_units)
    model = nn.Sequential(nn.Linear(5, 8), nn.Hardswish(), nn.Linear(8, 2))
    coupling = isthmus.trace(model, (torch.randn(3, 5),))
    assert coupling.problems == ("kept whole: its rule does not cover this call, AttributeError (aten.hardswish in 1)",)
    assert coupling.axes == ()


class Counted(nn.Module):
    """Adds rows that it chooses by their values: how many these are is not known."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        rows = (x[:, 0] > 0).nonzero()[:, 0]
        rows = torch.cat([rows, rows.new_zeros(1)])
        return self.b(self.a(x).relu()).index_add(0, rows, x.new_ones(rows.shape[0], 3))


def test_sizes_that_depend_on_values_are_passed_over() -> None:
    model, x = Counted(), torch.randn(4, 6)
    coupling = isthmus.trace(model, (x,), verify=True)
    assert [axis.name for axis in coupling.cut_axes] == ["a"]


@pytest.mark.parametrize("name", ["leaky_relu", "leaky_relu_", "hardtanh_", "celu"])
def test_what_torch_forgets_to_tag_is_elementwise(name: str) -> None:
    packet = getattr(torch.ops.aten, name)

    class Untagged:
        """The operator, as a torch has it that does not tag it."""

        class overloadpacket:
            def __str__(self) -> str:
                return str(packet)

            def overloads(self) -> list[str]:
                return []

        overloadpacket = overloadpacket()

    assert is_pointwise(Untagged)
    packet = torch.ops.aten.softmax
    assert not is_pointwise(Untagged)


class Unread(nn.Module):
    """Computes something nobody reads, beside a region without gradients that writes to a buffer of infinities."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.w = nn.Linear(6, 8), nn.Linear(8, 3), nn.Parameter(torch.randn(8, 4))
        self.register_buffer("least", torch.full((8,), torch.inf))

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x) + 1.0
        torch.einsum("bi,io->bo", y, self.w)
        if self.training:
            with torch.no_grad():
                self.least.copy_(torch.minimum(self.least, y.detach().amin(0)))
        return self.b(torch.minimum(y, self.least))


def test_what_nobody_reads_beside_a_region_is_dropped() -> None:
    model, x = Unread(), torch.randn(4, 6)
    coupling = isthmus.trace(model, (x,), verify=True)
    assert [axis.name for axis in coupling.cut_axes] == ["a"]
    assert all("einsum" not in str(node.target) for e in coupling.exports.values() for node in e.module.graph.nodes)
