"""The command ``isthmus``: arguments to a frozen dataclass to one call; no logic.

Each command is a module of this folder with a frozen dataclass (its fields are the flags) and a function ``run`` that
takes it and the command line it came from, for the record of a run. :data:`COMMANDS` names them; a command's module is
imported only when it is asked for, so that the lab's commands never load torch.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import fields
from importlib import import_module
from types import ModuleType
from typing import Any

import tyro

from isthmus.cli import status
from isthmus.cli.refuse import refusing_in_one_line
from isthmus.errors import IsthmusError, check_choice
from isthmus.version import __version__

COMMANDS = {
    "analyze": "exact theory of IST on a quadratic, beside simulation",
    "compare": "rivals with compressed communication, IST and anchored IST to a target",
    "claims": "every numbered statement of the paper, checked on random problems",
    "inspect": "what of a network can be cut, and what each worker would hold",
    "plan": "what a round of every strategy would hold, move and take, before any is run",
    "train": "train a network by IST or a rival over real processes",
    "slow": "run a command on several hosts of this machine, over slow lines between them",
    "watch": "follow a training that goes on: each worker, the whole, what has happened",
    "export": "the network of a run's checkpoint as one safetensors file",
    "check": "compare all that runs have written with its checksums",
    "report": "runs to one HTML page and PNG figures",
    "demo": "the main job: analyze, train, report on real data",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; bad input prints one line and exits with 2, Ctrl-C with 130 (:mod:`isthmus.cli.status`)."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    try:
        _dispatch(argv)
        sys.stdout.flush()
    except IsthmusError as error:
        status.say(error)
        raise SystemExit(status.BAD_INPUT) from None
    except KeyboardInterrupt:
        print("isthmus: interrupted", file=sys.stderr)
        raise SystemExit(status.INTERRUPTED) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None


def _dispatch(argv: list[str]) -> None:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_usage())
        return
    if argv[0] == "--version":
        print(f"isthmus {__version__}")
        return
    name = check_choice("command", argv[0], COMMANDS)
    module = import_module(f"isthmus.cli.{name}")
    module.run(_parse(module, name, argv[1:]), ["isthmus", *argv])


def _parse(module: ModuleType, name: str, argv: list[str]) -> Any:
    """Parse flags into the module's ``Options``, a frozen dataclass that validates itself.

    The parser fills a twin without the validation, and ``Options`` is made from that: so what it refuses is raised
    here, as one line, and not shown in the parser's box. Where ``--config FILE`` is given, the module's ``read_toml``
    gives the defaults, and flags on the command line come before the file.
    """
    kind = module.Options
    twin = type(kind.__name__, (kind,), {"__post_init__": lambda self: None, "__doc__": kind.__doc__})

    def parse(default: Any) -> Any:
        with refusing_in_one_line(argv, kind):
            return tyro.cli(
                twin,
                prog=f"isthmus {name}",
                args=argv,
                default=default,
                description=module.__doc__,
                config=(tyro.conf.FlagCreatePairsOff,),
            )

    flags = parse(twin())
    if getattr(flags, "config", None) is not None:
        flags = parse(twin(**module.read_toml(flags.config)))
    return kind(**{field.name: getattr(flags, field.name) for field in fields(kind)})


def _usage() -> str:
    lines = [f"  {name:<10} {what}" for name, what in COMMANDS.items()]
    codes = ", ".join(f"{code} {meaning}" for code, meaning in status.MEANINGS.items())
    return "\n".join(
        [
            "usage: isthmus COMMAND [flags]        isthmus COMMAND --help for its flags",
            "",
            "Independent Subnetwork Training: exact theory on quadratics, and a trainer over processes.",
            "",
            *lines,
            "",
            f"exit codes: {codes}",
        ]
    )
