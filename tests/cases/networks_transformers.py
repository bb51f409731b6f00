"""Networks of the ``transformers`` package, built from small configurations with random weights; nothing is fetched."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cases.networks import Network, tokens


def _bert() -> nn.Module:
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=11, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24,
        max_position_embeddings=16,
    )  # fmt: skip
    return BertModel(config)


def _gpt2() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(vocab_size=11, n_embd=16, n_layer=2, n_head=4, n_positions=16, use_cache=False))


def _llama() -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=11, hidden_size=16, num_hidden_layers=2, num_attention_heads=8, num_key_value_heads=4,
        intermediate_size=24, max_position_embeddings=16, use_cache=False,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def _vit() -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24, image_size=8, patch_size=4,
        num_labels=5,
    )  # fmt: skip
    return ViTForImageClassification(config)


def _t5() -> nn.Module:
    from transformers import T5Config, T5Model

    config = T5Config(
        vocab_size=11, d_model=16, d_kv=4, d_ff=24, num_layers=2, num_heads=4, use_cache=False,
        relative_attention_num_buckets=8,
    )  # fmt: skip
    return T5Model(config)


def _images(batch: int) -> tuple[Tensor, ...]:
    return (torch.randn(batch, 3, 8, 8),)


class ByKeyword(nn.Module):
    """Calls a two-stream model by keyword and returns its last hidden state."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        return self.inner(input_ids=source, decoder_input_ids=target).last_hidden_state


HEADS = ("head", "ffn")
TRANSFORMERS = [
    Network("transformers bert", _bert, tokens(), kinds=HEADS),
    Network("transformers gpt2", _gpt2, tokens(), kinds=HEADS),
    Network("transformers llama", _llama, tokens(), kinds=HEADS),
    Network("transformers vit", _vit, _images, kinds=HEADS),
    Network("transformers t5", lambda: ByKeyword(_t5()), tokens(count=2), kinds=HEADS),
]
"""BERT, GPT-2, Llama, ViT and T5 as others write them."""
