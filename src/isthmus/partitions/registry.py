"""The laws by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Literal

from isthmus.errors import InvalidInput, check_choice
from isthmus.factories import call_factory, load_factory
from isthmus.partitions.auto import Auto
from isthmus.partitions.block import Block
from isthmus.partitions.core import Core
from isthmus.partitions.fixed import Fixed
from isthmus.partitions.law import Law
from isthmus.partitions.mixed import Mixed
from isthmus.partitions.overlapping import Overlapping
from isthmus.partitions.rolling import Rolling
from isthmus.partitions.rotated import Rotated
from isthmus.partitions.uniform import Uniform
from isthmus.partitions.weighted import Weighted

LAWS: Mapping[str, type[Law]] = {
    law.name: law for law in (Uniform, Fixed, Rotated, Block, Rolling, Weighted, Overlapping)
}
_NAMED: Mapping[str, type[Law]] = {Auto.name: Auto, **LAWS}  # the first stands for one of the others


def law_of(
    law: Law | str | Mapping[str, Law | str],
    core: float = 0.0,
    capacities: Sequence[float] | Literal["auto"] | None = None,
    minimum: int | None = None,
    **others: Any,
) -> Law:
    """Return a law from its name and numbers; ``law_of(**law.record())`` is the law again.

    Args:
        law: a name of the registry, ``auto`` for what suits the network, ``MODULE:CLASS`` for a law of one's own, or a
            law already made; or one of these for each kind of axis, as a mapping or as ``KIND=LAW,KIND=LAW`` (``*`` for
            all other kinds).
        core: fraction of the units of every axis that all workers hold.
        capacities: of :class:`Weighted`, or ``auto``.
        minimum: of :class:`Overlapping`.
        others: parameters of a law of one's own.

    Raises:
        InvalidInput: an unknown law, or a parameter that it needs and lacks, or does not take.

    >>> law_of("overlapping", core=0.25, minimum=3)
    Core(law=Overlapping(minimum=3), fraction=0.25)
    >>> law_of("block=overlapping,*=uniform", minimum=2).record()
    {'law': 'block=overlapping,*=uniform', 'minimum': 2}
    """
    given = {"capacities": capacities, "minimum": minimum, **others}
    given = {name: value for name, value in given.items() if value is not None}
    kinds = _kinds(law)
    made = _law(law, given) if kinds is None else _mixed(kinds, given)  # type: ignore[arg-type]
    return Core(made, core) if core != 0.0 else made


def _law(law: Law | str, given: Mapping[str, Any]) -> Law:
    if isinstance(law, Law):
        _refuse_others(law.name, given, ())
        return law
    if ":" in law:
        return _own(law, given)
    made: Law = _made(law, _NAMED[check_choice("law", law, _NAMED)], given)
    return made


def _kinds(law: Law | str | Mapping[str, Law | str]) -> Mapping[str, Law | str] | None:
    """Return the law of each kind of axis, None where one is for all."""
    if isinstance(law, Mapping):
        return law
    if isinstance(law, Law) or "=" not in law:
        return None
    pairs = [each.partition("=") for each in law.split(",")]
    kinds = [kind.strip() for kind, _, _ in pairs]
    if not all(name for _, _, name in pairs) or len(set(kinds)) < len(kinds):
        raise InvalidInput(f"`law` must be a law, or KIND=LAW,KIND=LAW with each kind once, got {law!r}")
    return {kind: name.strip() for kind, (_, _, name) in zip(kinds, pairs, strict=True)}


def _mixed(laws: Mapping[str, Law | str], given: Mapping[str, Any]) -> Mixed:
    """Return the law for each kind, whose parameters are those of all laws that take them."""
    taken: set[str] = set()
    made: dict[str, Law] = {}
    for kind, law in laws.items():
        own = {name: value for name, value in given.items() if name in _parameters(law)}
        made[kind] = _law(law, own)
        taken |= own.keys()
    _refuse_others(",".join(f"{kind}={law.name}" for kind, law in made.items()), given, tuple(taken))
    return Mixed.of(made)


def _parameters(law: Law | str) -> tuple[str, ...]:
    """Return the names of the parameters of a law that is given by its name."""
    if isinstance(law, Law):
        return ()
    kind = load_factory(law, "law") if ":" in law else _NAMED.get(law)
    return tuple(each.name for each in fields(kind)) if kind is not None and is_dataclass(kind) else ()


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
