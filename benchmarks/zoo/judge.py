"""Whether a network is cut right, judged without isthmus's own verification.

The reference is the network itself, all of it, in float64, with zeros where a piece lacks something: in every dimension
but the first of its weights ("columns": what reads the units that are lacking), or in all dimensions ("entries": those
units too). A piece is right if one of the two gives its results, gradients and buffers, in training and evaluation, at
the example's sizes and at others. Convolutions that norm their own weights are, in a third one ("chosen"), made of what
is held of the weights, so that the norm is over these. Of a mixture of experts the reference is the network with the
experts held alone.
Merging is compared with sums over holders, entry by entry.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import takewhile
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

import isthmus
from isthmus.errors import InvalidInput
from zoo.public import Call, Public

LIMIT, SINGLE = 1e-8, 1e-4  # relative errors: of float64, and where the network itself computes in less
WORKERS = 4
MASKS = ("columns", "entries", "chosen")


class Settled(TorchDispatchMode):
    """Draws nothing: dropout keeps everything, and random numbers are all alike. Notes types short of float64."""

    def __init__(self) -> None:
        super().__init__()
        self.short = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        result = func(*args, **(kwargs or {}))
        if name.rstrip("_") in ("bernoulli", "rand", "randn", "rand_like", "randn_like", "uniform", "normal"):
            return result.fill_(1.0) if "bernoulli" in name else result.fill_(0.25)
        if isinstance(result, Tensor) and result.is_floating_point() and result.element_size() < 8:
            self.short = self.short or result.dim() > 1
        return result


def doubled(value: Any) -> Any:
    """Return a call's tensors in float64, those that hold real numbers."""
    return tree_map(lambda each: each.double() if _real(each) else each, value)


def leaves(value: Any) -> list[Tensor]:
    """Return the tensors of a result, of dataclasses too."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type) and not isinstance(value, Mapping):
        value = [getattr(value, each.name) for each in dataclasses.fields(value)]
    found: list[Tensor] = []
    for each in tree_flatten(value)[0]:
        found += [each] if isinstance(each, Tensor) else leaves(each) if _nested(each) else []
    return found


def state(module: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers under every name, persistent or not."""
    pairs = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    return dict(pairs)


@dataclasses.dataclass
class Result:
    """What a call gives: results, gradients by parameter, buffers by name, and whether numbers were short."""

    outputs: list[Tensor]
    gradients: dict[str, Tensor]
    buffers: dict[str, Tensor]
    short: bool


def run(module: nn.Module, call: Call, training: bool) -> Result:
    """Call a copy of a module and take the gradients of a sum in which every entry has a weight of its own."""
    module = copy.deepcopy(module).train(training)
    args, kwargs = copy.deepcopy(call)
    torch.manual_seed(1)
    with Settled() as settled:
        outputs = leaves(module(*args, **kwargs))
        total: Any = 0.0
        for output in outputs:
            if output.requires_grad and output.is_floating_point() and output.numel():
                weights = torch.linspace(0.5, 1.5, output.numel(), dtype=output.dtype).reshape(output.shape)
                total = total + torch.where(output.isfinite(), output * weights, torch.zeros_like(output)).sum()
        named = {n: p for n, p in module.named_parameters() if p.requires_grad}
        found = torch.autograd.grad(total, list(named.values()), allow_unused=True) if _real(total) else ()
    gradients = {n: g for n, g in zip(named, found, strict=False) if g is not None}
    buffers = {n: b.detach() for n, b in module.named_buffers()}
    return Result([o.detach() for o in outputs], gradients, buffers, settled.short)


