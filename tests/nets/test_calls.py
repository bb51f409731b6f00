"""A piece is called, and answers, like its network: dict batches, own losses, results of any class, autocast."""

import copy
import dataclasses
import random

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import isthmus
from isthmus.errors import InvalidInput
from isthmus.nets.graph.example import call_of
from isthmus.nets.pieces.subnetwork import build


def whole_piece(model: nn.Module, *args, **kwargs):
    return build(model, isthmus.trace(model, args, kwargs), {}).module


def same_gradients(a: nn.Module, b: nn.Module) -> bool:
    other = dict(b.named_parameters())
    return all(torch.equal(p.grad, other[name].grad) for name, p in a.named_parameters() if p.grad is not None)


class Classifier(nn.Module):
    """Takes what encoders take, and computes its own loss: smoothed, with weights of classes."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.hidden, self.head = nn.Embedding(20, 8), nn.Linear(8, 16), nn.Linear(16, 3)
        self.drop = nn.Dropout(0.1)
        self.register_buffer("weights", torch.tensor([0.5, 1.0, 2.0]))

    def forward(self, ids: Tensor, mask: Tensor | None = None, scale: float = 1.0, labels: Tensor | None = None):
        x = self.embedding(ids)
        x = x.mean(1) if mask is None else (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        logits = scale * self.head(self.drop(self.hidden(x).relu()))
        if labels is None:
            return {"logits": logits}
        return {"loss": F.cross_entropy(logits, labels, self.weights, label_smoothing=0.1), "logits": logits}


def batch(size: int, length: int) -> dict[str, Tensor]:
    mask = torch.ones(size, length, dtype=torch.long)
    mask[0, length // 2 :] = 0
    return {"ids": torch.randint(20, (size, length)), "mask": mask, "labels": torch.randint(3, (size,))}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("size", "length"), [(4, 7), (5, 3), (1, 9)])
def test_a_loss_of_its_own(training: bool, size: int, length: int) -> None:
    model = Classifier()
    piece = whole_piece(model, **batch(4, 7)).train(training)
    model.train(training)
    given = batch(size, length)
    results = []
    for module, call in ((model, given), (piece, dict(reversed(given.items())))):
        torch.manual_seed(0)
        results.append(module(**call))
        results[-1]["loss"].backward()
    assert torch.equal(results[0]["loss"], results[1]["loss"])
    assert torch.equal(results[0]["logits"], results[1]["logits"])
    assert same_gradients(model, piece)


def test_calls_that_mean_the_traced_one() -> None:
    model = Classifier().eval()
    ids, mask, labels = batch(4, 7).values()
    piece = whole_piece(model, ids, None, labels=labels)
    expected = model(ids, labels=labels)["loss"]
    calls = [((ids,), {"labels": labels}), ((ids, None, 1.0, labels), {}), ((), {"labels": labels, "ids": ids})]
    assert all(torch.equal(piece(*args, **kwargs)["loss"], expected) for args, kwargs in calls)
    for args, kwargs, said in [
        ((ids, mask), {"labels": labels}, "traced with None where a tensor is given"),
        ((ids, 3), {"labels": labels}, "traced with None where 3 is given"),
        ((ids,), {}, "traced with `labels`"),
        ((ids,), {"labels": None}, "traced with a tensor where None is given"),
        ((ids,), {"labels": labels, "scale": 2.0}, "traced without `scale`"),
        ((ids,), {"labels": labels, "label": 1}, "unexpected keyword argument 'label'"),
        ((), {"labels": labels}, "missing a required argument: 'ids'"),
    ]:
        with pytest.raises(InvalidInput, match=said):
            piece(*args, **kwargs)


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, data, *more):
        left, rest = data["pair"]
        return self.b(self.a(left + rest["x"] * more[0]).relu()), more[0]


def test_nested_batches() -> None:
    model = Nested()

    def example(size: int):
        x, y, z = torch.randn(3, size, 4)
        return {"pair": (x, {"x": y})}, z

    args, kwargs = call_of(example(3))
    piece = whole_piece(model, *args, **kwargs)
    other = example(5)
    assert all(torch.equal(a, b) for a, b in zip(piece(*other), model(*other), strict=True))
    with pytest.raises(InvalidInput, match="nested otherwise"):
        piece({"pair": (other[1], {"y": other[1]})}, other[1])


@dataclasses.dataclass
class Inner:
    hidden: Tensor
    note: str = "plain"


@dataclasses.dataclass(frozen=True)
class Output:
    logits: Tensor
    inner: Inner
    several: list[Tensor]
    nothing: None = None


class Structured(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Output:
        h = self.a(x)
        return Output(self.b(h.relu()), Inner(h), [h, x])


def test_results_that_are_dataclasses() -> None:
    model, x = Structured(), torch.randn(3, 4)
    coupling = isthmus.trace(model, (x,))
    assert coupling.problems == ()
    assert coupling.axes == ()  # all is returned: neither the hidden layer nor the output may be cut
    assert coupling.verify(model, (x,)).passed
    result, expected = build(model, coupling, {}).module(x), model(x)
    assert isinstance(result, Output)
    assert isinstance(result.inner, Inner)
    assert result.inner.note == "plain"
    assert result.nothing is None
    pairs = [(result.logits, expected.logits), (result.inner.hidden, expected.inner.hidden)]
    assert all(torch.equal(a, b) for a, b in [*pairs, *zip(result.several, expected.several, strict=True)])


class Mixed(nn.Module):
    """What autocast treats in different ways: convolution, attention, norms, linear layers, a loss."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.attention, self.norm = nn.MultiheadAttention(8, 2, batch_first=True), nn.LayerNorm(8)
        self.qkv, self.head = nn.Linear(8, 24), nn.Linear(8, 3)

    def forward(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        x = self.bn(self.conv(x)).relu().flatten(2).transpose(1, 2)
        x = self.norm(x + self.attention(x, x, x, need_weights=False)[0])
        q, k, v = self.qkv(x).unflatten(-1, (2, 12)).transpose(1, 2).chunk(3, -1)
        x = x + F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        logits = self.head(x.mean(1))
        return logits, F.cross_entropy(logits, labels, label_smoothing=0.1)


@pytest.mark.parametrize("traced_inside", [False, True])
@pytest.mark.parametrize("training", [True, False])
def test_autocast_gives_the_same_bits(traced_inside: bool, training: bool) -> None:
    torch.manual_seed(1)
    model, x, y = Mixed().train(training), torch.randn(4, 2, 5, 5), torch.randint(3, (4,))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=traced_inside):
        piece = whole_piece(model, x, y).train(training)
    for enabled in (True, False):
        results = []
        for module in (model, piece):
            module.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
                results.append(module(x, y))
            results[-1][1].backward()
        (logits, loss), (ours, our_loss) = results
        assert logits.dtype is ours.dtype is (torch.bfloat16 if enabled else torch.float32)
        assert torch.equal(logits, ours)
        assert torch.equal(loss, our_loss)
        assert same_gradients(model, piece)


