"""Networks of transformers, built from small configurations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from zoo.public import Call, Experts, Public, Twin, images, tokens

VOCABULARY = 99
_DECODER: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 64, "use_cache": False, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 1,
}  # fmt: skip
_GROUPED = {**_DECODER, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 16}
_ENCODER = {k: v for k, v in _DECODER.items() if k not in ("use_cache", "bos_token_id", "eos_token_id")}


def _text(
    name: str, config: str, settings: Mapping[str, Any], twin: Twin | None = None, single: bool = False, **kwargs: Any
) -> Public:
    label = name.removesuffix("ForCausalLM").removesuffix("LMHeadModel").removesuffix("ForConditionalGeneration")
    return Public(f"hf {label}", "transformers", lambda: getattr(transformers, name)(
        getattr(transformers, config)(**settings)), tokens(VOCABULARY, **kwargs), (10, 13), twin=twin,
        single=single or twin is not None)  # fmt: skip


def _decoder(family: str, single: bool = False, **settings: Any) -> Public:
    return _text(f"{family}ForCausalLM", f"{family}Config", _DECODER | settings, single=single, use_cache=False)


def _grouped(family: str, **settings: Any) -> Public:
    return _text(f"{family}ForCausalLM", f"{family}Config", _GROUPED | settings, use_cache=False)


def _encoder(family: str, head: str = "ForMaskedLM", **settings: Any) -> Public:
    return _text(f"{family}{head}", f"{family}Config", _ENCODER | settings)


def _experts(family: str, count: str, **settings: Any) -> Public:
    """A mixture of experts; its twin is made with fewer."""
    config, name = f"{family}Config", f"{family}ForCausalLM"
    settings = _GROUPED | settings | {count: 8}

    def twin(model: nn.Module, held: Experts) -> tuple[nn.Module, Mapping[str, str]]:
        fewer = getattr(transformers, name)(getattr(transformers, config)(**(settings | {count: len(held(""))})))
        return _filled(fewer, model, held)

    return _text(name, config, settings, twin, use_cache=False)


def _switch() -> Public:
    settings = {
        "vocab_size": VOCABULARY, "d_model": 64, "d_kv": 16, "d_ff": 128, "num_heads": 4, "num_layers": 2,
        "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1, "num_decoder_layers": 2, "num_experts": 8,
        "use_cache": False, "expert_capacity": 64,
    }  # fmt: skip

    def build(count: int) -> nn.Module:
        config = transformers.SwitchTransformersConfig(**(settings | {"num_experts": count}))
        return transformers.SwitchTransformersForConditionalGeneration(config)

    def twin(model: nn.Module, held: Experts) -> tuple[nn.Module, Mapping[str, str]]:
        return _filled(build(len(held(""))), model, held)

    return Public("hf SwitchTransformers", "transformers", lambda: build(8), _pair_and_mask, (10, 13), twin=twin,
                  single=True)  # fmt: skip


def _filled(fewer: nn.Module, model: nn.Module, held: Experts) -> tuple[nn.Module, Mapping[str, str]]:
    """Give a network with fewer experts the numbers of those, and return what they are called in the whole."""
    whole = dict([*model.named_parameters(), *model.named_buffers()])
    names: dict[str, str] = {}
    with torch.no_grad():
        for name, tensor in [*fewer.named_parameters(), *fewer.named_buffers()]:
            parts, units = name.split("."), held(name)
            for i, part in enumerate(parts):
                if part.startswith("expert_"):
                    parts[i] = f"expert_{units[int(part.removeprefix('expert_'))]}"
                elif part.isdigit() and i and parts[i - 1] == "experts":
                    parts[i] = str(units[int(part)])
            names[name] = ".".join(parts)
            source = whole[names[name]].detach()
            for dim, (mine, theirs) in enumerate(zip(tensor.shape, source.shape, strict=True)):
                if mine != theirs:
                    source = source.index_select(dim, torch.as_tensor(list(units)))
            tensor.data = source.clone().to(tensor.dtype)
    return fewer, names


def _pair(batch: int, size: int) -> Call:
    """Tokens for an encoder and a decoder."""
    kwargs = {"input_ids": torch.randint(2, VOCABULARY, (batch, size)), "use_cache": False}
    return (), kwargs | {"decoder_input_ids": torch.randint(2, VOCABULARY, (batch, size - 2))}


def _pair_and_mask(batch: int, size: int) -> Call:
    """The same, with the mask that the encoder of Switch makes by itself only where it is not traced."""
    args, kwargs = _pair(batch, size)
    return args, kwargs | {"attention_mask": torch.ones(batch, size, dtype=torch.long)}


def _masked(batch: int, size: int) -> Call:
    """Tokens, some of them padding."""
    mask = torch.ones(batch, size, dtype=torch.long)
    mask[0, -3:] = 0
    return (torch.randint(2, VOCABULARY, (batch, size)),), {"attention_mask": mask}


def _public(
    name: str, build: Callable[[], nn.Module], call: Callable[[int, int], Call], sizes: tuple[int, int]
) -> Public:
    return Public(f"hf {name}", "transformers", build, call, sizes)


def _made(name: str, config: str, **settings: Any) -> Callable[[], nn.Module]:
    return lambda: getattr(transformers, name)(getattr(transformers, config)(**settings))


class _Pixels(nn.Module):
    """Takes images as its first argument."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Any:
        """Return what the model does."""
        return self.model(pixel_values=images)


