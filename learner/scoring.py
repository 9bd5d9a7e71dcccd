"""Log-probs of given tokens without the whole [N, V]: the one piece of code that student and teacher share.

N scored positions, V vocabulary, K support size. Design section 4; paper eq. 11 for the tail.
"""

from typing import NamedTuple

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

EMPTY_TAIL_LOGIT = -1e4
"""Stands in for every logit inside the support, so that an empty complement gives a tiny tail and no NaN."""


class TokenLogProbs(NamedTuple):
    """float32: sampled [N]; support [N, K] and tail [N], None without support ids; entropy [N] in nats, no gradient."""

    sampled: torch.Tensor
    support: torch.Tensor | None
    tail: torch.Tensor | None
    entropy: torch.Tensor


class ScoringModel(nn.Module):
    """A causal LM that answers with log-probs at given ids. The head runs inside `forward`, so that FSDP's root
    has gathered its weight; chunks of positions are recomputed in the backward pass.
    """

    def __init__(self, hf_model: PreTrainedModel, logits_chunk_tokens: int) -> None:
        super().__init__()
        self.hf_model = hf_model
        self._chunk_tokens = logits_chunk_tokens

    def forward(
        self,
        input_ids: torch.Tensor,
        positions: torch.Tensor,
        sampled_ids: torch.Tensor,
        support_ids: torch.Tensor | None,
        temperature: float,
    ) -> TokenLogProbs:
        """input_ids int64 [B, S], right-padded; positions int64 [N] into [B * S]; sampled_ids int64 [N];
        support_ids int64 [N, K] of distinct ids. Positions count from 0 in every row.
        """
        hidden_BSH = self.hf_model.base_model(input_ids=input_ids, use_cache=False).last_hidden_state
        hidden_NH = hidden_BSH.flatten(0, 1).index_select(0, positions)
        chunks = []
        for start in range(0, len(positions), self._chunk_tokens):
            part = slice(start, start + self._chunk_tokens)
            chunk_support = None if support_ids is None else support_ids[part]
            inputs = (hidden_NH[part], sampled_ids[part], chunk_support, temperature)
            if torch.is_grad_enabled():
                chunks.append(checkpoint(self._score_chunk, *inputs, use_reentrant=False, preserve_rng_state=False))
            else:
                chunks.append(self._score_chunk(*inputs))
        return _join(chunks)

    def _score_chunk(
        self, hidden_NH: torch.Tensor, sampled_N: torch.Tensor, support_NK: torch.Tensor | None, temperature: float
    ) -> TokenLogProbs:
        logits_NV = self.hf_model.get_output_embeddings()(hidden_NH).float() / temperature
        total_N = logits_NV.logsumexp(-1)
        sampled = logits_NV.gather(1, sampled_N[:, None]).squeeze(1) - total_N
        with torch.no_grad():
            entropy = total_N - ((logits_NV - total_N[:, None]).exp() * logits_NV).sum(-1)
        if support_NK is None:
            return TokenLogProbs(sampled, None, None, entropy)
        support = logits_NV.gather(1, support_NK) - total_N[:, None]
        tail = logits_NV.scatter(1, support_NK, EMPTY_TAIL_LOGIT).logsumexp(-1) - total_N
        return TokenLogProbs(sampled, support, tail, entropy)


def _join(chunks: list[TokenLogProbs]) -> TokenLogProbs:
    def cat(parts: list[torch.Tensor | None]) -> torch.Tensor | None:
        held = [p for p in parts if p is not None]
        return torch.cat(held) if held else None

    sampled, support, tail, entropy = (cat(list(field)) for field in zip(*chunks, strict=True))
    assert sampled is not None
    assert entropy is not None
    return TokenLogProbs(sampled, support, tail, entropy)
