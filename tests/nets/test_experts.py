"""Mixtures of experts: a piece is the network that one would write by hand with fewer experts."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import isthmus
from isthmus.errors import InvalidInput
from isthmus.nets import build, merge, scaling

transformers = pytest.importorskip("transformers")


class Listed(nn.Module):
    """A list of experts, each given the tokens that were sent to it."""

    def __init__(self, experts: int) -> None:
        super().__init__()
        self.inp, self.gate, self.shared = nn.Linear(6, 6), nn.Linear(6, experts), nn.Linear(6, 6)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 6)) for _ in range(experts))

    def route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        weights, chosen = torch.topk(self.gate(x).softmax(-1), 2)
        return weights / weights.sum(-1, keepdim=True), chosen

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.inp(x)
        weights, chosen = self.route(x)
        out = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            token, place = torch.where(chosen == number)
            out.index_add_(0, token, expert(x[token]) * weights[token, place, None])
        return x + out + self.shared(x)


class Hit(Listed):
    """Only the experts that were hit, found by their values."""

    def forward(self, x: Tensor) -> Tensor:
        weights, chosen = self.route(x)
        mask = F.one_hot(chosen, len(self.experts)).permute(2, 1, 0)
        out = torch.zeros_like(x)
        for row in (mask.sum((-1, -2)) > 0).nonzero():
            place, token = torch.where(mask[row].squeeze(0))
            out[token] += self.experts[int(row[0])](x[token]) * weights[token, place, None]
        return out + self.shared(self.inp(x))


class Masked(Listed):
    """Tokens of an expert by a mask."""

    def forward(self, x: Tensor) -> Tensor:
        weights, chosen = self.route(x)
        out = self.shared(self.inp(x))
        for number, expert in enumerate(self.experts):
            mine = chosen == number
            mask = mine.any(-1)
            out[mask] += expert(x[mask]) * (weights * mine).sum(-1, keepdim=True)[mask]
        return out


class Weighed(Listed):
    """All experts see all tokens."""

    def forward(self, x: Tensor) -> Tensor:
        gates = self.gate(x).softmax(-1)
        return self.shared(self.inp(x)) + sum(gates[:, e, None] * expert(x) for e, expert in enumerate(self.experts))


class Stacked(Listed):
    """Matrices of experts in one parameter, taken one by one."""

    def __init__(self, experts: int) -> None:
        super().__init__(experts)
        del self.experts
        self.up, self.down = (nn.Parameter(torch.randn(experts, *size)) for size in ((8, 6), (6, 8)))

    def forward(self, x: Tensor) -> Tensor:
        weights, chosen = self.route(x)
        out = self.shared(self.inp(x))
        for number in range(len(self.up)):
            token, place = torch.where(chosen == number)
            own = F.linear(F.linear(x[token], self.up[number]).relu(), self.down[number])
            out.index_add_(0, token, own * weights[token, place, None])
        return out


class Dense(Stacked):
    """Dense routing by einsum."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.einsum("td,efd->tef", x, self.up).relu()
        own = torch.einsum("tef,edf->ted", hidden, self.down)
        return self.shared(self.inp(x)) + torch.einsum("te,ted->td", self.gate(x).softmax(-1), own)


class Dispatched(Stacked):
    """Scores back in the experts' places, then a product for all."""

    def forward(self, x: Tensor) -> Tensor:
        weights, chosen = self.route(x)
        gates = torch.zeros(len(x), len(self.up), dtype=x.dtype).scatter(1, chosen, weights)
        own = torch.bmm(torch.bmm(x.expand(len(self.up), -1, -1), self.up.mT).relu(), self.down.mT)
        return self.shared(self.inp(x)) + (own * gates.t()[:, :, None]).sum(0)


