"""Arguments that cannot be parsed, refused in one line: what the parser found wrong, said as everywhere in isthmus.

tyro tells a hook what it refuses before it draws its box. The hook is not part of its stable interface, so whatever
does not come through it is still one line: the text of the box, without its frame.
"""

from __future__ import annotations

import difflib
import io
import re
import sys
import types
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stderr
from dataclasses import is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro

from isthmus.errors import InvalidInput, check_choice

_RULES = {int: "an integer", float: "a number", str: "text", Path: "a path"}
_RULES_FOR_SEVERAL = {int: "integers", float: "numbers", str: "texts", Path: "paths"}


@contextmanager
def refusing_in_one_line(argv: Sequence[str], options: type) -> Iterator[None]:
    """Turn whatever the parser refuses inside the block into :class:`InvalidInput`, a flag given twice too.

    Args:
        argv: the arguments that are parsed.
        options: the dataclass they fill; a mistyped flag is compared with its fields.

    Raises:
        InvalidInput: "unknown flag `--worker`; did you mean `--workers`?", "`--workers` must be an integer, got 'two'".
    """
    box = io.StringIO()
    try:
        with redirect_stderr(box), _hook(_Refusal(argv, flags_of(options))):
            yield
    except SystemExit as stop:
        if stop.code:
            raise InvalidInput(unboxed(box.getvalue())) from None
        raise
    print(box.getvalue(), end="", file=sys.stderr)
    given = Counter(flag for flag in map(_flag, _before_dashes(argv)) if flag)
    for flag, times in given.items():
        if times > 1:  # the parser would keep the last in silence
            raise InvalidInput(f"`{flag}` must be given once, got it {times} times")


def flags_of(options: type) -> list[str]:
    """Return the flags that a dataclass stands for, those of dataclasses inside it too."""
    found = []
    for name, kind in get_type_hints(options, include_extras=True).items():
        plain, *markers = get_args(kind) if get_origin(kind) is Annotated else (kind,)
        if isinstance(plain, type) and is_dataclass(plain):
            found += flags_of(plain)
        elif tyro.conf.Positional not in markers:
            found.append(f"--{name.replace('_', '-')}")
    return found


def unboxed(text: str) -> str:
    """Return the text of the parser's box as one line.

    >>> unboxed("╭─ Value error ─╮\\n│ Error parsing --n: │\\n│ no number │\\n├──┤\\n│ see --help │\\n╰──╯")
    'Error parsing --n: no number'
    """
    first = re.split(r"^[├│╰]?─{2,}.*$", text.partition("\n")[2] if text.startswith("╭") else text, flags=re.M)[0]
    return " ".join(first.replace("│", " ").split()) or "the arguments cannot be parsed; see --help"


def _hook(refuse: _Refusal) -> AbstractContextManager[None]:
    try:
        from tyro._errors import on_parse_error
    except ImportError:
        return nullcontext()
    return on_parse_error(refuse)


class _Refusal:
    """Raises the one line for an event of the parser; an event it does not know is left to the parser."""

    def __init__(self, argv: Sequence[str], flags: Sequence[str]) -> None:
        self._argv = _before_dashes(argv)
        self._flags = flags

    def __call__(self, event: Any) -> None:
        argument = getattr(event, "argument", None)
        kind = type(event).__name__
        if kind == "UnrecognizedArgs":
            raise InvalidInput(self._unrecognized(event.tokens[0]))
        if argument is None or argument.is_positional():
            return
        flag = argument.lowered.name_or_flags[0]
        if kind == "InvalidChoice":
            choices = [one for one in event.choices if one != "None"]
            check_choice(flag, event.value, sorted(choices, key=lambda one: one == "False"))
        if kind in ("BadValue", "InstantiationFailure"):
            raise InvalidInput(f"`{flag}` must be {rule(argument.field.type_stripped)}, got {self._given(flag)}")

    def _unrecognized(self, token: str) -> str:
        if token.startswith("-") and token not in ("-", *self._flags):
            near = difflib.get_close_matches(token.strip("-"), [flag.strip("-") for flag in self._flags], n=1)
            return f"unknown flag `{token}`" + (f"; did you mean `--{near[0]}`?" if near else "")
        given = [word for word in self._argv if _flag(word) and word.endswith(f"={token}")]
        if given:
            return f"`{_flag(given[0])}` takes no value, got {token!r}"
        before = self._argv[: self._argv.index(token)] if token in self._argv else []
        last = max((at for at, word in enumerate(before) if _flag(word)), default=None)
        if last is None:
            return f"unexpected argument {token!r}"
        if last == len(before) - 1 and "=" not in before[last]:
            return f"`{_flag(before[last])}` takes no value, got {token!r}"
        return f"unexpected argument {token!r} after `{' '.join(before[last:])}`"

    def _given(self, flag: str) -> str:
        """What followed the flag on the command line."""
        at = max(place for place, word in enumerate(self._argv) if _flag(word) == flag)
        _, equals, value = self._argv[at].partition("=")
        values = [value] if equals else []
        for word in self._argv[at + 1 :] if not equals else []:
            if _flag(word):
                break
            values.append(word)
        return repr(" ".join(values)) if values else "no value"


def rule(kind: Any) -> str:
    """Return what a value of this type must be, in words; None stands for a flag that is not given.

    >>> rule(int), rule(float | None), rule(tuple[int, ...]), rule(Literal["a", "b"] | None), rule(tuple[int, float])
    ('an integer', 'a number', 'integers', "'a', 'b'", '2 values (an integer, a number)')
    """
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(rule(one) for one in inner if one is not type(None))
    if origin is Literal:
        return ", ".join(map(repr, inner))
    if origin is tuple and inner[-1] is Ellipsis:
        return _RULES_FOR_SEVERAL.get(inner[0], f"values, each {rule(inner[0])}")
    if origin is tuple:
        return f"{len(inner)} values ({', '.join(map(rule, inner))})"
    return _RULES.get(kind, f"a {getattr(kind, '__name__', kind)}")


def _before_dashes(argv: Sequence[str]) -> list[str]:
    """The arguments before a bare ``--``, after which nothing is a flag."""
    return list(argv[: argv.index("--")] if "--" in argv else argv)


def _flag(word: str) -> str | None:
    """The flag that a word of the command line names, spelled with hyphens; None for a value."""
    return word.partition("=")[0].replace("_", "-") if word.startswith("--") and len(word) > 2 else None