def masked(base: nn.Module, names: Mapping[str, str], part: Any, how: str) -> nn.Module:
    """Return a copy of the network with zeros where a piece lacks something of a parameter."""
    reference = copy.deepcopy(base)
    if how == "chosen":
        for name, module in reference.named_modules():
            held = part.indices.get(f"{name}.weight")
            if isinstance(module, nn.Conv2d) and type(module) is not nn.Conv2d and held and held[1] is not None:
                _choose(module, torch.as_tensor(held[1]))
    tensors = dict(reference.named_parameters(remove_duplicate=False))
    with torch.no_grad():
        for name, tensor in tensors.items():
            held = part.indices.get(names.get(name, name))
            for dim, units in enumerate(held or ()):
                shared = units is not None and len(units) != tensor.shape[dim]
                if shared and (dim or how == "entries"):
                    lacking = torch.ones(tensor.shape[dim], dtype=torch.bool)
                    lacking[torch.as_tensor(units)] = False
                    tensor.index_fill_(dim, lacking.nonzero()[:, 0], 0.0)
    return reference


def _choose(conv: nn.Conv2d, units: Tensor) -> None:
    """Have a convolution read some channels of its input alone, the same of each of its groups."""
    width = conv.weight.shape[1]
    every = torch.cat([units + group * width for group in range(conv.groups)])
    conv.weight = nn.Parameter(conv.weight.detach().index_select(1, units))
    conv.in_channels = len(every)
    conv.register_forward_pre_hook(lambda module, args: (args[0].index_select(1, every), *args[1:]))


def compare(part: Any, base: nn.Module, names: Mapping[str, str], calls: Sequence[Call]) -> list[str]:
    """Return what differs, for the mask that fits best; nothing if all agrees."""
    found: list[str] = []
    for how in MASKS:
        reference = masked(base, names, part, how)
        every = (_differences(part, reference, names, call, training) for training in (True, False) for call in calls)
        lines = next((lines for lines in map(list, every) if lines), [])
        if not lines:
            return []
        found += [f"{how}: {line}" for line in lines]
    return found


def _differences(
    part: Any, reference: nn.Module, names: Mapping[str, str], call: Call, training: bool
) -> Iterator[str]:
    label = "training" if training else "evaluation"
    wanted, got = run(reference, call, training), run(part.module, call, training)
    limit = SINGLE if wanted.short or got.short else LIMIT
    if [o.shape for o in wanted.outputs] != [o.shape for o in got.outputs]:
        yield f"{label}: results of other shapes"
        return
    own = {full: name for name, full in names.items()}

    def sliced(found: Mapping[str, Tensor], name: str) -> Tensor | None:
        tensor = found.get(own.get(name, name))
        if tensor is None:
            return None
        for dim, units in enumerate(part.indices[name]):
            if units is not None and len(units) != tensor.shape[dim]:
                tensor = tensor.index_select(dim, torch.as_tensor(units))
        return tensor

    def errors(other: Result) -> dict[str, float]:
        pairs = zip(got.outputs if other is got else other.outputs, wanted.outputs, strict=True)
        largest = max((_size(g) for g in wanted.gradients.values()), default=0.0)
        outputs = max((error(a, b, 0.0) for a, b in pairs), default=0.0)
        gradients = 0.0
        for name in part.indices:
            a = other.gradients.get(name) if other is got else sliced(other.gradients, name)
            b = sliced(wanted.gradients, name)
            if a is not None or b is not None:
                a, b = (torch.zeros_like(a) if b is None else b) if a is None else a, b  # type: ignore[arg-type]
                gradients = max(gradients, error(a, torch.zeros_like(a) if b is None else b, 1e-3 * largest))
        buffers = 0.0
        for name in part.indices:
            b = sliced(wanted.buffers, name)
            a = other.buffers.get(name) if other is got else sliced(other.buffers, name)
            if a is not None and b is not None:
                buffers = max(buffers, error(a, b, 0.0))
        return {"results": outputs, "gradients": gradients, "buffers": buffers}

    off = errors(got)
    if max(off.values()) <= limit:
        return
    noise = errors(run(_nudged(reference, limit), call, training))
    for what, value in off.items():
        if value > limit and not (value <= 30 * noise[what] and noise[what] < 1e-2):
            yield f"{label}: {what} differ by {value:.1e}"


