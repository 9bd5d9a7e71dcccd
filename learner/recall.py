"""The policy before the first step of a batch (pi_old), by one forward over the rollouts.

T response tokens, K support size.
"""

import time
from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import NDArray

from learner.agreement import summed_counts
from learner.backends.base import Backend
from learner.batch import idle_batch, make_batch, support_ids_of, whole_response
from learner.messages import RecallRequest, ScoreReceipt
from learner.scoring import ScoreRequest
from sdpo.config import RunConfig, SdpoObjective
from sdpo.types import PolicyScores, Rollout


class Recaller:
    """Scores every response token, the environment's included, so that arrays are [T]."""

    def __init__(self, backend: Backend, config: RunConfig, device: torch.device) -> None:
        sdpo = config.objective if isinstance(config.objective, SdpoObjective) else None
        self._backend, self._device = backend, device
        self._temperature = config.rollout.sampling.temperature
        self._chooses = sdpo is not None and sdpo.needs_support and sdpo.support == "student"
        self._needs_bins = sdpo is not None and sdpo.estimator == "clipped_surrogate"
        self._top_k = config.objective.top_k

    @torch.no_grad()
    def recall(self, request: RecallRequest, rollouts: Sequence[Rollout]) -> list[ScoreReceipt | PolicyScores]:
        """A receipt, then this rank's `PolicyScores` in the order of `rollouts`. All ranks together.

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
        found = self._backend.forward(
            ScoreRequest(
                batch=batch,
                temperature=self._temperature,
                support="top_k" if self._chooses else "given" if given else None,
                top_k=self._top_k,
            )
        ).log_probs
        columns: dict[str, torch.Tensor | None] = {
            "sampled_log_probs": found.sampled,
            "support_ids": found.support_ids.int() if self._chooses and found.support_ids is not None else None,
            "support_log_probs": found.support if self._needs_bins else None,
            "tail_log_probs": found.tail if self._needs_bins else None,
        }
        split: dict[str, Any] = {name: _split(column, batch.counts) for name, column in columns.items()}
        rows: list[dict[str, Any]] = [
            {name: None if parts is None else parts[i] for name, parts in split.items()} for i in range(len(rollouts))
        ]
        return [
            PolicyScores(task_id=rollout.task_id, sample_index=rollout.sample_index, **row)
            for rollout, row in zip(rollouts, rows, strict=True)
        ]


def _split(column: torch.Tensor | None, counts: Sequence[int]) -> list[NDArray[Any]] | None:
    """One array that owns its memory for each sequence."""
    return None if column is None else [part.cpu().numpy().copy() for part in torch.split(column, list(counts))]
