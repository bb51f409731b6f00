"""Where runs are: a folder is claimed for one, an earlier run in it is removed, runs are found below a folder."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from isthmus.errors import InvalidInput, RecordError
from isthmus.records import lock
from isthmus.records.files import PARTIAL
from isthmus.records.lock import Lock
from isthmus.records.manifest import MANIFEST, Manifest
from isthmus.records.reader import CONFIG, ENVIRONMENT, EVENTS, MODEL, ROWS, SUMMARY, is_run

_log = logging.getLogger("isthmus")
_Tree = Mapping[str, "_Tree | None"]

# All that isthmus writes into a run's folder, and in its folders; pictures are told by the run's manifest.
_CHECKPOINT: _Tree = {"checkpoint.json": None, "shard-*.safetensors": None}
_OURS: _Tree = {
    **dict.fromkeys((CONFIG, ENVIRONMENT, ROWS, EVENTS, SUMMARY, MANIFEST, MODEL, "live.json")),
    "events.out.tfevents.*": None,
    "checkpoints": {"checkpoint-*": _CHECKPOINT},
}


def claim(path: Path, replace: bool) -> Lock:
    """Make a folder ready for a new run, and lock it.

    Args:
        path: the folder.
        replace: remove an earlier run in it.

    Raises:
        RecordError: it is taken, or another process writes it, or it cannot be written.
    """
    try:
        try:
            _check_free(path, replace)
        except (RecordError, OSError):
            lock.check_unlocked(path)  # another run may be on its way in, and remove what was there
            raise
        path.mkdir(parents=True, exist_ok=True)
        held = Lock(path)
        try:
            _check_free(path, replace)  # again: another run may have come and gone meanwhile
            _clear(path)
        except BaseException:
            held.release()
            raise
    except OSError as error:
        raise RecordError(f"cannot write {path}: {error.strerror}") from error
    return held


def fresh_folder(name: str) -> Path:
    """Return ``runs/NAME``, or ``runs/NAME-2``, ``runs/NAME-3``, ... : the first that is not there yet."""
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    return next(folder for folder in (Path("runs") / name for name in names) if not folder.exists())


def find_runs(paths: Sequence[str | Path]) -> list[Path]:
    """Return the run folders among ``paths``; a folder that is no run stands for all runs below it.

    A run that has lost its rows or its configuration is still found, by what is left.

    Raises:
        InvalidInput: no path at all.
        RecordError: a path that is neither a run nor holds one.
    """
    if not paths:
        raise InvalidInput("no runs given: name one or more run folders, such as runs/first")
    found: list[Path] = []
    for path in map(Path, paths):
        below = [path] if (path / CONFIG).exists() or _has_manifest(path) else _below(path)
        if not below:
            raise RecordError(f"{path} is not a run of isthmus and holds none (no config.json in it)")
        found += below
    return list({path.resolve(): path for path in found}.values())


def _below(path: Path) -> list[Path]:
    rows = {file.parent for file in path.rglob(ROWS)}
    others = {file.parent for file in path.rglob(MANIFEST) if _has_manifest(file.parent)}
    return sorted(rows | others | {file.parent for file in path.rglob(CONFIG) if is_run(file.parent)})


def _has_manifest(folder: Path) -> bool:
    try:
        return Manifest.read(folder) is not None
    except RecordError:
        return False


def _check_free(path: Path, replace: bool) -> None:
    there = {entry.name for entry in path.iterdir()} if path.is_dir() else set()
    if not {name for name in there if name != lock.NAME and not name.endswith(PARTIAL)}:
        return  # nothing, or what a kill has left of a start
    if not is_run(path) and not _has_manifest(path):
        raise RecordError(f"{path} exists and is not a run of isthmus: choose another folder")
    if not replace:
        raise RecordError(
            f"{path} already holds a run: choose another folder, or add --replace to replace it "
            "(in Python: replace=True)"
        )


def _clear(path: Path) -> None:
    """Remove an earlier run; what isthmus did not write stays, and is named."""
    try:
        manifest = Manifest.read(path)
    except RecordError:
        manifest = None
    pictures = {} if manifest is None else dict.fromkeys(manifest.files)
    left = list(_remove(path, {**_OURS, **pictures, lock.NAME: None}, keep=(lock.NAME,)))
    if left:
        named = ", ".join(str(each.relative_to(path)) for each in left)
        _log.warning("isthmus: what isthmus did not write stays in %s: %s", path, named)


def _remove(folder: Path, ours: _Tree, keep: Sequence[str] = ()) -> Iterator[Path]:
    """Remove what is ours in a folder; yield what is not."""
    for path in sorted(folder.iterdir()):
        name = path.name.removesuffix(PARTIAL)
        match = next((pattern for pattern in ours if fnmatchcase(name, pattern)), None)
        inner = None if match is None else ours[match]
        is_folder = path.is_dir() and not path.is_symlink()
        if match is None or is_folder != (inner is not None):
            yield path
        elif inner is not None:
            left = list(_remove(path, inner))
            yield from left
            if not left:
                path.rmdir()
        elif path.name not in keep:
            path.unlink()