def error(value: Tensor, reference: Tensor, floor: float) -> float:
    """Return the largest difference by the largest value; whole numbers and infinities agree or do not."""
    if value.shape != reference.shape:
        return math.inf
    if not value.numel():
        return 0.0
    if value.is_complex():
        return error(torch.view_as_real(value), torch.view_as_real(reference), floor)
    if value.layout != torch.strided:
        return error(value.to_dense(), reference.to_dense(), floor)
    if not value.is_floating_point():
        return 0.0 if torch.equal(value, reference) else math.inf
    same = (value == reference) | (value.isnan() & reference.isnan())
    off = torch.where(same, torch.zeros_like(value), (value - reference).abs()).max().item()
    off = off / max(_size(reference), floor, 1e-6)
    return off if off == off else math.inf


def merging(model: nn.Module, parts: Sequence[Any], call: Call) -> list[str]:
    """Return what merging gets wrong: of untouched pieces, bit by bit; of trained ones, against means over holders."""
    found = []
    before = {name: tensor.detach().clone() for name, tensor in state(model).items()}
    merged = copy.deepcopy(model)
    isthmus.merge(merged, parts)
    found += [f"merging changes {n}" for n, tensor in state(merged).items() if not _same_bits(tensor, before[n])]
    for number, part in enumerate(parts):  # what a round of training leaves: buffers of its own, other weights
        with torch.no_grad(), Settled():
            part.module.train()(*copy.deepcopy(call[0]), **copy.deepcopy(call[1]))
            for tensor in part.module.parameters():
                if tensor.is_floating_point():
                    tensor.mul_(1 + 0.1 * number).add_(0.01 * number)
    held = [part.state() for part in parts]
    expected = {}
    for name in dict.fromkeys(name for each in held for name in each):
        dense = before[name].to_dense() if before[name].layout != torch.strided else before[name]
        if not dense.is_floating_point():
            continue
        total, count = np.zeros(dense.shape), np.zeros(dense.shape)
        for each, part in zip(held, parts, strict=True):
            if name in each:
                sets = [np.arange(s) if u is None else u for u, s in zip(part.indices[name], dense.shape, strict=True)]
                total[np.ix_(*sets)] += each[name].double().numpy()
                count[np.ix_(*sets)] += 1
        with np.errstate(invalid="ignore", divide="ignore"):
            expected[name] = torch.from_numpy(np.where(count > 0, total / count, dense.double().numpy()))
    isthmus.merge(merged, parts)
    after = state(merged)
    for name, wanted in expected.items():
        off = error(after[name].detach().double(), wanted, 0.0)
        if off > (1e-12 if after[name].dtype == torch.float64 else 1e-5):
            found.append(f"merging {name} differs from the mean over its holders by {off:.1e}")
    return found


def judge(network: Public, note: Callable[[dict[str, Any]], None], clock: Callable[[], float]) -> dict[str, Any]:
    """Return the row of a network: what is cut, how much a worker holds, and whether it is right.

    Args:
        network: to trace.
        note: is given what is known so far.
        clock: seconds of processor time.
    """
    torch.manual_seed(0)
    model, example = network.build(), network.call(network.batch, network.sizes[0])
    if not network.single:
        model, example = model.double(), doubled(example)
    run(model, example, True)  # what the network itself cannot do is no fault of its cut
    for module in model.modules():
        module.train()
    parameters = sum(p.numel() for p in model.parameters())
    row: dict[str, Any] = {"parameters": parameters}
    start = clock()
    try:
        coupling = isthmus.trace(model, *example)
        row["traced"] = clock() - start
        row |= {"problems": list(coupling.problems), "fixed": list(coupling.fixed_inputs)}
        row["kept"] = _kept(coupling)
        partition = coupling.partition(WORKERS, seed=0)
        parts = [isthmus.cut(model, coupling, partition, worker) for worker in range(WORKERS)]
    except InvalidInput as failure:
        row["seconds"] = clock() - start
        nothing = "no axis of the network is cut" in str(failure) or "too few" in str(failure)
        return row | {"verdict": "useless" if nothing else "refused", "line": str(failure), "share": 1.0}
    row["seconds"] = clock() - start
    serving = coupling.serving(WORKERS, partition.law)
    row["cut"] = dict(Counter(axis.kind for axis in serving.cut_axes))
    row["kept"] = _kept(serving)
    row["share"] = max(sum(p.numel() for p in part.module.parameters()) for part in parts) / parameters
    note(row)
    if not network.judged:
        return row | {"verdict": "elsewhere", "line": ""}
    lines, fixed = _judged(network, model, coupling, parts, example)
    row["other"] = fixed or "as the network itself"
    lines += merging(model, parts, example)
    if lines:
        return row | {"verdict": "wrong", "line": "; ".join(lines[:4])}
    if row["share"] > 0.5:
        return row | {"verdict": "useless", "line": f"a worker of {WORKERS} holds {row['share']:.2f}"}
    return row | {"verdict": "right", "line": ""}


