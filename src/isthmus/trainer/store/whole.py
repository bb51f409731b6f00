"""The merged network as people use it: scales folded in, norm statistics measured anew, evaluation mode; and saved."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from isthmus.errors import InvalidInput
from isthmus.nets import scaled
from isthmus.nets.exported import read_state
from isthmus.trainer.strategies import Merged
from isthmus.trainer.task.network import in_evaluation

SUFFIX = ".safetensors"


@contextmanager
def ready(merged: Merged, calibrate: Callable[[nn.Module], None], factor: float) -> Iterator[nn.Module]:
    """Yield the network to use: weights times scales times factor, statistics measured, in evaluation mode.

    After the block weights, buffers and modes are as before: looking must not change what is trained next.

    Args:
        merged: the network and its scales.
        calibrate: measures the statistics of norms.
        factor: for the weights whose sums no norm follows.
    """
    scales = {name: scale * factor if name in merged.open else scale for name, scale in merged.scales.items()}
    with in_evaluation(merged.model), buffers_kept(merged.model), scaled(merged.model, scales) as model:
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

    ``safetensors.torch.load_model`` reads it back into a network of the same class.

    Args:
        model: the network to use.
        path: of the file.
        metadata: what else to keep with it.

    Raises:
        InvalidInput: a folder that is not there.
        OSError: it cannot be written.
    """
    if not path.absolute().parent.is_dir():
        raise InvalidInput(f"`path` must be in a folder that exists, got {str(path)!r}")
    whole = model.state_dict()
    entries = [entry for entry in read_state(model).values() if entry.persistent]
    tensors = {entry.name: whole[entry.name].clone(memory_format=torch.contiguous_format) for entry in entries}
    tied = {alias: entry.name for entry in entries for alias in entry.aliases}
    partial = path.with_name(f"{path.name}.partial")
    try:
        save_file(tensors, partial, metadata={**tied, **(metadata or {})})
        os.replace(partial, path)
    except SafetensorError as error:
        raise OSError(f"cannot write {path}: {error}") from error
    finally:
        partial.unlink(missing_ok=True)
