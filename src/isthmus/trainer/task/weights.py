"""Initial values from safetensors files, read slice by slice: a network that fits no worker can start from them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from isthmus.errors import DataError, InvalidInput
from isthmus.nets.graph.state import StateEntry
from isthmus.trainer.task.initial import Initial, whole

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
AT_ONCE = 1 << 22  # bytes that are read at a time
_TYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


class Weights:
    """The tensors of one safetensors file, or of several with an index; none of them is held.

    Attributes:
        path: as it was given.
        tensors: file, type and shape of every tensor, by name.
    """

    def __init__(self, path: str | Path) -> None:
        """Read what is there, not the values.

        Args:
            path: of a file, of an index (JSON, as Hugging Face writes it), or of a folder with either.

        Raises:
            DataError: a file that is missing or damaged.
        """
        self.path = Path(path)
        self.tensors: dict[str, tuple[Path, torch.dtype, tuple[int, ...]]] = {}
        for file, names in _files(self.path):
            with _opened(file) as opened:
                held = set(opened.keys())
                for name in sorted(held) if names is None else names:
                    if name not in held:
                        raise DataError(f"{file} lacks {name!r}, which its index {self.path} says it has")
                    part = opened.get_slice(name)
                    if part.get_dtype() not in _TYPES:
                        raise DataError(f"{file}: {name!r} has numbers of type {part.get_dtype()}, which is not known")
                    self.tensors[name] = file, _TYPES[part.get_dtype()], tuple(part.get_shape())

    @property
    def identity(self) -> str:
        """A digest of the names, types and shapes."""
        said = [[name, str(dtype), shape] for name, (_, dtype, shape) in sorted(self.tensors.items())]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Return rows start .. stop of a tensor; the file is not kept in memory."""
        file, dtype, shape = self.tensors[name]
        if not shape:
            with _opened(file) as opened:
                scalar: Tensor = opened.get_tensor(name).clone()
                return scalar
        result = torch.empty((stop - start, *shape[1:]), dtype=dtype)
        step = max(1, AT_ONCE // max(1, dtype.itemsize * result[:1].numel()))
        for low in range(start, stop, step):
            high = min(low + step, stop)
            with _opened(file) as opened:  # anew: what was read of a file stays in memory while it is open
                result[low - start : high - start] = opened.get_slice(name)[low:high]
        return result


class FromFile:
    """The values of a network that a file has; those of what no file holds come from where they came without it."""

    def __init__(
        self, weights: Weights, entries: Mapping[str, StateEntry], below: Callable[[], Initial], called: str = "`init`"
    ) -> None:
        """Match what is in the file with the network.

        Args:
            weights: the file.
            entries: of the network.
            below: returns where other values come from: buffers that are not persistent, plain attributes.
            called: what messages call the file.

        Raises:
            InvalidInput: tensors that are missing, unexpected, or of another shape or kind.
        """
        self._weights, self._below = weights, below
        self._keys = _matched(weights, entries, called)
        self._names = {alias: entry for entry in entries.values() for alias in (entry.name, *entry.aliases)}
        rounded = []
        for name, key in self._keys.items():
            entry, (file, dtype, shape) = entries[name], weights.tensors[key]
            if shape != entry.shape:
                raise InvalidInput(f"{called}: {key!r} in {file} has shape {shape}, the network's {entry.shape}")
            exact = torch.promote_types(dtype, entry.dtype) == entry.dtype
            if dtype.is_floating_point != entry.dtype.is_floating_point or not (exact or dtype.is_floating_point):
                raise InvalidInput(f"{called}: {key!r} in {file} holds {_plain(dtype)}, not {_plain(entry.dtype)}")
            if not exact:
                rounded.append((dtype, entry.dtype))
        self._rounding = ""
        if rounded:
            of, to = rounded[0]
            self._rounding = (
                f"{called}: {weights.path} holds {_plain(of)}, rounded to the network's {_plain(to)} "
                f"({len(rounded)} of {len(self._keys)} tensors)"
            )
        self._rest = any(not entry.persistent for entry in entries.values())

    @property
    def in_turn(self) -> bool:
        """Whether something that no file holds has to be built."""
        return self._rest and self._other.in_turn

    @property
    def note(self) -> str:
        """What is lost, or has to be built."""
        return "; ".join(filter(None, (self._rounding, self._other.note if self._rest else "")))

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Return some rows of a tensor."""
        entry = self._names.get(name)
        if entry is None or entry.name not in self._keys:
            return self._other.rows(name, start, stop)
        return self._weights.rows(self._keys[entry.name], start, stop).to(entry.dtype)

    def drop(self) -> None:
        """Let go of what had to be built."""
        if "_other" in vars(self):
            self._other.drop()

    def mark(self) -> str:
        """Return that of what is not in the file; the file's own checksum is compared with the settings."""
        return self._other.mark() if self._rest else ""

    def load(self, network: nn.Module) -> nn.Module:
        """Overwrite the values of a network by those of the file, a tensor at a time; return it."""
        tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
        with torch.no_grad():
            for name in self._keys:
                tensors[name].copy_(whole(self, name, tensors[name]))
        return network

    @cached_property
    def _other(self) -> Initial:
        return self._below()


def _files(path: Path) -> list[tuple[Path, Sequence[str] | None]]:
    """Return the files, each with the names it is asked for; None for all."""
    if path.is_dir():
        found = [path / name for name in (INDEX, SINGLE) if (path / name).is_file()]
        if not found:
            raise DataError(f"{path} has neither {INDEX} nor {SINGLE}")
        path = found[0]
    if path.suffix != ".json":
        return [(path, None)]
    try:
        mapped = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        files: dict[str, list[str]] = {}
        for name, file in mapped.items():
            files.setdefault(str(file), []).append(str(name))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f'{path} is no index of safetensors files: it must hold {{"weight_map": {{...}}}}') from error
    return [(path.parent / file, names) for file, names in sorted(files.items())]


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    try:
        with safe_open(str(file), framework="pt", device="cpu") as opened:
            yield opened
    except (OSError, SafetensorError) as error:
        said = "no such file" if isinstance(error, FileNotFoundError) else " ".join(str(error).split())
        raise DataError(f"cannot read {file}: {said}") from error