def _image(name: str, model: str, config: str, sizes: tuple[int, int], **settings: Any) -> Public:
    return _public(name, lambda: _Pixels(_made(model, config, **settings)()), images(), sizes)


def _features(batch: int, size: int) -> Call:
    kwargs = {"input_features": torch.randn(batch, 16, 2 * size), "use_cache": False}
    return (), kwargs | {"decoder_input_ids": torch.randint(2, VOCABULARY, (batch, 7))}


def _waves(batch: int, size: int) -> Call:
    return (torch.randn(batch, 100 * size),), {}


_SEQ = {
    "vocab_size": VOCABULARY, "d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128, "max_position_embeddings": 64,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1, "decoder_start_token_id": 1, "use_cache": False,
}  # fmt: skip
# As published, in their proportions: an eighth of the base size; of OLMo 2 (7B) a thirty-second, and a quarter of its
# layers and words; MobileBERT a quarter, and half of its layers and words. SegFormer and PoolFormer are whole.
_BASE = {"hidden_size": 96, "num_attention_heads": 12, "intermediate_size": 384, "num_hidden_layers": 12}
_OLMO = {"hidden_size": 128, "num_attention_heads": 32, "num_key_value_heads": 32, "intermediate_size": 344,
         "num_hidden_layers": 8, "vocab_size": 393}  # fmt: skip
_IMAGE = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
_CONV = {"hidden_sizes": [16, 32, 64, 64], "depths": [1, 1, 1, 1]}

