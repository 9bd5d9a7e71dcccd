"""The optimizer steps over a rollout batch: global token means, whatever the micro-batches and ranks (design 4).

N active tokens of one micro-batch, see `learner.experiences.active_tokens`.
"""

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from learner.agreement import summed_counts
from learner.backends.base import Backend
from learner.batch import ScoringBatch, idle_batch, make_batch
from learner.experiences import active_tokens, asked_support, required, scoring_item
from learner.loss import MicroBatchLoss
from learner.scoring import ScoreRequest, TokenLogProbs, TokenLoss
from learner.tally import BatchTally
from sdpo.config import RunConfig
from sdpo.types import Experience

Work = list[tuple[Experience, NDArray[np.bool_]]]
"""One micro-batch: attempts with active tokens, and which those are (bool [T])."""


class Trainer:
    """Trains the policy that `backend` holds. `on_step` is called after each optimizer step that was taken."""

    def __init__(self, backend: Backend, config: RunConfig, device: torch.device, on_step: Callable[[], None]) -> None:
        self._backend = backend
        self._objective, self._settings = config.objective, config.learner.optimizer
        self._temperature = config.rollout.sampling.temperature
        self._needs_policy = config.needs_old_policy
        self._device, self._on_step = device, on_step

    def train(
        self, experiences: Sequence[Experience], mini_batches: Sequence[Sequence[Sequence[int]]]
    ) -> dict[str, float]:
        """Take one optimizer step for each mini-batch of micro-batches of indices into `experiences`. All ranks
        together.

        No step is taken on a mini-batch without active tokens on any rank, nor with a gradient that is not finite.
        Raises `InfrastructureError` if the ranks' plans differ in shape or an experience lacks what the objective
        needs. Metrics are of the whole batch, over all ranks (`learner.tally`); `seconds` is this rank's.
        """
        began = time.perf_counter()
        plan = [[self._work(experiences, part) for part in mini_batch] for mini_batch in mini_batches]
        counts = summed_counts([[_num_active(work) for work in micro_batches] for micro_batches in plan], self._device)
        tally = BatchTally(self._device, self._objective)
        tally.add_left_out([e for e in experiences if not active_tokens(e, self._objective).any()])
        for micro_batches, num_active in zip(plan, counts, strict=True):
            self._step(micro_batches, num_active, tally)
        took = {"optimizer_step": float(self._backend.optimizer_step), "seconds": time.perf_counter() - began}
        return tally.metrics() | took

    def _work(self, experiences: Sequence[Experience], indices: Sequence[int]) -> Work:
        pairs = [(experiences[i], active_tokens(experiences[i], self._objective)) for i in indices]
        work = [(experience, keep) for experience, keep in pairs if keep.any()]
        if self._needs_policy:
            for experience, _ in work:
                required(experience.policy, "policy", experience.rollout)
        return work

    def _step(self, micro_batches: Sequence[Work], num_active: int, tally: BatchTally) -> None:
        if num_active == 0:
            self._backend.discard()
            tally.steps_idle += 1
            return
        for work in micro_batches:
            if work:
                self._backward(work, num_active, tally)
            else:
                self._stand_by()
        learning_rate = self._learning_rate()
        grad_norm, stepped = self._backend.update(learning_rate)
        tally.add_step(learning_rate, grad_norm, stepped)
        if stepped:
            self._on_step()

    def _backward(self, work: Work, num_active: int, tally: BatchTally) -> None:
        """Train on one micro-batch: its share of the mean over the mini-batch's tokens on all ranks."""
        experiences, active = [experience for experience, _ in work], [keep for _, keep in work]
        loss = MicroBatchLoss(experiences, active, self._objective, self._device)
        batch = make_batch([scoring_item(e, keep, self._objective) for e, keep in work], self._device)
        scored = self._backend.forward(self._request(batch, loss))
        assert scored.total is not None
        assert scored.losses is not None
        self._backend.backward(scored.total / num_active)
        tally.add_tokens(scored.losses, scored.log_probs, loss)
        tally.num_tokens += batch.input_ids.numel()

    def _stand_by(self) -> None:
        """Let a rank without work take part in the others' collectives, with weight zero."""
        batch = idle_batch(
            self._objective.needs.support_size if asked_support(self._objective) == "given" else 0, self._device
        )
        scored = self._backend.forward(self._request(batch, _weightless))
        assert scored.total is not None
        self._backend.backward(scored.total)

    def _request(self, batch: ScoringBatch, loss: TokenLoss) -> ScoreRequest:
        support = asked_support(self._objective)
        return ScoreRequest(batch=batch, temperature=self._temperature, support=support, loss=loss)

    def _learning_rate(self) -> float:
        """Return the learning rate: linear warm-up over optimizer steps, then constant."""
        settings = self._settings
        if not settings.warmup_steps:
            return settings.learning_rate
        return settings.learning_rate * min(1.0, (self._backend.optimizer_step + 1) / settings.warmup_steps)


def _num_active(work: Work) -> int:
    return sum(int(keep.sum()) for _, keep in work)


def _weightless(student: TokenLogProbs, rows: slice) -> torch.Tensor:
    return 0.0 * student.sampled
