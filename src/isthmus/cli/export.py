"""Write the network of a run's checkpoint as one safetensors file, as the run itself would have at that moment."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from isthmus.cli import status
from isthmus.errors import InvalidInput, WorkerError
from isthmus.trainer import export_run


@dataclass(frozen=True)
class Options:
    """The flags of `isthmus export`.

    Attributes:
        run: Folder of the run.
        out: The file to write; ends in .safetensors.
        checkpoint: Its number, that of its folder; by default the last.
    """

    run: Annotated[Path, tyro.conf.Positional] = Path()
    out: Annotated[Path, tyro.conf.Positional] = Path("model.safetensors")
    checkpoint: int | None = None

    def __post_init__(self) -> None:
        if self.run == Path():
            raise InvalidInput("`run` must be given: isthmus export RUN model.safetensors")


def run(options: Options, command: list[str]) -> None:
    """Export, and say where the file is."""
    try:
        print(export_run(options.run, options.out, options.checkpoint))
    except WorkerError as error:
        print(f"isthmus: {error}", file=sys.stderr)
        raise SystemExit(status.WORKER_FAILED) from None
