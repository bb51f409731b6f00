"""What a checkpoint's folder holds, as one JSON file that vouches for the others and for itself.

::

    checkpoint-000123/
      checkpoint.json                   this manifest
      shard-00000-of-00004.safetensors  of worker 0: its rows of every tensor, and what is its own
      ...

Each shard file says in its header which rows it holds, as torch.distributed.checkpoint does in its safetensors files:
its ``HuggingFaceStorageReader`` reads the folder, for any number of readers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isthmus.errors import DataError
from isthmus.records.files import BLANK, LINES_MOST, hash_file, read_file, stamped

MANIFEST = "checkpoint.json"
FORMAT = 1
_FOLDER = re.compile(r"checkpoint-(\d{6,})(\.old)?")


@dataclass(frozen=True)
class ShardFile:
    """What one worker's file must be.

    Attributes:
        size: in bytes.
        sha256: in hexadecimal.
        rows: [first, end) of the rows it holds, by tensor.
    """

    size: int
    sha256: str
    rows: Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class Manifest:
    """A checkpoint but for its tensors.

    Attributes:
        number: of the round that comes next: how many have been merged.
        identity: what the training is: strategy, law, network, seed, steps of a round.
        versions: of the libraries that wrote it.
        tensors: shape and type of every tensor that is cut into shards, by name.
        files: by worker.
        kept: what each worker keeps for itself, as JSON data (:mod:`isthmus.trainer.checkpoint.plain`), by worker.
    """

    number: int
    identity: Mapping[str, Any]
    versions: Mapping[str, str]
    tensors: Mapping[str, tuple[tuple[int, ...], str]]
    files: Sequence[ShardFile]
    kept: Sequence[Any]

    def text(self) -> str:
        """Return the file's content; the first thing in it is the SHA-256 of all the rest."""
        said = {
            "sha256": BLANK,
            "format": FORMAT,
            "number": self.number,
            "workers": len(self.files),
            "versions": dict(self.versions),
            "identity": self.identity,
            "tensors": {name: {"shape": shape, "dtype": dtype} for name, (shape, dtype) in self.tensors.items()},
            "files": {
                shard_name(worker, len(self.files)): {"size": file.size, "sha256": file.sha256, "rows": file.rows}
                for worker, file in enumerate(self.files)
            },
            "kept": self.kept,
        }
        return stamped(_laid_out(said))

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read the manifest of a checkpoint.

        Raises:
            DataError: it is missing, or not what was written.
        """
        path = folder / MANIFEST
        try:
            text = read_file(path, LINES_MOST).decode()
            said = json.loads(text)
            sound = stamped(text, said["sha256"]) == text
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, RecursionError):
            sound = False
        if not sound:
            raise DataError(f"{path} is torn or was changed: it is not what was written")
        if said["format"] != FORMAT:
            raise DataError(f"{path} is of another version of isthmus (format {said['format']}, not {FORMAT})")
        return cls(
            number=said["number"],
            identity=said["identity"],
            versions=said["versions"],
            tensors={name: (tuple(each["shape"]), each["dtype"]) for name, each in said["tensors"].items()},
            files=[
                ShardFile(each["size"], each["sha256"], {name: (a, b) for name, (a, b) in each["rows"].items()})
                for each in said["files"].values()
            ],
            kept=said["kept"],
        )

    def check_parts(self, folder: Path) -> None:
        """Refuse a folder in which a shard is missing, or one lies that is none of this checkpoint's.

        Raises:
            DataError: either; it is named.
        """
        known = {shard_name(worker, len(self.files)) for worker in range(len(self.files))}
        there = {file.name for file in folder.glob("*.safetensors")}
        if there - known:
            raise DataError(f"{folder / min(there - known)} is no part of this checkpoint")
        if known - there:
            raise DataError(f"{folder / min(known - there)} is missing")

    def check(self, folder: Path, workers: Iterable[int]) -> None:
        """Compare the files of some workers, byte for byte, with what was written.

        Raises:
            DataError: one is cut short, too long, or changed; it is named.
            OSError: one cannot be read.
        """
        for worker in workers:
            file, path = self.files[worker], folder / shard_name(worker, len(self.files))
            size, sha256 = hash_file(path)
            if size != file.size:
                raise DataError(f"{path} is torn: it has {size} bytes of {file.size}")
            if sha256 != file.sha256:
                raise DataError(f"{path} was changed: its SHA-256 is not that of what was written")


def fault(folder: Path, reader: int = 0, readers: int = 1) -> str | None:
    """Return what is wrong with a checkpoint, in one line; None if nothing is.

    Args:
        folder: its own.
        reader, readers: which share of the files to look at, of how many.
    """
    try:
        manifest = Manifest.read(folder)
        manifest.check_parts(folder)
        manifest.check(folder, range(reader, len(manifest.files), readers))
    except (DataError, OSError) as error:
        return " ".join(str(error).split())
    return None


def shard_name(worker: int, workers: int) -> str:
    """Return the name of one worker's file."""
    return f"shard-{worker:05d}-of-{workers:05d}.safetensors"


def folder_name(number: int) -> str:
    """Return the name of a checkpoint's folder."""
    return f"checkpoint-{number:06d}"


def checkpoints(folder: Path) -> list[Path]:
    """Return the folders of all checkpoints in a folder, the last first; whether they are sound is not looked at."""
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        if (match := _FOLDER.fullmatch(path.name)) and path.is_dir():
            found.append((int(match[1]), match[2] is None, path))
    return [path for *_, path in sorted(found, reverse=True)]


def number_of(path: Path) -> int:
    """Return the number of a checkpoint by its folder's name."""
    match = _FOLDER.fullmatch(path.name)
    assert match is not None
    return int(match[1])


def _laid_out(said: Mapping[str, Any]) -> str:
    """Return JSON with one entry a line, down to the second level."""

    def lines(entries: Mapping[str, str], indent: str) -> str:
        return "{" + f",\n{indent}".join(f"{json.dumps(key)}: {value}" for key, value in entries.items()) + "}"

    def text(value: Any) -> str:
        said = json.dumps(value, allow_nan=False)
        inner = {key: json.dumps(each) for key, each in value.items()} if isinstance(value, Mapping) else {}
        return lines(inner, "  ") if inner else said

    return lines({key: text(value) for key, value in said.items()}, " ") + "\n"
