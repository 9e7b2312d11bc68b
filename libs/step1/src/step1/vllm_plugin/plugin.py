"""The entry point: registers the Step-1 configuration and, on CPU, its attention backend."""

import torch
from transformers import AutoConfig, PretrainedConfig
from vllm.platforms import current_platform
from vllm.v1.attention.backends.registry import AttentionBackendEnum, register_backend


class Step1HfConfig(PretrainedConfig):  # type: ignore[misc]
    """config.json of a Step-1 checkpoint as transformers and vLLM read it.

    Adds to the file's own fields the names that vLLM asks for: `num_key_value_heads` (the
    checkpoint says `num_attention_groups`), `max_position_embeddings` (`max_seq_len`) and an
    explicit `tie_word_embeddings=False`.
    """

    model_type = "step1"
    keys_to_ignore_at_inference = ("past_key_values",)

    def __init__(
        self,
        hidden_size: int = 5120,
        intermediate_size: int = 13312,
        num_attention_heads: int = 40,
        num_attention_groups: int = 8,
        num_hidden_layers: int = 48,
        max_seq_len: int = 4096,
        vocab_size: int = 65536,
        rms_norm_eps: float = 1e-5,
        bos_token_id: int = 1,
        pad_token_id: int = 0,
        eos_token_id: int = 3,
        tie_word_embeddings: bool = False,
        **kwargs: object,
    ) -> None:
        self.hidden_size = hidden_size
        self.intermediate_size = intermediate_size
        self.num_attention_heads = num_attention_heads
        self.num_attention_groups = num_attention_groups
        self.num_key_value_heads = num_attention_groups
        self.num_hidden_layers = num_hidden_layers
        self.max_seq_len = max_seq_len
        self.max_position_embeddings = max_seq_len
        self.vocab_size = vocab_size
        self.rms_norm_eps = rms_norm_eps
        super().__init__(
            bos_token_id=bos_token_id,
            pad_token_id=pad_token_id,
            eos_token_id=eos_token_id,
            tie_word_embeddings=tie_word_embeddings,
            **kwargs,
        )


def register() -> None:
    """Makes this process ready for Step-1 checkpoints. Safe to call more than once."""
    AutoConfig.register("step1", Step1HfConfig, exist_ok=True)
    if current_platform.is_cpu():
        register_backend(
            AttentionBackendEnum.CPU_ATTN,
            "step1.vllm_plugin.cpu_attention.SqrtAlibiCpuBackend",
        )
        if torch.cpu._is_amx_tile_supported():
            torch.cpu._init_amx()
