"""One chunk of logits: its log-probs, and the gradient of its loss with respect to the logits, in two buffers.

C positions of the chunk, V vocabulary, K support size. The support's bins and their complement (the tail, paper
eq. 11) are taken apart, so that a tail of any size is exact; its mass is summed over the complement, never 1 - sum.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

EMPTY_TAIL_LOGIT = -1e4
"""Stands in for every logit inside the support, so that an empty complement gives a tiny tail and no NaN."""


class TokenLogProbs(NamedTuple):
    """float32 log-probs, normalised over the vocabulary, of N positions (in a loss: of one chunk's).

    sampled [N]; support_ids int64 [N, K]; support [N, K] and tail [N], the log-mass outside the support; entropy [N]
    in nats, without gradient. With the whole vocabulary as support: support [N, V], support_ids and tail None.
    """

    sampled: Tensor
    support_ids: Tensor | None
    support: Tensor | None
    tail: Tensor | None
    entropy: Tensor

    def split(self, counts: Sequence[int]) -> list["TokenLogProbs"]:
        """Return the log-probs of each sequence, on the CPU; `counts` are the numbers of their positions."""
        fields = [[None] * len(counts) if field is None else torch.split(field.cpu(), list(counts)) for field in self]
        return [TokenLogProbs(*parts) for parts in zip(*fields, strict=True)]


class BinScores:
    """Sampled tokens, K bins and the tail. Overwrites both buffers: `logits_CV` holds logits at the run's temperature,
    `scratch_CV` is of the same shape and dtype.
    """

    def __init__(self, logits_CV: Tensor, scratch_CV: Tensor, sampled_C: Tensor, support_CK: Tensor | None) -> None:
        self._sampled_C1 = sampled_C[:, None]
        self._support_CK = sampled_C.new_empty(len(sampled_C), 0) if support_CK is None else support_CK
        sampled_C1 = logits_CV.gather(1, self._sampled_C1)
        support_logits_CK = logits_CV.gather(1, self._support_CK)
        logits_CV.scatter_(1, self._support_CK, EMPTY_TAIL_LOGIT)
        outside_max_C1 = logits_CV.amax(1, keepdim=True)
        self._outside_CV = torch.softmax(logits_CV, 1, out=scratch_CV)  # within the complement
        log_mass_C1 = -self._outside_CV.amax(1, keepdim=True).log()  # of the complement, over its largest
        largest_C1 = torch.cat([support_logits_CK, outside_max_C1], 1).amax(1, keepdim=True)
        support, tail_C1 = support_logits_CK - largest_C1, (outside_max_C1 - largest_C1) + log_mass_C1
        total_C1 = torch.cat([support, tail_C1], 1).logsumexp(1, keepdim=True)
        support, tail_C1 = support - total_C1, tail_C1 - total_C1
        self._inside_CK, self._tail_mass_C1 = support.exp(), tail_C1.exp()
        outside_mean_C1 = logits_CV.mul_(self._outside_CV).sum(1, keepdim=True)
        outside_entropy_C1 = (outside_max_C1 - outside_mean_C1) + log_mass_C1
        entropy_C1 = self._tail_mass_C1 * (outside_entropy_C1 - tail_C1)
        entropy_C1 -= (self._inside_CK * support).sum(1, keepdim=True)
        self.log_probs = TokenLogProbs(
            sampled=((sampled_C1 - largest_C1) - total_C1)[:, 0],
            support_ids=support_CK,
            support=None if support_CK is None else support,
            tail=None if support_CK is None else tail_C1[:, 0],
            entropy=entropy_C1[:, 0],
        )

    def logits_gradient(self, sampled_C: Tensor, support_CK: Tensor | None, tail_C: Tensor | None) -> Tensor:
        """Return the gradient of the logits from those of the log-probs: [C, V], in the scratch buffer. Call once."""
        bins_CK = torch.zeros_like(self._inside_CK) if support_CK is None else support_CK
        tail_C1 = torch.zeros_like(self._tail_mass_C1) if tail_C is None else tail_C[:, None]
        all_C1 = sampled_C[:, None] + bins_CK.sum(1, keepdim=True) + tail_C1
        gradient_CV = self._outside_CV.mul_(tail_C1 - all_C1 * self._tail_mass_C1)
        gradient_CV.scatter_(1, self._support_CK, bins_CK - all_C1 * self._inside_CK)
        return gradient_CV.scatter_add_(1, self._sampled_C1, sampled_C[:, None])


class VocabularyScores:
    """Sampled tokens and the whole vocabulary as bins, in ascending id order. Buffers as in `BinScores`; the log-probs'
    `support` is one of them.
    """

    def __init__(self, logits_CV: Tensor, scratch_CV: Tensor, sampled_C: Tensor) -> None:
        self._sampled_C1 = sampled_C[:, None]
        largest_C1 = logits_CV.amax(1, keepdim=True)
        self._probs_CV = torch.softmax(logits_CV, 1, out=scratch_CV)
        support_CV = logits_CV.sub_(largest_C1).add_(self._probs_CV.amax(1, keepdim=True).log())
        self.log_probs = TokenLogProbs(
            sampled=support_CV.gather(1, self._sampled_C1)[:, 0],
            support_ids=None,
            support=support_CV,
            tail=None,
            entropy=-torch.bmm(self._probs_CV[:, None], support_CV[:, :, None])[:, 0, 0],
        )

    def logits_gradient(self, sampled_C: Tensor, support_CV: Tensor | None, tail_C: Tensor | None) -> Tensor:
        """Return what `BinScores.logits_gradient` returns; the tail has no gradient."""
        assert tail_C is None
        all_C1 = sampled_C[:, None] if support_CV is None else sampled_C[:, None] + support_CV.sum(1, keepdim=True)
        gradient_CV = self._probs_CV.mul_(-all_C1)
        if support_CV is not None:
            gradient_CV.add_(support_CV)
        return gradient_CV.scatter_add_(1, self._sampled_C1, sampled_C[:, None])