NETWORKS = (
    _decoder("GPTNeoX"),
    _decoder("GPTJ", n_embd=64, n_layer=2, n_head=4, rotary_dim=8, n_positions=64),
    _decoder("OPT", ffn_dim=128, word_embed_proj_dim=64),
    _decoder("Bloom", n_head=4, n_layer=2),
    _decoder("Mpt", d_model=64, n_heads=4, n_layers=2, max_seq_len=64),
    _decoder("Falcon", num_kv_heads=4, new_decoder_architecture=True),
    _decoder("Phi"),
    _decoder("Persimmon"),
    _decoder("StableLm", num_key_value_heads=4),
    _decoder("XGLM", True, d_model=64, num_layers=2, attention_heads=4, ffn_dim=128),
    _decoder("CodeGen", n_embd=64, n_layer=2, n_head=4, rotary_dim=8, n_positions=64),
    _decoder("GPTBigCode", n_embd=64, n_layer=2, n_head=4, n_positions=64),
    _decoder("GPTNeo", num_layers=2, num_heads=4, attention_types=[[["global", "local"], 1]], window_size=4),
    _grouped("Mistral", sliding_window=6),
    _grouped("Qwen2"),
    _grouped("Qwen3"),
    _grouped("Gemma"),
    _grouped("Gemma2", query_pre_attn_scalar=16, sliding_window=6),
    _grouped("Phi3"),
    _grouped("Cohere"),
    _grouped("Granite"),
    _decoder("Olmo2", **_OLMO),
    _grouped("Nemotron"),
    _grouped("Starcoder2"),
    _grouped("SmolLM3"),
    _grouped("Helium", head_dim=8),
    _grouped("Glm"),
    _experts("Qwen2Moe", "num_experts", num_experts_per_tok=2, moe_intermediate_size=32, decoder_sparse_step=1,
             shared_expert_intermediate_size=32),
    _experts("Qwen3Moe", "num_experts", num_experts_per_tok=2, moe_intermediate_size=32, decoder_sparse_step=1),
    _experts("DeepseekV3", "n_routed_experts", num_experts_per_tok=2, moe_intermediate_size=32, n_group=1, topk_group=1,
             first_k_dense_replace=1, q_lora_rank=32, kv_lora_rank=16, qk_rope_head_dim=8, qk_nope_head_dim=8,
             v_head_dim=16, num_key_value_heads=8, head_dim=8),
    _experts("Olmoe", "num_experts", num_experts_per_tok=2, head_dim=8),
    _experts("GraniteMoe", "num_local_experts", num_experts_per_tok=2),
    _experts("GptOss", "num_local_experts", num_experts_per_tok=2, sliding_window=6,
             rope_parameters={"rope_type": "default", "rope_theta": 10000.0}),
    _switch(),
    _encoder("Roberta"),
    _encoder("Albert", embedding_size=32),
    _encoder("Electra", embedding_size=32),
    _encoder("DistilBert", dim=64, n_layers=2, n_heads=4, hidden_dim=128),
    _encoder("MPNet", **_BASE, vocab_size=3816),
    _encoder("DebertaV2", pos_att_type=["p2c", "c2p"], relative_attention=True, type_vocab_size=0),
    _encoder("FNet", **_BASE, vocab_size=4000, tpu_short_seq_length=10),
    _encoder("Nystromformer", segment_means_seq_len=10, num_landmarks=2),
    _encoder("ConvBert", embedding_size=32, conv_kernel_size=3, head_ratio=2, num_groups=1),
    _encoder("SqueezeBert", **_BASE, vocab_size=3815, embedding_size=96),
    _encoder("MobileBert", vocab_size=3815, hidden_size=128, embedding_size=32, intra_bottleneck_size=32,
             intermediate_size=128, num_hidden_layers=12),
    _encoder("ModernBert", global_attn_every_n_layers=2, local_attention=6, cls_token_id=1, sep_token_id=1),
    _encoder("RoFormer", embedding_size=64),
    _public("XLNet", _made("XLNetLMHeadModel", "XLNetConfig", vocab_size=VOCABULARY, d_model=64, n_layer=2, n_head=4,
            d_inner=128, use_mems_train=False, use_mems_eval=False), tokens(VOCABULARY), (10, 13)),
    _encoder("Mamba", "ForCausalLM", state_size=8, use_cache=False, use_mambapy=False),
    _public("Bart", _made("BartForConditionalGeneration", "BartConfig", **_SEQ), _pair, (10, 13)),
    _public("Pegasus", _made("PegasusForConditionalGeneration", "PegasusConfig", **_SEQ), _pair, (10, 13)),
    _public("Whisper", _made("WhisperForConditionalGeneration", "WhisperConfig", **(_SEQ | {
        "num_mel_bins": 16, "max_source_positions": 12, "max_target_positions": 16})), _features, (12, 12)),
    _public("Hubert", _made("HubertForCTC", "HubertConfig", vocab_size=32, hidden_size=64, num_hidden_layers=2,
            num_attention_heads=4, intermediate_size=128, conv_dim=(32, 32), conv_stride=(5, 2), conv_kernel=(10, 3),
            num_feat_extract_layers=2, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4,
            apply_spec_augment=False, layerdrop=0.0), _waves, (10, 12)),
    _image("Dinov2", "Dinov2Model", "Dinov2Config", (28, 28), image_size=28, patch_size=7, num_hidden_layers=2,
           hidden_size=64, num_attention_heads=4, mlp_ratio=2),
    _image("Swin", "SwinForImageClassification", "SwinConfig", (32, 32), image_size=32, patch_size=4, embed_dim=32,
           depths=[2, 2], num_heads=[4, 4], window_size=4),
    _image("SegFormer", "SegformerForSemanticSegmentation", "SegformerConfig", (64, 96)),
    _image("ConvNext", "ConvNextForImageClassification", "ConvNextConfig", (64, 96), **_CONV),
    _image("ResNet", "ResNetForImageClassification", "ResNetConfig", (64, 96), embedding_size=16, **_CONV),
    _image("CLIP vision", "CLIPVisionModel", "CLIPVisionConfig", (32, 32), image_size=32, patch_size=8, **_IMAGE),
    _image("SigLIP vision", "SiglipVisionModel", "SiglipVisionConfig", (32, 32), image_size=32, patch_size=8, **_IMAGE),
    _image("YOLOS", "YolosModel", "YolosConfig", (32, 32), image_size=[32, 32], patch_size=8, num_detection_tokens=4,
           **_IMAGE),
    _image("PoolFormer", "PoolFormerForImageClassification", "PoolFormerConfig", (64, 96)),
    _public("Bert, padded", _made("BertModel", "BertConfig", **_ENCODER), _masked, (10, 13)),
)
