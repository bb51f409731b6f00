"""What of a network can be cut, and what each worker would hold: MODULE:FACTORY names a function that returns
(network, args) or (network, args, kwargs); put the network on the meta device if it is too large for this machine. A
config of Hugging Face, a config.json or transformers:LlamaConfig, is made on it: nothing is downloaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table

import isthmus
from isthmus.cli import hugging_face
from isthmus.cli.saved import load_weights
from isthmus.errors import InvalidInput, check_integer, check_number
from isthmus.factories import call_factory, load_factory, network_and_call
from isthmus.records import to_json


@dataclass(frozen=True)
class Options:
    """Flags of ``isthmus inspect``."""

    target: Annotated[str, tyro.conf.Positional] = ""
    """MODULE:FACTORY, for example mynets:resnet (looked up from the current folder too); config.json; or
    transformers:LlamaConfig."""
    workers: tuple[int, ...] = (2, 4, 8)
    """Numbers of workers to show."""
    core: float = 0.0
    """Fraction of every cut axis that all workers hold."""
    cut: tuple[str, ...] = ()
    """Axes to cut instead of the default: kinds (hidden channel head ffn expert stream block), names or patterns."""
    init: Path | None = None
    """Weights for the network: safetensors, or what torch.save wrote of its state_dict()."""
    verify: bool = False
    """Also compare random cuts with the masked whole network."""
    dot: bool = False
    """Print the coupling as a Graphviz graph instead."""
    json: bool = False
    """Print one JSON object instead of tables."""

    def __post_init__(self) -> None:
        for workers in self.workers:
            check_integer("workers", workers, at_least=1)
        check_number("core", self.core, at_least=0.0, at_most=1.0)


def run(options: Options, command: list[str]) -> None:
    """Trace, then print."""
    trace = isthmus.trace  # before the network is made: where torch is missing, that is the thing to say
    model, args, kwargs = load(options.target, "cpu" if options.verify else "meta")
    if options.init is not None:
        load_weights(model, options.init)
    coupling = trace(model, args, kwargs, cut=options.cut or None, verify=options.verify)
    shares = {str(n): _share(coupling, n, options.core) for n in options.workers} if coupling.cut_axes else {}
    if options.dot:
        print(coupling.to_dot())
    elif options.json:
        axes = [
            {"name": a.name, "size": a.size, "kind": a.kind, "cut": a.cut, "why": a.why, "members": list(a.members)}
            for a in coupling.all_axes
        ]
        whole, notes = coupling.reasons(), [*coupling.fixed_inputs, *coupling.problems]
        chosen = dict(zip(("law", "law_reason"), _law(coupling), strict=True)) if shares else {}
        print(json.dumps(to_json({"axes": axes, "whole": whole, "workers": shares, "notes": notes, **chosen})))
    else:
        _show(coupling, shares)


def load(target: str, device: str = "meta") -> tuple[Any, tuple[Any, ...], Mapping[str, Any]]:
    """Make the network that a text names, and an example call of it.

    Args:
        target: MODULE:FACTORY; a config.json, or its folder; MODULE:CLASS of a config.
        device: where the network of a config is made.

    Raises:
        InvalidInput: no such module, function or file, one that fails, or a result that is not (network, args) or
            (network, args, kwargs).
    """
    called = f"`target` {target!r}"
    if hugging_face.is_config_file(target):
        return hugging_face.from_file(target, device)
    factory = load_factory(target, flag="target")
    if hugging_face.is_config_class(factory):
        return hugging_face.from_config(call_factory(factory, called), called, device)
    return network_and_call(call_factory(factory, called), called)


def _law(coupling: Any) -> tuple[str, str]:
    """Return the law that is chosen for the network, and why."""
    law, why = coupling.chosen()
    return law.name, why


def _share(coupling: Any, workers: int, core: float) -> dict[str, Any]:
    """Return parameters and bytes of the largest worker, and what of it is replicated."""
    try:
        partition = coupling.partition(workers, seed=0, law="auto", core=core)
    except InvalidInput as error:
        return {"problem": str(error)}
    counts = [coupling.sizes(partition.of(worker)) for worker in range(workers)]
    whole = coupling.serving(workers, partition.law).left_whole
    return {**max(counts, key=lambda count: int(count["bytes"])), "left_whole": whole}


def _show(coupling: Any, shares: Mapping[str, Mapping[str, Any]]) -> None:
    from isthmus.nets.coupling.display import left_whole, show

    console = Console()
    show(coupling, console)
    if not shares:
        console.print("Nothing is cut by default; choose with --cut.")
        return
    whole = coupling.sizes({})
    table = Table(title="What the largest worker holds", title_justify="left")
    for heading in ("workers", "parameters", "of the whole", "bytes", "held by all"):
        table.add_column(heading, justify="right")
    table.add_row("whole", f"{whole['parameters']:,}", "100.0 %", f"{whole['bytes']:,}", "")
    problems = []
    for workers, share in shares.items():
        if "problem" in share:
            problems.append(f"- {workers} workers: {share['problem']}")
            continue
        part = f"{100 * share['parameters'] / whole['parameters']:.1f} %"
        table.add_row(workers, f"{share['parameters']:,}", part, f"{share['bytes']:,}", f"{share['replicated']:,}")
        problems += [f"- {workers} workers: {line}" for line in left_whole(share["left_whole"])]
    console.print(table)
    law, why = _law(coupling)
    console.print(f"Law: {law}, as {why}", markup=False, highlight=False)
    for line in problems:
        console.print(line, markup=False, highlight=False)
