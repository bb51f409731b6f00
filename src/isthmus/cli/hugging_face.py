"""A network and an example call from a Hugging Face config: nothing is downloaded, none of its code is run, and no
weight is made."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isthmus.errors import InvalidInput

Call = tuple[Any, tuple[Any, ...], Mapping[str, Any]]  # network, args, kwargs
_SAMPLES, _TOKENS, _COLOURS, _SIDE = 2, 8, 3, 224  # of the example, where the config does not say


def is_config_class(value: Any) -> bool:
    """Whether something is a class of configs; transformers is not loaded to find out."""
    transformers = sys.modules.get("transformers")
    return transformers is not None and isinstance(value, type) and issubclass(value, transformers.PreTrainedConfig)


def is_config_file(target: str) -> bool:
    """Whether a text names a config.json, or a folder, rather than a function."""
    return target.endswith(".json") or (bool(target) and Path(target).is_dir())


def from_file(target: str, device: str) -> Call:
    """Return the network that a config.json describes, of the class it names, and an example call.

    Args:
        target: the file, or a folder with it.
        device: where it is made; on "meta" it has no weights.

    Raises:
        InvalidInput: no such file, none of transformers', or a network whose inputs cannot be told.
    """
    try:
        import transformers
    except ImportError as error:
        raise InvalidInput(f"`target` {target!r} needs transformers: pip install transformers") from error
    path = Path(target)
    path = path / "config.json" if path.is_dir() else path
    if not path.is_file():
        raise InvalidInput(f"`target` must be a config.json, a folder with one, or MODULE:FACTORY: no file {path}")
    try:
        config = transformers.AutoConfig.from_pretrained(str(path), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # of the checks that each kind of config makes
        said = str(error).strip().split("\n")[0]
        raise InvalidInput(f"`target` {path} is no config that transformers knows: {said}") from error
    return from_config(config, f"`target` {str(path)!r}", device)


def from_config(config: Any, called: str, device: str) -> Call:
    """Return the network of a config, with first weights, and an example call.

    Args:
        config: as transformers has it; the class that it names, or the bare model.
        called: what messages call it.
        device: where it is made; on "meta" it has no weights.

    Raises:
        InvalidInput: it cannot be made, or its inputs cannot be told.
    """
    import torch
    import transformers

    named = (getattr(transformers, name, None) for name in config.architectures or ())
    networks = (each for each in named if isinstance(each, type) and issubclass(each, transformers.PreTrainedModel))
    kind = next(networks, None)  # a file may name anything: nothing else of the library is called
    config.use_cache = False  # a cache is no result of the network
    try:
        with torch.device(device):
            model = transformers.AutoModel.from_config(config) if kind is None else kind(config)
    except Exception as error:
        said = " ".join(str(error).split())
        raise InvalidInput(f"{called} cannot be made: {type(error).__name__}: {said}") from error
    return model, (), _inputs(config, model.main_input_name, called, device)


def _inputs(config: Any, main: str, called: str, device: str) -> dict[str, Any]:
    import torch

    vision = getattr(config, "vision_config", config)
    inputs: dict[str, Any] = {}
    tokens = torch.zeros(_SAMPLES, _TOKENS, dtype=torch.int64, device=device)
    if main == "input_ids":
        inputs["input_ids"] = tokens
    if main == "pixel_values" or hasattr(config, "vision_config"):
        size = getattr(vision, "image_size", _SIDE)
        sides = (size, size) if isinstance(size, int) else tuple(size)
        inputs["pixel_values"] = torch.zeros(_SAMPLES, getattr(vision, "num_channels", _COLOURS), *sides, device=device)
    if main == "input_features" and hasattr(config, "num_mel_bins") and hasattr(config, "max_source_positions"):
        shape = (_SAMPLES, config.num_mel_bins, 2 * config.max_source_positions)  # convolved to half the length
        inputs["input_features"] = torch.zeros(shape, device=device)
    if not inputs:
        raise InvalidInput(f"{called}: its network takes `{main}`; write a function that returns (network, args)")
    if config.is_encoder_decoder:
        inputs["decoder_input_ids"] = tokens.clone()
    return inputs
