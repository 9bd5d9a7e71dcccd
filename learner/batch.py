"""From rollouts to packed tensors. B sequences, S tokens of them all, N scored positions, K support size."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sdpo.errors import InfrastructureError
from sdpo.types import Float32, Int32, Rollout


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringItem:
    """One context and the response whose tokens are scored under it.

    context_ids int32 [P], P >= 1; response_ids int32 [T]; keep bool [T], the positions that are scored;
    support_ids int32 [T, K], or None where no support is asked for.
    """

    context_ids: Int32
    response_ids: Int32
    keep: NDArray[np.bool_]
    support_ids: Int32 | None

    @property
    def num_tokens(self) -> int:
        return len(self.context_ids) + len(self.response_ids)


def whole_response(context_ids: Int32, response_ids: Int32, support_ids: Int32 | None = None) -> ScoringItem:
    """Return an item in which every token of the response is scored, what the environment wrote as well."""
    keep = np.ones(len(response_ids), np.bool_)
    return ScoringItem(context_ids=context_ids, response_ids=response_ids, keep=keep, support_ids=support_ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringBatch:
    """B sequences end to end in one row of S tokens, in the order of the items; none sees another.

    input_ids int64 [1, S]; position_ids int64 [1, S], from 0 in every sequence; cu_seqlens int32 [B + 1], where each
    sequence starts, and S; lengths: tokens of each sequence; positions int64 [N] into S of the states that predict
    the scored tokens; sampled_ids int64 [N]; support_ids int64 [N, K] or None; counts: scored positions of each
    sequence. All tensors are on one device.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    cu_seqlens: torch.Tensor
    lengths: tuple[int, ...]
    positions: torch.Tensor
    sampled_ids: torch.Tensor
    support_ids: torch.Tensor | None
    counts: tuple[int, ...]


def make_batch(items: Sequence[ScoringItem], device: torch.device) -> ScoringBatch:
    """Pack at least one item. The state that predicts a token is the one before it, so positions are P - 1 + t."""
    lengths = [item.num_tokens for item in items]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    positions = [
        start + len(item.context_ids) - 1 + np.flatnonzero(item.keep)
        for start, item in zip(starts[:-1], items, strict=True)
    ]
    supports = [item.support_ids[item.keep] for item in items if item.support_ids is not None]
    return ScoringBatch(
        input_ids=_ids(np.concatenate([part for i in items for part in (i.context_ids, i.response_ids)])[None], device),
        position_ids=_ids(np.concatenate([np.arange(length) for length in lengths])[None], device),
        cu_seqlens=torch.from_numpy(starts.astype(np.int32)).to(device),
        lengths=tuple(lengths),
        positions=_ids(np.concatenate(positions), device),
        sampled_ids=_ids(np.concatenate([item.response_ids[item.keep] for item in items]), device),
        support_ids=_ids(np.concatenate(supports), device) if supports else None,
        counts=tuple(int(item.keep.sum()) for item in items),
    )


def idle_batch(support_size: int, device: torch.device) -> ScoringBatch:
    """Return the smallest batch, for a rank that has nothing to do while others need it in their collectives."""
    token = np.zeros(1, np.int32)
    support_ids = np.arange(support_size, dtype=np.int32)[None] if support_size else None
    return make_batch([whole_response(token, token, support_ids)], device)


def support_ids_of(rollout: Rollout) -> Int32:
    """Return the engine's support ids, int32 [T, K]; the environment's positions get the ids 0..K-1 (they are scored,
    and masked in the loss).

    Raises `InfrastructureError` if the engine recorded no support.
    """
    recorded = [s.support_ids for s in rollout.segments if s.author == "model" and s.support_ids is not None]
    num_model_segments = sum(s.author == "model" for s in rollout.segments)
    if not recorded or len(recorded) != num_model_segments or recorded[0].shape[1] == 0:
        raise InfrastructureError(
            f"rollout {rollout.task_id}#{rollout.sample_index} carries no support ids (support_size was 0)"
        )
    size = recorded[0].shape[1]
    parts = [
        s.support_ids if s.support_ids is not None else np.tile(np.arange(size, dtype=np.int32), (len(s.token_ids), 1))
        for s in rollout.segments
    ]
    return np.concatenate(parts)


def behaviour_log_probs_of(rollout: Rollout) -> Float32:
    """Return float32 [T]: the engine's log-probs of the sampled tokens, 0 where the environment wrote.

    Raises `InfrastructureError` if the engine recorded none.
    """
    for s in rollout.segments:
        if s.author == "model" and s.log_probs is None:
            raise InfrastructureError(f"rollout {rollout.task_id}#{rollout.sample_index} carries no sampled log-probs")
    parts = [np.zeros(len(s.token_ids), np.float32) if s.log_probs is None else s.log_probs for s in rollout.segments]
    return np.concatenate(parts).astype(np.float32, copy=False)


def _ids(array: NDArray[np.integer[Any]], device: torch.device) -> torch.Tensor:
    return torch.from_numpy(array.astype(np.int64)).to(device)
