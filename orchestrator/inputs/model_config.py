"""Sizes of a language model, read from its config.json, and the KV cache that they ask for."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sdpo.config import RunConfig

CACHE_BLOCK_TOKENS = 128
"""Size of vLLM's cache blocks on CPU; on GPUs they are smaller."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheShape:
    """The sizes that a KV cache depends on. key_size: key-value heads x head size, in elements."""

    num_layers: int
    key_size: int

    @classmethod
    def of(cls, text: Mapping[str, Any]) -> "CacheShape":
        """Read the text part of a config.json. Raises `KeyError` for a size that it lacks."""
        heads = text.get("num_key_value_heads") or text["num_attention_heads"]
        return cls(num_layers=int(text["num_hidden_layers"]), key_size=int(heads) * head_size(text))


def head_size(text: Mapping[str, Any]) -> int:
    """Return the elements of one attention head. Raises `KeyError` for a size that `text` lacks."""
    return int(text.get("head_dim") or int(text["hidden_size"]) // int(text["num_attention_heads"]))


def dtype_bytes(config: RunConfig) -> int:
    """Return the bytes of one weight."""
    return 2 if config.model.dtype == "bfloat16" else 4


def kv_bytes_per_token(config: RunConfig, model: CacheShape) -> int:
    """Return the bytes that one token takes in the KV cache: keys and values of all layers."""
    return 2 * model.num_layers * model.key_size * dtype_bytes(config)


def kv_cache_gib(config: RunConfig, model: CacheShape, num_sequences: int) -> float:
    """Return the KV cache in GiB in which `num_sequences` full windows fit, each in whole blocks and one more."""
    blocks = math.ceil(config.model.max_model_len_tokens / CACHE_BLOCK_TOKENS) + 1
    return num_sequences * blocks * CACHE_BLOCK_TOKENS * kv_bytes_per_token(config, model) / 2**30


def round_up_gib(gib: float) -> float:
    """Return `gib` rounded up to thousandths, as a value for `rollout.kv_cache_gib`."""
    return math.ceil(1000 * gib) / 1000