def _matched(weights: Weights, entries: Mapping[str, StateEntry], called: str) -> dict[str, str]:
    """Return for every persistent tensor of the network its name in the file."""
    wanted = {name: (name, *entry.aliases) for name, entry in entries.items() if entry.persistent}
    passing = {alias for name, entry in entries.items() if not entry.persistent for alias in (name, *entry.aliases)}
    held = set(weights.tensors)
    # a model with a head names its base's tensors after it (model.layers.0), the base alone does not (layers.0)
    firsts = sorted({name.partition(".")[0] + "." for name in (*entries, *held) if "." in name})
    ways: list[Callable[[str], str]] = [lambda name: name]
    for first in firsts:
        ways += [lambda name, p=first: p + name, lambda name, p=first: name.removeprefix(p)]  # type: ignore[misc]
    best: tuple[int, dict[str, str], set[str]] | None = None
    for way in ways:
        found = {n: next((way(a) for a in names if way(a) in held), None) for n, names in wanted.items()}
        keys = {name: key for name, key in found.items() if key is not None}
        known = {way(alias) for names in wanted.values() for alias in names} | {way(name) for name in passing}
        if best is None or len(keys) > best[0]:
            best = len(keys), keys, held - known
    assert best is not None
    _, keys, unexpected = best
    missing = [name for name in wanted if name not in keys]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InvalidInput(f"{called}: {weights.path} lacks {missing[0]!r}{more}, which the network has")
    if unexpected:
        more = f" and {len(unexpected) - 1} more" if len(unexpected) > 1 else ""
        raise InvalidInput(f"{called}: {weights.path} has {min(unexpected)!r}{more}, which the network lacks")
    return keys


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
