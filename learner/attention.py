"""Causal attention within each sequence of a packed row, registered with transformers as "sdpo_varlen".

No mask over the packed row is ever built. B sequences, S tokens of them all, T tokens of one, H query heads,
G key-value heads, D head size. The lengths travel as keyword arguments of the forward call and not in a context:
the recomputation of gradient checkpointing runs in another thread, where a context would be lost.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

from learner.batch import ScoringBatch
from sdpo.errors import ModelError

ATTENTION = "sdpo_varlen"
"""The value of `attn_implementation`. It needs no mask function: transformers then builds no mask."""
WINDOW_QUERIES = 1024
"""Queries of one sliding-window call off CUDA; their mask is at most [WINDOW_QUERIES, WINDOW_QUERIES + window - 1]."""
FLASH_MAX_HEAD_DIM = 256
PLAIN_LAYERS = {"full_attention", "sliding_attention"}
UNSUPPORTED_ARGUMENTS = ("softcap", "s_aux", "position_bias")
"""What other architectures hand to their attention and this one does not compute."""


def attention_arguments(batch: ScoringBatch) -> dict[str, Any]:
    """Return keyword arguments of the model's forward, which transformers hands through to every attention layer."""
    return {"packed_lengths": batch.lengths, "packed_cu_seqlens": batch.cu_seqlens}


def require_packable(model: PreTrainedModel) -> None:
    """Raises `ModelError`, one line, if a packed row would not give each sequence what it gets alone."""
    config = model.config.get_text_config()
    other_layers = sorted(set(getattr(config, "layer_types", None) or ()) - PLAIN_LAYERS)
    if not (model._supports_attention_backend and model._supports_sdpa):
        reason = "its attention cannot be replaced through transformers' attention interface"
    elif getattr(model, "_is_stateful", False) or other_layers:
        reason = f"layers {', '.join(other_layers) or 'with a state'} carry one sequence into the next"
    elif getattr(config, "attn_logit_softcapping", None) is not None:
        reason = "attn_logit_softcapping is set"
    else:
        return
    raise ModelError(f"{type(model).__name__}: {reason}; allowed: causal LMs with full or sliding-window attention")


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    packed_lengths: tuple[int, ...] | None = None,
    packed_cu_seqlens: Tensor | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Return the attention's output: query [1, H, S, D], key and value [1, G, S, D] → [1, S, H, D]; packed_lengths sum
    to S, packed_cu_seqlens int32 [B + 1]. A query sees itself and what is before it in its sequence, `sliding_window`
    keys at most.

    On CUDA in 16 bits one kernel; else sequence by sequence. Raises `ModelError` for a call without the packed
    lengths or with what is not computed here (a mask, dropout, softcap, sinks).
    """
    if packed_lengths is None or packed_cu_seqlens is None:
        raise ModelError(f"{ATTENTION} attention without attention_arguments(batch); allowed: packed scoring batches")
    extra = [name for name in UNSUPPORTED_ARGUMENTS if others.get(name) is not None]
    extra += ["attention_mask"] * (attention_mask is not None) + ["dropout"] * (dropout != 0)
    if extra or not getattr(module, "is_causal", True):
        raise ModelError(
            f"{type(module).__name__}: {', '.join(extra) or 'not causal'}; allowed: plain causal attention"
        )
    in_16_bits = query.dtype in (torch.bfloat16, torch.float16)
    if query.is_cuda and in_16_bits and query.shape[-1] == value.shape[-1] <= FLASH_MAX_HEAD_DIM:
        return _by_kernel(query, key, value, packed_cu_seqlens, max(packed_lengths), scaling, sliding_window), None
    return _one_by_one(query, key, value, packed_lengths, scaling, sliding_window), None


def _by_kernel(
    query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor, longest: int, scale: float | None, window: int | None
) -> Tensor:
    """Run one flash-attention call over the packed row. The kernel counts the keys left of the query's own."""
    query_SHD, key_SGD, value_SGD = (tensor.squeeze(0).transpose(0, 1) for tensor in (query, key, value))
    out = varlen_attn(
        query_SHD,
        key_SGD,
        value_SGD,
        cu_seqlens,
        cu_seqlens,
        longest,
        longest,
        scale=scale,
        window_size=(-1 if window is None else window - 1, 0),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    assert isinstance(out, Tensor)
    return out.unsqueeze(0)


def _one_by_one(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    lengths: tuple[int, ...],
    scale: float | None,
    window: int | None,
) -> Tensor:
    """Attend sequence by sequence. `split` and not slices: its backward joins the gradients once, and not B times over
    all S.
    """
    queries, keys, values = (torch.split(tensor, list(lengths), dim=2) for tensor in (query, key, value))
    outputs = [_alone(q, k, v, scale, window) for q, k, v in zip(queries, keys, values, strict=True)]
    return torch.cat(outputs, dim=1)


def _alone(query: Tensor, key: Tensor, value: Tensor, scale: float | None, window: int | None) -> Tensor:
    """Return [1, T, H, D] of one sequence."""
    if window is not None and query.shape[2] > window:
        return _windowed(query, key, value, scale, window)
    enable_gqa = query.shape[1] != key.shape[1]
    out = scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale, enable_gqa=enable_gqa)
    return out.transpose(1, 2)


def _windowed(query: Tensor, key: Tensor, value: Tensor, scale: float | None, window: int) -> Tensor:
    """Return [1, T, H, D] of one sequence; a block of queries reads only the keys that it can see."""
    outputs = []
    for start in range(0, query.shape[2], WINDOW_QUERIES):
        stop, first_key = min(start + WINDOW_QUERIES, query.shape[2]), max(0, start - window + 1)
        behind = torch.arange(start, stop, device=query.device)[:, None] - torch.arange(
            first_key, stop, device=query.device
        )
        out = scaled_dot_product_attention(
            query[:, :, start:stop],
            key[:, :, first_key:stop],
            value[:, :, first_key:stop],
            attn_mask=(behind >= 0) & (behind < window),
            scale=scale,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        outputs.append(out.transpose(1, 2))
    return torch.cat(outputs, dim=1)


AttentionInterface.register(ATTENTION, packed_attention)
