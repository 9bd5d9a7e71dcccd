"""From log-probs at a support of K tokens to a distribution over bins (paper, eq. 11).

A support is made a distribution either by one tail bucket or by renormalising. With the tail a divergence over the bins
is a lower bound of the one over the whole vocabulary, whatever the support.
"""

import torch
from torch import Tensor

from sdpo.objectives.base import Needs
from sdpo.token_targets import required

LARGEST_SUPPORT_LOG_MASS = -1e-7
"""The support's log-mass is capped here before its complement is taken, so that the tail stays finite."""


def tail_log_prob(support_log_probs: Tensor) -> Tensor:
    """Return the log of the mass outside the support [...], from log-probs [..., K] normalised over the vocabulary."""
    log_mass = torch.logsumexp(support_log_probs, -1).clamp(max=LARGEST_SUPPORT_LOG_MASS)
    return torch.log(-torch.expm1(log_mass))


def append_tail(support_log_probs: Tensor, tail_log_probs: Tensor) -> Tensor:
    """Return bins [..., K+1] that sum to 1, from log-probs [..., K] and the tail's [...]."""
    return torch.cat([support_log_probs, tail_log_probs.unsqueeze(-1)], -1)


def renormalise(support_log_probs: Tensor) -> Tensor:
    """Return log-probs [..., K] that sum to 1 over the support."""
    return support_log_probs - torch.logsumexp(support_log_probs, -1, keepdim=True)


def bins(support: Tensor, tail: Tensor | None, needs: Needs) -> Tensor:
    """Return the log-probs that the objective compares, from those of the support [N, K] and of the tail [N].

    They are [N, K+1] with the tail, [N, K] renormalised, or the whole vocabulary [N, V] as it is.
    """
    if needs.support == "full":
        return support
    return append_tail(support, required(tail, "tail")) if needs.tail else renormalise(support)
