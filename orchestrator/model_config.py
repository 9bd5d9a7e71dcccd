"""What a model's config.json says of its language model. Sizes in elements."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheShape:
    """What a KV cache's size depends on. key_size: key-value heads x head size."""

    num_layers: int
    key_size: int

    @classmethod
    def of(cls, text: Mapping[str, Any]) -> "CacheShape":
        """Raises `KeyError` for a size that `text` lacks."""
        heads = text.get("num_key_value_heads") or text["num_attention_heads"]
        return cls(num_layers=int(text["num_hidden_layers"]), key_size=int(heads) * head_size(text))


def text_part(model_config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The language model's part of a config: `text_config` where there is one, else all of it."""
    return model_config.get("text_config") or model_config


def head_size(text: Mapping[str, Any]) -> int:
    """Of one attention head. Raises `KeyError` for a size that `text` lacks."""
    return int(text.get("head_dim") or int(text["hidden_size"]) // int(text["num_attention_heads"]))
