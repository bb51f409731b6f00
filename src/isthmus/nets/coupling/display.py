"""A coupling for people to read: a table of its axes, what is kept whole, a graph for Graphviz."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence

from rich.console import Console
from rich.table import Table

from isthmus.nets.axes.structure import Axis, Structure

_NUMBER = re.compile(r"(?:(?<=\.)|^)\d+(?=\.|$)")  # of a layer among its like, in a dotted name
_PLACES = 5
_WIDTH = 120


def axes_table(coupling: Structure) -> Table:
    """Return the axes as a table; those whose names differ in a number only are one row."""
    table = Table(title="Axes of the network", title_justify="left")
    table.add_column("axis", overflow="fold", max_width=24)
    table.add_column("kind", no_wrap=True)
    table.add_column("units", justify="right", no_wrap=True)
    table.add_column("cut", max_width=14)
    table.add_column("where: tensor\\[dimension]", overflow="fold", ratio=1)
    alike: dict[tuple[str, ...], list[Axis]] = {}
    for axis in coupling.all_axes:
        verdict = "yes" if axis.cut else f"no: {axis.why}"
        key = (_pattern(axis.name), axis.kind, str(axis.size), verdict, *_places(coupling, axis, _pattern))
        alike.setdefault(key, []).append(axis)
    for (pattern, kind, size, verdict, *places), axes in alike.items():
        exact = _places(coupling, axes[0], str)
        if len(axes) > 1:
            table.add_row(f"{pattern} ({len(axes)} axes)", kind, size, verdict, _few(places))
        else:
            table.add_row(axes[0].name, kind, size, verdict, _few(exact if len(exact) <= _PLACES else places))
    return table


def reasons(coupling: Structure) -> dict[str, list[str]]:
    """Return for each reason to keep units whole the tensor dimensions it concerns."""
    result: dict[str, list[str]] = {}
    for whole in coupling.whole:
        short = whole.reasons[0].split(" (aten.")[0]
        result.setdefault(short, []).extend(f"{name}[{dim}]" for name, dim in whole.members)
    return result


def kept_whole(coupling: Structure) -> list[str]:
    """Return a line for each reason why dimensions are kept whole by every worker."""
    lines = []
    for reason, places in reasons(coupling).items():
        shown = list(dict.fromkeys(places))
        if len(shown) > _PLACES:
            shown = list(dict.fromkeys(_pattern(place) for place in shown))
        rest = f" and {len(shown) - _PLACES} more" if len(shown) > _PLACES else ""
        lines.append(f"{reason}: {', '.join(shown[:_PLACES])}{rest}")
    return lines


def left_whole(axes: Mapping[str, str]) -> list[str]:
    """Return a line for each kind of axis that is left whole, from the names and what they have; like names are one."""
    alike: dict[tuple[str, str], list[str]] = {}
    for name, why in axes.items():
        alike.setdefault((_pattern(name), why), []).append(name)
    return [f"left whole: {pattern if len(names) > 1 else names[0]} ({why})" for (pattern, why), names in alike.items()]


def show(coupling: Structure, console: Console) -> None:
    """Print the table, what is kept whole and why, and notes."""
    console.print(axes_table(coupling))
    for heading, lines in (
        ("Kept whole by every worker", kept_whole(coupling)),
        ("Notes", [*coupling.fixed_inputs, *coupling.problems]),
    ):
        if lines:
            console.print(f"{heading}:", markup=False)
        for line in lines:
            console.print(f"- {line}", markup=False, highlight=False)


def as_text(coupling: Structure) -> str:
    """Return what :func:`show` prints."""
    out = io.StringIO()
    show(coupling, Console(file=out, width=_WIDTH, color_system=None))
    return out.getvalue().rstrip()


def dot(coupling: Structure) -> str:
    """Return the coupling as a Graphviz graph: axes joined to the tensors whose dimensions they are."""
    lines = ["graph coupling {", "  rankdir=LR;", '  node [fontname="sans-serif"];']
    for number, axis in enumerate(coupling.axes):
        style = "filled" if axis.cut else "dashed"
        lines.append(f'  a{number} [label="{axis.name}\\n{axis.kind} {axis.size}", shape=ellipse, style={style}];')
    tensors = sorted({member.name for axis in coupling.axes for member in axis.members})
    lines += [f'  "{name}" [label="{name}\\n{list(coupling.entries[name].shape)}", shape=box];' for name in tensors]
    for number, axis in enumerate(coupling.axes):
        lines += [f'  a{number} -- "{m.name}" [label="dim {m.dim}: {m.layout}"];' for m in axis.members]
    return "\n".join([*lines, "}"])


def _places(coupling: Structure, axis: Axis, name: Callable[[str], str]) -> list[str]:
    """Return where in the parameters an axis is, a line for each submodule and layout; for depth, the blocks."""
    if axis.blocks:
        stay = dict.fromkeys(block.shortcut for block in axis.blocks if block.shortcut)
        stays = f"without their shortcuts, which stay: {', '.join(map(name, stay))}"
        return [", ".join(dict.fromkeys(block.name for block in axis.blocks)), *([stays] if stay else [])]
    grouped: dict[tuple[str, str], list[str]] = {}
    for member in axis.members:
        if coupling.entries[member.name].is_parameter:
            module, _, leaf = member.name.rpartition(".")
            grouped.setdefault((name(module), _layout(member.layout)), []).append(f"{leaf}[{member.dim}]")
    lines = []
    for (module, layout), leaves in grouped.items():
        names = ", ".join(dict.fromkeys(leaves))
        lines.append(f"{module}: {names}".removeprefix(": ") + (f" = {layout}" if layout != "units" else ""))
    return lines


def _layout(text: str) -> str:
    """Say "3 x (units x 16)" for three equal parts in a row."""
    parts = text.split(" | ")
    if len(parts) > 1 and len(set(parts)) == 1 and "(" not in text:
        return f"{len(parts)} x ({parts[0]})"
    return text


def _pattern(name: str) -> str:
    return _NUMBER.sub("*", name)


def _few(lines: Sequence[str]) -> str:
    rest = len(lines) - _PLACES
    return "\n".join([*lines[:_PLACES], *([f"and {rest} more"] if rest > 0 else [])])
