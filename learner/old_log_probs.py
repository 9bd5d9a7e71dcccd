"""The policy before the first step of a batch (pi_old), by one forward over the rollouts.

T response tokens, K support size.
"""

import time
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from learner.agreement import summed_counts
from learner.backends.base import Backend
from learner.batch import idle_batch, make_batch, support_ids_of, whole_response
from learner.messages import OldLogProbsRequest, ScoreReceipt
from learner.scoring import ScoreRequest, TokenLogProbs
from sdpo.config import RunConfig
from sdpo.types import PolicyScores, Rollout


class OldLogProbs:
    """Scores every response token, the environment's included, so that arrays are [T]."""

    def __init__(self, backend: Backend, config: RunConfig, device: torch.device) -> None:
        needs = config.objective.needs
        self._backend, self._device = backend, device
        self._temperature = config.rollout.sampling.temperature
        self._chooses, self._needs_bins = needs.support == "student", needs.old_bins
        self._top_k = needs.support_size

    @torch.no_grad()
    def compute_old_log_probs(
        self, request: OldLogProbsRequest, rollouts: Sequence[Rollout]
    ) -> list[ScoreReceipt | PolicyScores]:
        """Return a receipt, then this rank's `PolicyScores` in the order of `rollouts`. All ranks together.

        Raises `InfrastructureError` if the ranks' plans differ in shape.
        """
        began = time.perf_counter()
        summed_counts([[len(part) for part in request.micro_batches]], self._device)
        scores: dict[int, PolicyScores] = {}
        for indices in request.micro_batches:
            found = self._forward([rollouts[i] for i in indices])
            scores |= zip(indices, found, strict=True)
        num_tokens = sum(len(r.prompt_ids) + len(r.response_ids) for r in rollouts)
        receipt = ScoreReceipt(version=request.version, num_tokens=num_tokens, seconds=time.perf_counter() - began)
        return [receipt, *(scores[i] for i in range(len(rollouts)))]

    def _forward(self, rollouts: list[Rollout]) -> list[PolicyScores]:
        given = self._needs_bins and not self._chooses
        if rollouts:
            supports = [support_ids_of(rollout) if given else None for rollout in rollouts]
            pairs = zip(rollouts, supports, strict=True)
            batch = make_batch([whole_response(r.prompt_ids, r.response_ids, s) for r, s in pairs], self._device)
        else:
            batch = idle_batch(self._top_k if given else 0, self._device)
        support: Literal["given", "top_k"] | None = "top_k" if self._chooses else "given" if given else None
        request = ScoreRequest(batch=batch, temperature=self._temperature, support=support, top_k=self._top_k)
        parts = self._backend.forward(request).log_probs.split(batch.counts)
        return [self._scores(rollout, part) for rollout, part in zip(rollouts, parts, strict=False)]

    def _scores(self, rollout: Rollout, found: TokenLogProbs) -> PolicyScores:
        """Return what the teachers and the loss look at."""
        ids = found.support_ids if self._chooses else None
        support, tail = (found.support, found.tail) if self._needs_bins else (None, None)
        return PolicyScores(
            task_id=rollout.task_id,
            sample_index=rollout.sample_index,
            sampled_log_probs=found.sampled.numpy(),
            support_ids=None if ids is None else ids.numpy().astype(np.int32),
            support_log_probs=None if support is None else support.numpy(),
            tail_log_probs=None if tail is None else tail.numpy(),
        )
