"""More networks of the ``transformers`` package, built from small configurations; nothing is fetched."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cases.networks import Network, tokens

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24}
TEXT = {**SIZES, "vocab_size": 11, "max_position_embeddings": 16}


class Named(nn.Module):
    """Calls a model of the package by keywords."""

    def __init__(self, model: str, config: str, keys: tuple[str, ...], **sizes: Any) -> None:
        super().__init__()
        import transformers

        self.inner, self.keys = getattr(transformers, model)(getattr(transformers, config)(**sizes)), keys

    def forward(self, *tensors: Tensor) -> Any:
        return self.inner(**dict(zip(self.keys, tensors, strict=True)))


def mixtral() -> nn.Module:
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2, "num_key_value_heads": 2, "use_cache": False}
    return Named("MixtralForCausalLM", "MixtralConfig", ("input_ids",), **experts, **TEXT)


def wav2vec() -> nn.Module:
    convolutions = {"conv_dim": (8, 8), "conv_stride": (2, 2), "conv_kernel": (3, 3), "num_feat_extract_layers": 2}
    rest = {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2, "apply_spec_augment": False}
    sizes = {**SIZES, **convolutions, **rest, "vocab_size": 11, "layerdrop": 0.0}
    return Named("Wav2Vec2Model", "Wav2Vec2Config", ("input_values",), **sizes)


def _sound(batch: int) -> tuple[Tensor, ...]:
    return (torch.randn(batch, 40),)


UNSEEN_TRANSFORMERS = [
    Network("transformers mixtral", mixtral, tokens(), kinds=("head",)),
    Network("transformers wav2vec2", wav2vec, _sound, kinds=("channel", "head", "ffn")),
]
"""Sparse experts (which stay whole), weight-normed convolutions."""
