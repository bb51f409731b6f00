"""The laws by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Literal

from isthmus.errors import InvalidInput, check_choice
from isthmus.factories import call_factory, load_factory
from isthmus.partitions.block import Block
from isthmus.partitions.core import Core
from isthmus.partitions.fixed import Fixed
from isthmus.partitions.law import Law
from isthmus.partitions.overlapping import Overlapping
from isthmus.partitions.rolling import Rolling
from isthmus.partitions.rotated import Rotated
from isthmus.partitions.uniform import Uniform
from isthmus.partitions.weighted import Weighted

LAWS: Mapping[str, type[Law]] = {
    law.name: law for law in (Uniform, Fixed, Rotated, Block, Rolling, Weighted, Overlapping)
}


def law_of(
    law: Law | str,
    core: float = 0.0,
    capacities: Sequence[float] | Literal["auto"] | None = None,
    minimum: int | None = None,
    **others: Any,
) -> Law:
    """Return a law from its name and numbers; ``law_of(**law.record())`` is the law again.

    Args:
        law: a name of the registry, ``MODULE:CLASS`` for a law of one's own, or a law already made.
        core: fraction of the units of every axis that all workers hold.
        capacities: of :class:`Weighted`, or ``auto``.
        minimum: of :class:`Overlapping`.
        others: parameters of a law of one's own.

    Raises:
        InvalidInput: an unknown law, or a parameter that it needs and lacks, or does not take.

    >>> law_of("overlapping", core=0.25, minimum=3)
    Core(law=Overlapping(minimum=3), fraction=0.25)
    """
    given = {"capacities": capacities, "minimum": minimum, **others}
    given = {name: value for name, value in given.items() if value is not None}
    if isinstance(law, Law):
        _refuse_others(law.name, given, ())
        made = law
    elif ":" in law:
        made = _own(law, given)
    else:
        made = _made(law, LAWS[check_choice("law", law, LAWS)], given)
    return Core(made, core) if core != 0.0 else made


def _own(target: str, given: Mapping[str, Any]) -> Law:
    kind = load_factory(target, "law")
    made = call_factory(lambda: _made(target, kind, given), f"`law` {target!r}")
    if not isinstance(made, Law):
        raise InvalidInput(f"`law` {target!r} must be a class derived from isthmus.partitions.Law, got {made!r}")
    return made


def _made(name: str, kind: Callable[..., Any], given: Mapping[str, Any]) -> Any:
    takes = {each.name: each for each in fields(kind)} if is_dataclass(kind) else {}
    _refuse_others(name, given, tuple(takes))
    for parameter, each in takes.items():
        if parameter not in given and each.default is each.default_factory:  # both MISSING: no default
            raise InvalidInput(f"`{parameter}` must be given with law {name!r}")
    return kind(**given)


def _refuse_others(name: str, given: Mapping[str, Any], takes: tuple[str, ...]) -> None:
    for parameter in given:
        if parameter not in takes:
            raise InvalidInput(f"`{parameter}` has no effect with law {name!r}")
