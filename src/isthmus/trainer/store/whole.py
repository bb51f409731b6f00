"""The merged network as people use it: scales folded in, norm statistics measured anew, evaluation mode; and saved."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from isthmus.errors import InvalidInput
from isthmus.nets import scaled
from isthmus.nets.graph.state import read_state
from isthmus.nets.pieces.pattern import Pattern
from isthmus.nets.pieces.subnetwork import named_state
from isthmus.trainer.store.away import in_rows
from isthmus.trainer.store.tensorfile import TensorReader, TensorWriter
from isthmus.trainer.task.network import in_evaluation
from isthmus.trainer.wire.layout import digest_of_parts

SUFFIX = ".safetensors"


@contextmanager
def ready(
    model: nn.Module, scales: Mapping[str, Pattern], calibrate: Callable[[nn.Module], None]
) -> Iterator[nn.Module]:
    """Yield a network to use: weights times scales, statistics measured, in evaluation mode.

    After the block weights, buffers and modes are as before: looking must not change what is trained next.

    Args:
        model: the network, which is changed inside the block.
        scales: what parameters are multiplied by.
        calibrate: measures the statistics of norms.
    """
    with in_evaluation(model), buffers_kept(model), scaled(model, scales):
        calibrate(model)
        yield model.eval()


@contextmanager
def buffers_kept(model: nn.Module) -> Iterator[None]:
    """Put back, after the block, the buffers and what they held: a forward may write to them, or assign others."""
    before = [
        (module, name, buffer, buffer.detach().clone())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for module, name, buffer, held in before:
                buffer.copy_(held)
                setattr(module, name, buffer)


def check_path(path: str | Path) -> Path:
    """Return where to save.

    Raises:
        InvalidInput: another suffix.
    """
    target = Path(path)
    if target.suffix != SUFFIX:
        raise InvalidInput(f"`path` must end in {SUFFIX}, got {str(path)!r}")
    return target


def save(model: nn.Module, path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write the network's persistent tensors, tied ones once; whole or not at all.

    What is away comes a few rows at a time. ``safetensors.torch.load_model`` reads the file into a network of the same
    class, and ``from_pretrained`` into one of Hugging Face.

    Args:
        model: the network to use.
        path: of the file.
        metadata: what else to keep with it.

    Raises:
        InvalidInput: a folder that is not there, or numbers of a type that safetensors does not know.
        OSError: it cannot be written.
    """
    if not path.absolute().parent.is_dir():
        raise InvalidInput(f"`path` must be in a folder that exists, got {str(path)!r}")
    entries = [entry for entry in read_state(model).values() if entry.persistent]
    tied = {alias: entry.name for entry in entries for alias in entry.aliases}
    tensors = dict(named_state(model))
    outline = {entry.name: (entry.shape, entry.dtype) for entry in entries}
    with TensorWriter(path, outline, {"format": "pt", **tied, **(metadata or {})}) as file:
        for name in file.names:
            for rows in in_rows(tensors[name]):
                file.write(name, rows)


def saved_digest(path: Path, parameters: Iterable[str]) -> str:
    """Return the digest of a network's parameters as a file has them, read back a block at a time.

    Args:
        path: of a file that :func:`save` wrote.
        parameters: their names, tied ones once.

    Raises:
        DataError: the file is not whole.
    """
    reader = TensorReader(path)

    def blocks(name: str) -> Iterator[Tensor]:  # of tied ones the file has one, and the names of the others
        return reader.blocks(name if name in reader.outline else reader.metadata[name])

    return digest_of_parts(parameters, blocks)
