"""A causal LM that answers with log-probs and losses: the one piece of code that student and teacher share.

N scored positions, H hidden size, V vocabulary, K support size. Design section 4; paper eq. 11 for the tail.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from learner.attention import attention_arguments
from learner.batch import ScoringBatch
from learner.chunk import TokenLogProbs
from learner.head import Scored, ScoreRequest, ScoringHead, TokenLoss, mixed_scores

__all__ = ["ScoreRequest", "Scored", "ScoringModel", "TokenLogProbs", "TokenLoss", "mixed_forward"]


class ScoringModel(nn.Module):
    """The whole computation, output layer and loss included, is inside `forward`: wrap this module, and every weight is
    gathered inside the wrapped call.
    """

    def __init__(self, hf_model: PreTrainedModel, logits_chunk_tokens: int) -> None:
        """Raises `ModelError` for an output layer that is more than a matrix."""
        super().__init__()
        self.hf_model = hf_model
        self.head = ScoringHead(hf_model, logits_chunk_tokens)

    def forward(self, request: ScoreRequest) -> Scored:
        """Raises `ValueError` where gradients are enabled and the request has no loss."""
        scored: Scored = self.head(self.hidden_states(request.batch), request)
        return scored

    def hidden_states(self, batch: ScoringBatch) -> Tensor:
        """Return [N, H] after the last norm, of the positions that predict the scored tokens."""
        output = self.hf_model.base_model(
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            use_cache=False,
            **attention_arguments(batch),
        ).last_hidden_state
        hidden_NH: Tensor = output.flatten(0, 1).index_select(0, batch.positions)
        return hidden_NH


@torch.no_grad()
def mixed_forward(parts: Sequence[tuple[ScoringModel, float]], request: ScoreRequest) -> Scored:
    """Scores under the geometric mixture of models with one vocabulary: each gives its logits the weight beside it, and
    the sum is normalised over the whole vocabulary (paper, trust-region teacher). No gradients.
    """
    return mixed_scores([(m.hidden_states(request.batch), m.head, weight) for m, weight in parts], request)
