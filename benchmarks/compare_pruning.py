"""Which networks of tests/cases isthmus cuts, and which torch-pruning prunes, with its defaults.

    pip install torch-pruning==1.6.1
    python benchmarks/compare_pruning.py                # a Markdown table; about ten minutes
    python benchmarks/compare_pruning.py --only resnet  # networks whose name contains this
    python benchmarks/compare_pruning.py --limit 60     # seconds per network and system

torch-pruning prunes half of every group (MagnitudePruner; layers that make the outputs are ignored, heads are not
declared to it). Told are whether the pruned network runs with outputs of the same shape, whether anything was pruned,
and whether it equals the whole network with the pruned rows and columns set to zero (it cannot where a norm acts across
what is pruned, a residual stream for instance: it is no error then). isthmus cuts what it cuts by default, and is
compared with the masked whole by its own check. Every network runs in a process of its own.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import inspect
import multiprocessing
import os
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import isthmus
from cases.networks import NETWORKS, Network
from cases.networks_more import UNSEEN
from cases.networks_more_transformers import UNSEEN_TRANSFORMERS
from cases.networks_transformers import TRANSFORMERS
from isthmus.errors import IsthmusError
from isthmus.nets.check.verify import verify

ALL = {network.name: network for network in [*NETWORKS, *TRANSFORMERS, *UNSEEN, *UNSEEN_TRANSFORMERS]}
SYSTEMS = ("isthmus", "torch-pruning")


def made(name: str) -> tuple[Network, nn.Module, tuple[Tensor, ...]]:
    """Return a network with its case and an example call."""
    network = ALL[name]
    torch.manual_seed(3)
    return network, network.build().eval(), network.inputs(3)


def outputs(model: nn.Module, network: Network, args: tuple[Tensor, ...]) -> list[Tensor]:
    """Return the tensors of a call; networks that draw in forward draw the same numbers every time."""
    torch.manual_seed(7)
    with torch.no_grad():
        return [leaf for leaf in tree_leaves(model(*args, **network.kwargs)) if isinstance(leaf, Tensor)]


def isthmus_on(name: str) -> str:
    """Return what isthmus makes of a network: cut or not, and what its own comparison with the masked whole says."""
    network, model, args = made(name)
    try:
        coupling = isthmus.trace(model, args, network.kwargs)
    except IsthmusError as error:
        return f"refused: {error}"
    chosen = coupling if coupling.cut_axes else coupling.select(["*"])
    verdict = verify(chosen, model, args, network.kwargs, seeds=(0,))
    kinds = ", ".join(dict.fromkeys(axis.kind for axis in chosen.cut_axes))
    how = "cut" if coupling.cut_axes else "on request"
    return f"{how} ({kinds}); {'equal' if verdict.passed else 'DIFFERS'}"


def pruning_on(name: str) -> str:
    """Return what torch-pruning makes of a network."""
    import torch_pruning  # not a dependency

    network, model, args = made(name)
    whole, expected = copy.deepcopy(model), outputs(model, network, args)
    last = _returning(model, network, args)
    example = {**network.kwargs, **dict(zip(_arguments(model), args, strict=False))}
    try:
        pruner = torch_pruning.pruner.MagnitudePruner(
            model, example, importance=torch_pruning.importance.MagnitudeImportance(), pruning_ratio=0.5,
            ignored_layers=last, forward_fn=lambda model, inputs: model(**inputs), output_transform=_summed,
        )  # fmt: skip
        before = {key: parameter.shape for key, parameter in model.named_parameters()}
        groups = _prune(pruner, model)
    except Exception as error:  # whatever a system of others raises is its answer
        return f"fails ({type(error).__name__})"
    if {key: parameter.shape for key, parameter in model.named_parameters()} == before:
        return "nothing pruned"
    try:
        found = outputs(model, network, args)
    except Exception as error:
        return f"pruned network fails ({type(error).__name__})"
    if [a.shape for a in found] != [b.shape for b in expected]:
        return "outputs of another shape"
    return f"runs; {_against_masked(whole, groups, network, args, found)}"


def _returning(model: nn.Module, network: Network, args: tuple[Tensor, ...]) -> list[nn.Module]:
    """Return the layers whose result the network returns, itself or reshaped: they make up its outputs."""
    seen: list[tuple[nn.Module, Any]] = []
    leaves = [module for module in model.modules() if not list(module.children())]
    hooks = [m.register_forward_hook(lambda m, _, result: seen.append((m, result))) for m in leaves]
    places = {result.data_ptr() for result in outputs(model, network, args)}
    for hook in hooks:
        hook.remove()
    found = [m for m, result in seen if isinstance(result, Tensor) and result.data_ptr() in places]
    return found or [m for m in leaves if isinstance(m, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d))][-1:]


def _arguments(model: nn.Module) -> list[str]:
    return list(inspect.signature(model.forward).parameters)


def _summed(result: Any) -> Tensor:
    return sum(leaf.sum() for leaf in tree_leaves(result) if isinstance(leaf, Tensor) and leaf.grad_fn is not None)  # type: ignore[return-value]


def _prune(pruner: Any, model: nn.Module) -> list[tuple[str, bool, list[int]]]:
    """Prune, and return (module, whether its outputs, indices in the unpruned module) of everything pruned."""
    names = {module: name for name, module in model.named_modules()}
    done = []
    for group in pruner.step(interactive=True):
        for dependency, indices in group:
            module = dependency.target.module
            out = pruner.DG.is_out_channel_pruning_fn(dependency.handler)
            if module in names:
                done.append((names[module], out, [int(i) for i in indices]))
        group.prune()
    return done


def _against_masked(
    whole: nn.Module, groups: list[tuple[str, bool, list[int]]], network: Network, args: tuple[Tensor, ...], found: Any
) -> str:
    """Compare with the whole network whose pruned rows and columns are zero."""
    modules: Mapping[str, nn.Module] = dict(whole.named_modules())
    seen: set[tuple[str, bool]] = set()
    with torch.no_grad():
        for name, out, indices in groups:
            module = modules[name]
            if (name, out) in seen:
                return "not comparable (one module pruned twice)"
            seen.add((name, out))
            for parameter in module.parameters(recurse=False):
                if parameter.dim() == 1 and not out:
                    continue
                dim = 0 if out else 1
                if max(indices) >= parameter.shape[dim]:
                    return "not comparable (indices of another layout)"
                parameter.index_fill_(dim, torch.tensor(indices), 0.0)
    expected = outputs(whole, network, args)
    error = max(float((a - b).abs().max() / (b.abs().max() + 1e-6)) for a, b in zip(found, expected, strict=True))
    return "equals the masked network" if error < 1e-4 else f"differs from the masked network by {error:.0e}"


def asked(name: str, system: str, limit: float) -> str:
    """Ask one system about one network in a process of its own, forked: what is imported already is not again."""
    if system != "isthmus" and importlib.util.find_spec("torch_pruning") is None:
        return "not installed"
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    process = context.Process(target=_answer, args=(name, system, answers))
    process.start()
    process.join(limit)
    if process.is_alive():
        process.kill()
        process.join()
        return f"not done after {limit:.0f} s"
    return "crashes" if answers.empty() else answers.get()


def _answer(name: str, system: str, answers: Any) -> None:
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 2)  # tracebacks and warnings: the answer says what happened
    answers.put(isthmus_on(name) if system == "isthmus" else pruning_on(name))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="networks whose name contains this")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds per network and system")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if importlib.util.find_spec("torch_pruning") is None:
        print("torch-pruning is not installed (pip install torch-pruning==1.6.1): its column stays empty\n")
    print("| network | isthmus | torch-pruning |\n|---|---|---|")
    for name in ALL:
        if options.only in name:
            print(f"| {name} | {' | '.join(asked(name, system, options.limit) for system in SYSTEMS)} |", flush=True)


if __name__ == "__main__":
    main()