SMALL = {"hidden_size": 8, "num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 12}
SMALL |= {"num_hidden_layers": 1, "vocab_size": 13, "max_position_embeddings": 16}


def mixtral(experts: int, how: str = "grouped_mm") -> nn.Module:
    net = transformers.MixtralForCausalLM(transformers.MixtralConfig(**SMALL, num_local_experts=experts))
    net.config._experts_implementation = how
    return net


def deepseek(experts: int) -> nn.Module:
    """Two experts a group, of which the two best groups are looked at."""
    config = {"n_routed_experts": experts, "n_group": experts // 2, "topk_group": 2, "num_experts_per_tok": 2}
    config |= {"moe_intermediate_size": 6, "first_k_dense_replace": 0, "kv_lora_rank": 4, "q_lora_rank": 4}
    config |= {"qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 4}
    return transformers.DeepseekV3ForCausalLM(transformers.DeepseekV3Config(**SMALL, **config))


def qwen(experts: int) -> nn.Module:
    config = {"num_experts": experts, "num_experts_per_tok": 2, "moe_intermediate_size": 6}
    config |= {"shared_expert_intermediate_size": 6, "decoder_sparse_step": 1}
    return transformers.Qwen2MoeForCausalLM(transformers.Qwen2MoeConfig(**SMALL, **config))


def switch(experts: int) -> nn.Module:
    from transformers.models.switch_transformers.modeling_switch_transformers import SwitchTransformersSparseMLP

    config = transformers.SwitchTransformersConfig(d_model=8, d_ff=12, num_experts=experts, dropout_rate=0.0)
    config.router_jitter_noise, config.expert_capacity = 0.0, 3
    net = SwitchTransformersSparseMLP(config)
    net.router.dtype = torch.float64
    return net


def tokens() -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (torch.randint(0, 13, (2, 7)),), {"use_cache": False}


def vectors(*shape: int) -> Callable[[], tuple[tuple[Any, ...], dict[str, Any]]]:
    return lambda: ((torch.randn(*shape, dtype=torch.float64),), {})


NETS: dict[str, tuple[Callable[[int], nn.Module], Callable[[], Any], int]] = {
    **{kind.__name__: (kind, vectors(9, 6), 1) for kind in (Listed, Hit, Masked, Weighed, Stacked, Dense, Dispatched)},
    "mixtral": (mixtral, tokens, 1),
    "mixtral, batched": (lambda n: mixtral(n, "batched_mm"), tokens, 1),
    "mixtral, eager": (lambda n: mixtral(n, "eager"), tokens, 1),
    "deepseek": (deepseek, tokens, 2),
    "qwen": (qwen, tokens, 1),
    "switch": (switch, vectors(2, 5, 8), 1),
}


def filled(net: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    with torch.no_grad():
        for tensor in [*net.parameters(), *net.buffers()]:
            if tensor.is_floating_point():
                tensor.normal_(0, 0.5)
    return net.double()


def in_whole(name: str, held: Sequence[int]) -> str:
    """The whole's name of what a network of the held experts calls so."""
    return re.sub(r"(experts\.(?:expert_)?)(\d+)", lambda found: f"{found[1]}{held[int(found[2])]}", name)


def by_hand(twin: nn.Module, whole: nn.Module, held: Sequence[int]) -> nn.Module:
    """The network with fewer experts, its state copied row by row."""
    state = {**dict(whole.named_parameters()), **dict(whole.named_buffers())}
    for name, tensor in [*twin.named_parameters(), *twin.named_buffers()]:
        rows = state[in_whole(name, held)].detach()
        for dim, size in enumerate(tensor.shape):
            if rows.shape[dim] != size:
                assert size == len(held)
                rows = rows[(slice(None),) * dim + (list(held),)]
        tensor.data = rows.clone()
    return twin


def none_as_zeros(parameter: Tensor) -> Tensor:
    """Its gradient; an expert without tokens has none in a loop over those that were hit."""
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


@pytest.mark.parametrize("name", NETS)
def test_a_piece_is_the_network_with_fewer_experts(name: str) -> None:
    make, call, group = NETS[name]
    net = filled(make(8))
    args, kwargs = call()
    coupling = isthmus.trace(net, args, kwargs)
    coupling = coupling.select([axis for axis in coupling.cut_axes if axis.kind == "expert"])
    (axis,) = coupling.cut_axes
    assert (axis.kind, axis.size) == ("expert", 8 // group)
    units = np.array([1, 2, 5, 7] if group == 1 else [1, 3])
    held = [group * unit + each for unit in units for each in range(group)]
    part = build(net, coupling, {axis.name: units})
    twin = by_hand(filled(make(len(held))), net, held)
    if hasattr(twin, "config"):
        twin.config._experts_implementation = "eager"  # a loop in Python; torch has no grouped product in float64
    other = call()[0]
    for mode in (True, False):
        for given in (args, other):
            results = []
            for each in (part.module, twin):
                each.train(mode).zero_grad()
                found = each(*given, **kwargs)
                results.append(found if isinstance(found, Tensor) else found.logits)
                (results[-1].double() ** 2).sum().backward()
            torch.testing.assert_close(*results, rtol=1e-10, atol=1e-10)
            gradients = {key: value.grad for key, value in part.module.named_parameters()}
            wanted = {in_whole(key, held): none_as_zeros(value) for key, value in twin.named_parameters()}
            assert gradients.keys() == wanted.keys()
            for key, gradient in wanted.items():
                torch.testing.assert_close(gradients[key], gradient, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["Listed", "mixtral"])
def test_all_state_comes_back(name: str) -> None:
    make, call, _ = NETS[name]
    net = filled(make(8)) if name == "Listed" else filled(make(8)).float()
    args, kwargs = call()
    coupling = isthmus.trace(net, args, kwargs)
    assert [axis.kind for axis in coupling.cut_axes if axis.kind == "expert"] == ["expert"]
    partition = coupling.partition(4, seed=0)
    parts = [isthmus.cut(net, coupling, partition, worker) for worker in range(4)]
    assert max(sum(p.numel() for p in part.module.parameters()) for part in parts) == max(
        coupling.sizes(partition.of(worker))["parameters"] for worker in range(4)
    )
    emptied = copy.deepcopy(net)
    for parameter in emptied.parameters():
        parameter.data.fill_(float("nan"))
    merge(emptied, parts)
    for key, value in net.state_dict().items():
        assert torch.equal(value, emptied.state_dict()[key]), key
    verdict = coupling.verify(net, args, kwargs)
    assert verdict.passed, verdict.summary()
    assert "the router" in scaling(coupling, partition).why[next(a.name for a in coupling.axes if a.kind == "expert")]


def test_a_piece_of_mixtral_is_small() -> None:
    config = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 4}
    config |= {"intermediate_size": 256, "num_local_experts": 8, "vocab_size": 61, "max_position_embeddings": 64}
    with torch.device("meta"):
        net = transformers.MixtralForCausalLM(transformers.MixtralConfig(**config))
    ids = torch.zeros(2, 16, dtype=torch.int64, device="meta")
    coupling = isthmus.trace(net, (ids,), {"use_cache": False})
    held = coupling.sizes(coupling.partition(4, seed=0).of(0))["parameters"]
    assert held <= 0.45 * sum(parameter.numel() for parameter in net.parameters())


def test_each_worker_has_as_many_experts_as_the_router_takes() -> None:
    coupling = isthmus.trace(Listed(8), (torch.randn(9, 6),))
    gate = "gate"
    assert {len(units) for units in coupling.partition(4, seed=0).held[gate]} == {2}
    serving = coupling.serving(5)
    assert serving.left_whole == {gate: "8 units, too few for 5 workers with 2 each"}
    assert [axis.size for axis in serving.cut_axes] == [8] * 8  # the hidden units of every expert
    shared = coupling.select(["expert"]).partition(8, seed=0, law="overlapping")
    assert all(len(units) == 2 for units in shared.held[gate])
    uneven = coupling.partition(3, seed=0, law="weighted", capacities=[1, 1, 9]).held[gate]
    assert sorted(len(units) for units in uneven) == [2, 2, 4]


class Returned(Listed):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return super().forward(x), self.gate(x)


class Numbered(Listed):
    """What is chosen is used as a number too."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.route(x)[1].sum(-1, keepdim=True)


class Multiplied(Listed):
    """Experts that are not added up."""

    def forward(self, x: Tensor) -> Tensor:
        gates = self.gate(x).softmax(-1)
        out = x
        for number, expert in enumerate(self.experts):
            out = out * (gates[:, number, None] * expert(x))
        return out


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Returned, "returned by the network"),
        (Numbered, "positions used as values"),
        (Multiplied, "its units are not added up one by one"),
    ],
)
def test_what_is_no_choice_among_experts_is_whole(kind: type[nn.Module], reason: str) -> None:
    net = kind(4)
    coupling = isthmus.trace(net, (torch.randn(9, 6),))
    assert not [axis for axis in coupling.axes if axis.kind == "expert"]
    whole = next(each for each in coupling.whole if ("gate.weight", 0) in each.members)
    assert any(reason in said for said in whole.reasons)
    with pytest.raises(InvalidInput, match="`cut` names 'expert', and the network has no axis of that kind"):
        coupling.select(["expert"])
