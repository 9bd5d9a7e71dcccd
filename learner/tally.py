"""What the optimizer steps of one rollout batch measured, over their tokens and all ranks.

N active tokens of one micro-batch.
"""

import math
from collections.abc import Sequence

import torch
import torch.distributed as dist

from learner.loss import MicroBatchLoss
from learner.scoring import TokenLogProbs
from sdpo.objectives.base import Objective
from sdpo.policy_gradient import reference_kl
from sdpo.token_targets import log_old
from sdpo.types import Experience

MEANS = (
    "loss",
    "entropy",
    "engine_gap_mean",
    "reference_kl",
    "signal_fraction",
    "teacher_gap",
    "teacher_kl",
    "teacher_entropy",
)
"""Means over tokens that every objective has, beside `Objective.metric_names`.

They are exact whatever the micro-batches and ranks: over the active tokens; the teacher's three over those
that a teacher scored; signal_fraction over all that the model wrote in the attempts given to the learner. One without
tokens is left out.

loss: the objective, importance weights and anchor included. entropy, teacher_entropy: nats, of the student and the
teacher. teacher_gap: log q - log p of the sampled token. teacher_kl: see `learner.loss.MicroBatchLoss`.
engine_gap: |log pi_old - log pi_roll| of the sampled token, with pi_old the student itself on the first step.
reference_kl: estimator k3. signal_fraction: a teacher scored the token, or the objective uses its group-relative
advantage and that is not 0.
"""


class BatchTally:
    """Collects per-token values without gradients; `metrics` reduces them over all ranks (a collective)."""

    def __init__(self, device: torch.device, objective: Objective) -> None:
        self._device, self._names = device, (*MEANS, *objective.metric_names)
        self._sums = torch.zeros(len(self._names), dtype=torch.float64, device=device)
        self._counts = torch.zeros_like(self._sums)
        self._engine_gaps: list[torch.Tensor] = []
        self._num_active = self._num_left_out = 0
        self._grad_norms: list[float] = []
        self._learning_rate: float | None = None
        self.num_tokens = self.steps_idle = self.steps_not_finite = 0

    @torch.no_grad()
    def add_tokens(self, losses_N: torch.Tensor, student: TokenLogProbs, loss: MicroBatchLoss) -> None:
        """Add one micro-batch after its forward: `losses_N` [N] and the student's log-probs as `loss` saw them."""
        targets, objective = loss.targets, loss.objective
        engine_gap_N = (log_old(student, targets) - targets.behaviour).abs()
        self._engine_gaps.append(engine_gap_N)
        self._num_active += len(losses_N)
        self._add("loss", losses_N)
        self._add("entropy", student.entropy)
        self._add("engine_gap_mean", engine_gap_N)
        for name, (values_N, where_N) in objective.token_metrics(student, targets).items():
            self._add(name, values_N, where_N)
        if targets.reference is not None:
            self._add("reference_kl", reference_kl(student.sampled, targets.reference))
        has_signal_N = targets.has_teacher
        if objective.needs.advantage:
            has_signal_N = has_signal_N | (targets.advantage != 0)
        self._add("signal_fraction", has_signal_N)
        if targets.teacher_sampled is not None:
            self._add("teacher_gap", targets.teacher_sampled - student.sampled, targets.has_teacher)
            self._add("teacher_kl", loss.teacher_kl, targets.has_teacher)
            self._add("teacher_entropy", loss.teacher_entropy, targets.has_teacher)

    def add_left_out(self, experiences: Sequence[Experience]) -> None:
        """Count the attempts of this rank without an active token."""
        self._num_left_out += sum(int(experience.rollout.model_mask.sum()) for experience in experiences)

    def add_step(self, learning_rate: float, grad_norm: float, stepped: bool) -> None:
        """Record what the backend answered; the same on all ranks. `grad_norm` is that before clipping."""
        self._learning_rate = learning_rate
        if stepped:
            self._grad_norms.append(grad_norm)
        else:
            self.steps_not_finite += 1

    def metrics(self) -> dict[str, float]:
        """Return the means; `engine_gap_p99`, the gap that 99 % of the active tokens do not pass; `active_tokens`, and
        `tokens` that went through the model, prompts included; and of the mini-batches `steps_taken`, `steps_idle` (no
        active token), `steps_not_finite`, and where a step was taken `grad_norm` (mean), `grad_norm_max` and the last
        `learning_rate`.
        """
        return self._token_metrics() | self._step_metrics()

    def _step_metrics(self) -> dict[str, float]:
        norms = self._grad_norms
        found = {
            "steps_taken": float(len(norms)),
            "steps_idle": float(self.steps_idle),
            "steps_not_finite": float(self.steps_not_finite),
        }
        if norms and self._learning_rate is not None:
            found |= {"grad_norm": sum(norms) / len(norms), "grad_norm_max": max(norms)}
            found["learning_rate"] = self._learning_rate
        return found

    def _token_metrics(self) -> dict[str, float]:
        work = [self._num_active, self.num_tokens, self._num_left_out]
        totals = torch.cat([self._sums, self._counts, torch.tensor(work, dtype=torch.float64, device=self._device)])
        dist.all_reduce(totals)
        size = len(self._names)
        sums, counts = totals[:size].tolist(), totals[size : 2 * size].tolist()
        num_active, num_tokens, num_left_out = (int(n) for n in totals[2 * size :].tolist())
        counts[self._names.index("signal_fraction")] += num_left_out
        found = {name: total / n for name, total, n in zip(self._names, sums, counts, strict=True) if n}
        if num_active:
            found["engine_gap_p99"] = self._gap_quantile(num_active)
        return found | {"active_tokens": float(num_active), "tokens": float(num_tokens)}

    def _gap_quantile(self, num_active: int) -> float:
        """Return the gap of rank ceil(0.99 N) from the smallest, exact: every rank sends its largest N - ceil(0.99 N) +
        1.
        """
        size = num_active - math.ceil(num_active * 99 / 100) + 1
        gaps = torch.cat(self._engine_gaps) if self._engine_gaps else torch.zeros(0, device=self._device)
        largest = torch.full((size,), -1.0, device=self._device)
        kept = gaps.topk(min(size, len(gaps))).values
        largest[: len(kept)] = kept
        everyones = [torch.empty_like(largest) for _ in range(dist.get_world_size())]
        dist.all_gather(everyones, largest)
        return float(torch.cat(everyones).topk(size).values[-1])

    def _add(self, name: str, values_N: torch.Tensor, where_N: torch.Tensor | None = None) -> None:
        index = self._names.index(name)
        if where_N is None:
            where_N = torch.ones_like(values_N, dtype=torch.bool)
        self._sums[index] += torch.where(where_N, values_N, 0).double().sum()
        self._counts[index] += where_N.sum()