def encoder(kind: str, attention: str) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    sizes = {"num_labels": 3, "vocab_size": 50, "max_position_embeddings": 40, "attn_implementation": attention}
    if kind == "DistilBert":
        sizes |= {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48}
    else:
        sizes |= {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    config = getattr(transformers, f"{kind}Config")(**sizes)
    config.pad_token_id = 0
    return getattr(transformers, f"{kind}ForSequenceClassification")(config)


@pytest.mark.parametrize(
    ("kind", "attention"), [("Bert", "sdpa"), ("Bert", "eager"), ("Roberta", "sdpa"), ("DistilBert", "sdpa")]
)
def test_a_hugging_face_encoder(kind: str, attention: str) -> None:
    torch.manual_seed(0)
    model = encoder(kind, attention)

    def example(size: int, length: int) -> dict[str, Tensor]:
        given = batch(size, length)
        return {"input_ids": given["ids"] + 2, "attention_mask": given["mask"], "labels": given["labels"]}

    args, kwargs = call_of(example(4, 9))
    coupling = isthmus.trace(model, args, kwargs)
    assert coupling.problems == ()
    assert {axis.kind for axis in coupling.cut_axes} == {"head", "ffn", "hidden"}
    piece = build(model, coupling, {}).module
    for training in (True, False):
        for size, length in ((4, 9), (3, 17), (1, 5)):
            given, results = example(size, length), []
            for module in (model.train(training), piece.train(training)):
                module.zero_grad()
                torch.manual_seed(2)
                results.append(module(**given))
                results[-1].loss.backward()
            assert type(results[0]) is type(results[1])
            assert torch.equal(results[0].loss, results[1].loss)
            assert torch.equal(results[0].logits, results[1].logits)
            assert same_gradients(model, piece)


class Skipping(nn.Module):
    """Leaves layers out by chance, as transformers does."""

    def __init__(self, layerdrop: float) -> None:
        super().__init__()
        self.layers, self.out = nn.ModuleList(nn.Linear(6, 6) for _ in range(3)), nn.Linear(6, 2)
        self.layerdrop = layerdrop

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            if not self.training or self.layerdrop == 0.0 or torch.rand([]) > self.layerdrop:
                x = layer(x).tanh()
        return self.out(x)


def test_layers_left_out_by_chance_are_all_run_and_that_is_said() -> None:
    model, x = Skipping(0.5).train(), torch.randn(4, 6)
    coupling = isthmus.trace(model, (x,))
    assert any("layerdrop is 0 in a subnetwork" in line for line in coupling.problems)
    assert model.layerdrop == 0.5
    piece = build(model, coupling, {}).module.train()
    assert torch.equal(piece(x), model.eval()(x))
    assert isthmus.trace(Skipping(0.0), (x,)).problems == ()


def test_layers_left_out_by_pythons_chance_are_all_run_too() -> None:
    class PythonSkipping(Skipping):
        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                if not self.training or random.random() >= self.layerdrop:
                    x = layer(x).tanh()
            return self.out(x)

    class Below(Skipping):
        """As transformers writes it: what is drawn is compared even where the rate is 0."""

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                drawn = torch.rand([]) if self.training else 1.0
                if drawn < self.layerdrop or not self.layerdrop <= drawn:
                    continue
                x = layer(x).tanh()
            return self.out(x)

    for cls, rate in ((Skipping, 0.5), (PythonSkipping, 0.5), (Below, 0.5), (Below, 0.0)):
        model, x = cls(rate).train(), torch.randn(4, 6)
        verdict = isthmus.trace(model, (x,)).verify(model, (x,))  # against the network with all layers, in training too
        assert verdict.passed
        assert not verdict.unjudged


def test_a_piece_has_the_buffers_of_its_network_and_no_others() -> None:
    """A tensor that is neither parameter nor buffer moves and changes its type with the piece all the same."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.scale = nn.Linear(6, 8), nn.Linear(8, 3), torch.linspace(1, 2, 6)
            self.register_buffer("shift", torch.ones(8), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.b((self.a(x * self.scale) + self.shift).relu())

    model, x = Net(), torch.randn(4, 6)
    piece = whole_piece(model, x)
    assert [n for n, _ in piece.named_buffers()] == ["shift"]
    assert [n for n, _ in piece.named_children()] == ["a", "b"]
    assert torch.equal(piece(x), model(x))
    copied = copy.deepcopy(piece).double()
    expected = copy.deepcopy(model).double()
    expected.scale = expected.scale.double()
    assert torch.equal(copied(x.double()), expected(x.double()))
    assert torch.equal(piece(x), model(x))
    assert piece.to("meta")(x.to("meta")).device.type == "meta"


@pytest.mark.parametrize("make", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_recurrent_network_changes_its_type_as_the_whole_does(make: type) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.r, self.o = make(6, 8, batch_first=True), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.o(self.r(x)[0][:, -1])

    model, x = Net(), torch.randn(4, 5, 6)
    coupling = isthmus.trace(model, (x,))
    for kind in (torch.bfloat16, torch.float64):
        piece, whole = build(model, coupling, {}).module.to(kind), copy.deepcopy(model).to(kind)
        assert torch.equal(piece(x.to(kind)), whole(x.to(kind)))
    short = copy.deepcopy(model).bfloat16()
    again = isthmus.trace(short, (x.bfloat16(),))
    assert torch.equal(build(short, again, {}).module(x.bfloat16()), short(x.bfloat16()))
