"""Small models of many architectures, with random weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import transformers

__all__ = ["EACH_COMMIT", "NAMES", "make"]

_TEXT = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
         "num_attention_heads": 4, "max_position_embeddings": 64}  # fmt: skip
_TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_LLAMA = {**_TEXT, **_TOKENS, "num_key_value_heads": 2}


def _ids(width: int = 9) -> dict[str, Any]:
    ids = torch.arange(2 * width).reshape(2, width) * 7 % 90 + 3
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _images(size: int = 16) -> dict[str, Any]:
    return {"pixel_values": torch.linspace(-1, 1, 2 * 3 * size * size).reshape(2, 3, size, size)}


def _causal(config: str, **options: Any) -> tuple[Any, dict[str, Any], bool]:
    kind = getattr(transformers, config)
    dtype = options.pop("dtype", torch.float32)
    return transformers.AutoModelForCausalLM.from_config(kind(**options), dtype=dtype), _ids(), True


def _base(config: str, inputs: dict[str, Any] | None = None, **options: Any) -> Any:
    kind = getattr(transformers, config)
    attention = options.pop("attn_implementation", None)
    extra = {} if attention is None else {"attn_implementation": attention}
    model = transformers.AutoModel.from_config(kind(**options), **extra)
    return model, _ids() if inputs is None else inputs, False


_BERT = {**_TEXT, "type_vocab_size": 2}
_MOE = {"num_local_experts": 4, "num_experts_per_tok": 2}
_MAKERS: dict[str, Any] = {
    "bert": lambda: _base("BertConfig", **_BERT),
    "bert-eager": lambda: _base("BertConfig", attn_implementation="eager", **_BERT),
    "bert-tied": lambda: (
        transformers.BertForMaskedLM(transformers.BertConfig(**_BERT)), _ids(), False,
    ),
    "gpt2": lambda: _causal("GPT2Config", vocab_size=97, n_embd=32, n_layer=2, n_head=4,
                            n_positions=64, **_TOKENS),
    "llama": lambda: _causal("LlamaConfig", **_LLAMA),
    "llama-bf16-dynamic": lambda: _causal(
        "LlamaConfig", dtype=torch.bfloat16,
        rope_scaling={"rope_type": "dynamic", "factor": 2.0}, **_LLAMA),
    "llama-fp16-tied": lambda: _causal(
        "LlamaConfig", dtype=torch.float16, tie_word_embeddings=True, **_LLAMA),
    "llama3-rope": lambda: _causal("LlamaConfig", rope_scaling={
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32}, **_LLAMA),
    "qwen2": lambda: _causal("Qwen2Config", **_LLAMA),
    "qwen3": lambda: _causal("Qwen3Config", head_dim=8, **_LLAMA),
    "mistral": lambda: _causal("MistralConfig", sliding_window=8, **_LLAMA),
    "mixtral": lambda: _causal("MixtralConfig", **_MOE, **_LLAMA),
    "gemma": lambda: _causal("GemmaConfig", head_dim=8, **_LLAMA),
    "gemma2": lambda: _causal("Gemma2Config", head_dim=8, **_LLAMA),
    "gemma3": lambda: _causal("Gemma3TextConfig", head_dim=8, **_LLAMA),
    "phi": lambda: _causal("PhiConfig", **_LLAMA),
    "phi3": lambda: _causal("Phi3Config", **_LLAMA),
    "falcon-alibi": lambda: _causal("FalconConfig", vocab_size=97, hidden_size=32, alibi=True,
                                    num_hidden_layers=2, num_attention_heads=4, **_TOKENS),
    "falcon": lambda: _causal("FalconConfig", vocab_size=97, hidden_size=32, alibi=False,
                              num_hidden_layers=2, num_attention_heads=4, **_TOKENS),
    "mamba": lambda: _causal("MambaConfig", vocab_size=97, hidden_size=32, state_size=8,
                             num_hidden_layers=2, **_TOKENS),
    "deberta-v2": lambda: _base("DebertaV2Config", relative_attention=True,
                                pos_att_type=["p2c", "c2p"], **_BERT),
    "t5": lambda: (
        transformers.T5ForConditionalGeneration(transformers.T5Config(
            vocab_size=97, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4,
            pad_token_id=0, eos_token_id=1, decoder_start_token_id=0)),
        {**_ids(), "decoder_input_ids": torch.tensor([[0, 5], [0, 9]])}, True),
    "bart": lambda: (
        transformers.BartForConditionalGeneration(transformers.BartConfig(
            vocab_size=97, d_model=32, encoder_layers=2, decoder_layers=2,
            encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=48,
            decoder_ffn_dim=48, max_position_embeddings=64, forced_eos_token_id=2,
            decoder_start_token_id=2, **_TOKENS)), _ids(), True),
    "whisper": lambda: (
        transformers.WhisperModel(transformers.WhisperConfig(
            vocab_size=97, d_model=32, encoder_layers=2, decoder_layers=2,
            encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=48,
            decoder_ffn_dim=48, num_mel_bins=8, max_source_positions=16, max_target_positions=16,
            decoder_start_token_id=1, suppress_tokens=None, begin_suppress_tokens=None, **_TOKENS)),
        {"input_features": torch.linspace(-1, 1, 2 * 8 * 32).reshape(2, 8, 32),
         "decoder_input_ids": torch.tensor([[1, 5], [1, 9]])}, False),
    "vit": lambda: _base("ViTConfig", _images(), hidden_size=32, num_hidden_layers=2,
                         num_attention_heads=4, intermediate_size=48, image_size=16, patch_size=4),
    "clip": lambda: (
        transformers.CLIPModel(transformers.CLIPConfig(
            text_config={**_TEXT, **_TOKENS},
            vision_config={"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
                           "intermediate_size": 48, "image_size": 16, "patch_size": 4})),
        {**_ids(), **_images()}, False),
    "resnet": lambda: _base("ResNetConfig", _images(32), embedding_size=8,
                            hidden_sizes=[8, 16, 16, 16], depths=[1, 1, 1, 1]),
    "wav2vec2": lambda: _base(
        "Wav2Vec2Config", {"input_values": torch.linspace(-1, 1, 2 * 800).reshape(2, 800)},
        vocab_size=32, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=48, conv_dim=(16, 16), conv_stride=(5, 4), conv_kernel=(10, 8),
        num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=4),
    "swin": lambda: _base("SwinConfig", _images(32), image_size=32, patch_size=4, embed_dim=16,
                          depths=[1, 1], num_heads=[2, 4], window_size=4),
    "deepseek-v3": lambda: _causal(
        "DeepseekV3Config", n_routed_experts=4, num_experts_per_tok=2, n_group=2, topk_group=1,
        moe_intermediate_size=16, q_lora_rank=16, kv_lora_rank=16, qk_rope_head_dim=8,
        qk_nope_head_dim=8, v_head_dim=8, first_k_dense_replace=1, n_shared_experts=1,
        **{**_LLAMA, "num_key_value_heads": 4}),
    "gpt-neox": lambda: _causal("GPTNeoXConfig", **_TEXT, **_TOKENS),
    "bloom": lambda: _causal("BloomConfig", vocab_size=97, hidden_size=32, n_layer=2, n_head=4,
                             **_TOKENS),
    "opt": lambda: _causal("OPTConfig", vocab_size=97, hidden_size=32, num_hidden_layers=2,
                           ffn_dim=48, num_attention_heads=4, max_position_embeddings=64,
                           word_embed_proj_dim=32, **_TOKENS),
    "distilbert": lambda: _base("DistilBertConfig", vocab_size=97, dim=32, n_layers=2, n_heads=4,
                                hidden_dim=48, max_position_embeddings=64),
    "electra": lambda: _base("ElectraConfig", embedding_size=16, **_BERT),
    "recurrent-gemma": lambda: _causal(
        "RecurrentGemmaConfig", vocab_size=97, hidden_size=32, intermediate_size=48, head_dim=8,
        num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=1, lru_width=32,
        attention_window_size=16, **_TOKENS),
    "gpt-oss": lambda: _causal("GptOssConfig", head_dim=8, sliding_window=8, layer_types=[
        "sliding_attention", "full_attention"], **_MOE, **_LLAMA),
}  # fmt: skip

#: Every one.
NAMES = tuple(_MAKERS)

#: Those that every change is tried with; the rest is for the night.
EACH_COMMIT = (
    "bert", "bert-tied", "gpt2", "llama", "llama-bf16-dynamic", "llama-fp16-tied", "qwen3",
    "mistral", "mixtral", "gemma2", "falcon-alibi", "mamba", "t5", "whisper", "vit", "resnet",
    "wav2vec2", "deepseek-v3",
)  # fmt: skip


def make(name: str) -> tuple[Any, dict[str, Any], bool]:
    """Return a model in eval mode, the arguments of its forward, and whether it generates."""
    torch.manual_seed(20260101)
    model, inputs, generates = _MAKERS[name]()
    return model.eval(), inputs, generates


def every() -> Iterator[str]:
    """Return the names."""
    return iter(NAMES)