def _judged(
    network: Public, model: nn.Module, coupling: Any, parts: Sequence[Any], example: Call
) -> tuple[list[str], str]:
    """Return what differs in the pieces of the first and last worker, and how they refuse other sizes."""
    calls, fixed = [example], ""
    for batch, size in ((network.batch + 1, network.sizes[0]), (network.batch, network.sizes[1])):
        torch.manual_seed(batch + size)
        other = network.call(batch, size)
        other = other if network.single else doubled(other)
        try:
            run(model, other, False)
        except Exception:  # the network itself does not take this size
            continue
        try:
            run(parts[0].module, other, False)
            calls.append(other)
        except InvalidInput as failure:
            fixed = fixed or str(failure)
    lines = []
    for part, asked in ((parts[0], calls), (parts[-1], calls[:1])):
        base, names = model, {}
        held = {a.name: [int(unit) for unit in part.held[a.name]] for a in coupling.cut_axes if a.kind == "expert"}
        if held and network.twin is not None:
            base, names = network.twin(model, partial(_nearest, held))
        lines += compare(part, base, names, asked)
    return lines, fixed


def _nearest(held: Mapping[str, Sequence[int]], name: str) -> Sequence[int]:
    """Return what belongs to the axis whose path has most in common with a name."""
    path = name.split(".")

    def common(axis: str) -> int:
        return len(list(takewhile(lambda pair: pair[0] == pair[1], zip(axis.split("."), path, strict=False))))

    return held[max(held, key=common)]


def _kept(coupling: Any) -> list[list[Any]]:
    """Return how many axes and dimensions are kept whole for each reason, the most frequent first."""
    reasons = Counter(axis.why for axis in coupling.axes if not axis.cut and axis.kind != "block")
    reasons.update(reason for each in coupling.whole for reason in each.reasons[:1])
    return [[reason, count] for reason, count in reasons.most_common()]


def _nudged(module: nn.Module, limit: float) -> nn.Module:
    moved = copy.deepcopy(module)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in moved.parameters():
            if tensor.is_floating_point():
                noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
                tensor.mul_((1 + (1e-14 if limit == LIMIT else 1e-7) * noise).to(tensor.dtype))
    return moved


def _same_bits(a: Tensor, b: Tensor) -> bool:
    a, b = (each.detach() if each.layout == torch.strided else each.detach().to_dense() for each in (a, b))
    if a.is_floating_point() or a.is_complex():
        a, b = (torch.view_as_real(each) if each.is_complex() else each for each in (a, b))
        return bool(torch.equal(a.isnan(), b.isnan()) and torch.equal(a.nan_to_num(nan=0.0), b.nan_to_num(nan=0.0)))
    return torch.equal(a, b)


def _size(tensor: Tensor) -> float:
    if not (tensor.is_floating_point() or tensor.is_complex()) or not tensor.numel():
        return 0.0
    size = tensor.detach().abs()
    return float(torch.where(size.isfinite(), size, torch.zeros_like(size)).max())


def _real(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _nested(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)
