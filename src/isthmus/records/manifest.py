"""What a run has written, as one JSON file that vouches for the others and for itself.

::

    {"sha256": "...",                         of this file, with zeros in this place
     "format": 1,
     "run": "5f0c91aa...",                    drawn at its start; every line of rows and events hangs on it
     "files": {"config.json": {"size": 812, "sha256": "..."}, ...}}

It is written at the start, and again at the end, when it vouches for all that is there. What changes together with it
is written aside first and takes its name after: so a kill at any moment leaves the folder as it was before or as it is
after, and whoever reads it finds what the manifest vouches for under one of the two names.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from isthmus.errors import RecordError
from isthmus.records.files import BLANK, JSON_MOST, PARTIAL, hash_file, read_file, stamped, write_aside

MANIFEST = "manifest.json"
_FORMAT = 1


@dataclass(frozen=True)
class Vouched:
    """What one file must be: its size in bytes and its SHA-256 in hexadecimal."""

    size: int
    sha256: str

    @classmethod
    def of(cls, data: bytes) -> Vouched:
        """Return that of some bytes."""
        return cls(len(data), sha256(data).hexdigest())

    @classmethod
    def of_file(cls, path: Path) -> Vouched:
        """Return that of a file as it is now.

        Raises:
            OSError: it cannot be read.
        """
        return cls(*hash_file(path))

    def differs(self, found: Vouched) -> str | None:
        """Return in words how something found differs from this; None if it does not."""
        if found.size != self.size:
            return f"it has {found.size:,} bytes, {self.size:,} were written"
        return None if found.sha256 == self.sha256 else "its SHA-256 is not that of what was written"


@dataclass(frozen=True)
class Manifest:
    """What a run vouches for.

    Attributes:
        run: its own number, in hexadecimal.
        files: what each of its files must be, by name.
    """

    run: str
    files: Mapping[str, Vouched] = field(default_factory=dict)

    def text(self) -> str:
        """Return the file's content."""
        files = {name: {"size": each.size, "sha256": each.sha256} for name, each in self.files.items()}
        return stamped(
            json.dumps({"sha256": BLANK, "format": _FORMAT, "run": self.run, "files": files}, indent=2) + "\n"
        )

    @classmethod
    def read(cls, folder: Path) -> Manifest | None:
        """Return that of a run's folder; None where there is none.

        Raises:
            RecordError: it is not what was written.
        """
        try:
            return cls._of(read_file(folder / MANIFEST, JSON_MOST))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RecordError(f"cannot read {MANIFEST} ({error.strerror})") from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise RecordError(f"{MANIFEST} is torn or was changed: it is not what was written") from None

    @classmethod
    def _of(cls, data: bytes) -> Manifest:
        text = data.decode()
        said: dict[str, Any] = json.loads(text)
        files = {name: Vouched(int(each["size"]), str(each["sha256"])) for name, each in said["files"].items()}
        if stamped(text, said["sha256"]) != text or said["format"] != _FORMAT or any(Path(n).name != n for n in files):
            raise ValueError
        return cls(str(said["run"]), files)

    def read_vouched(self, folder: Path, name: str, most: int) -> bytes:
        """Return what a file holds, which must be what this vouches for.

        Raises:
            RecordError: it is missing or something else; in words that begin with its name.
        """
        fault = ""
        for path in (folder / name, folder / (name + PARTIAL)):
            try:
                data = read_file(path, most)
            except OSError as error:
                fault = fault or f"cannot read {name} ({error.strerror})"
                continue
            wrong = self.files[name].differs(Vouched.of(data))
            if wrong is None:
                return data
            fault = fault or f"{name} was changed: {wrong}"
        raise RecordError(fault)

    def fault(self, folder: Path, name: str) -> str | None:
        """Return what is wrong with a file of any size; None if nothing is."""
        try:
            wrong = self.files[name].differs(Vouched.of_file(folder / name))
        except OSError as error:
            return f"cannot read {name} ({error.strerror})"
        return None if wrong is None else f"{name} was changed: {wrong}"


def commit(folder: Path, manifest: Manifest, texts: Mapping[str, str]) -> Manifest:
    """Write some files and a manifest that vouches for them and for what it did before: all of it or nothing.

    Raises:
        OSError: the folder cannot be written.
    """
    partials = {name: write_aside(folder / name, text) for name, text in texts.items()}
    new = {name: Vouched.of(text.encode()) for name, text in texts.items()}
    after = Manifest(manifest.run, {**manifest.files, **new})
    os.replace(write_aside(folder / MANIFEST, after.text()), folder / MANIFEST)
    for name, partial in partials.items():
        os.replace(partial, folder / name)
    return after
