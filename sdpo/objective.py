"""Per-token losses of the objectives, and their reduction (paper, section 3, equations 1, 3, 11 and 13).

N counts tokens, packed over attempts in any order. Losses are per token; the reduction is a token mean whose
numerator and count are returned apart, so that micro-batches and ranks can be added before dividing.
`sdpo.reference` says the same in plain loops over full logits: read that first.
"""

import torch
from torch import Tensor

from sdpo.config import ClippedPolicyGradient, GrpoObjective, SdpoObjective
from sdpo.estimators import estimate
from sdpo.importance import engine_weight, staleness_weight
from sdpo.policy_gradient import clipped_policy_gradient, reference_kl
from sdpo.token_targets import StudentLogProbs, TokenTargets, required

__all__ = ["StudentLogProbs", "TokenTargets", "token_losses", "token_mean"]


def token_losses(student: StudentLogProbs, targets: TokenTargets, objective: SdpoObjective | GrpoObjective) -> Tensor:
    """The loss of each token -> [N]; only the student gets a gradient.

    Importance weights are in it, the anchor to the initial model too. With `grpo_weight` 0 a token without teacher
    scores gets 0 and belongs in no mean. Raises `ValueError` if a tensor that the objective needs is None.
    """
    if isinstance(objective, GrpoObjective):
        return _anchored(_group_relative(student, targets, objective, objective.tis_clip), student, targets, objective)
    if objective.grpo_weight == 0:
        loss_N = _anchored(_self_distillation(student, targets, objective), student, targets, objective)
        return torch.where(targets.has_teacher, loss_N, 0.0)
    loss_N = objective.grpo_weight * _group_relative(student, targets, objective.grpo, objective.tis_clip)
    if objective.grpo_weight < 1:
        distilled_N = torch.where(targets.has_teacher, _self_distillation(student, targets, objective), 0.0)
        loss_N = loss_N + (1.0 - objective.grpo_weight) * distilled_N
    return _anchored(loss_N, student, targets, objective)


def _self_distillation(student: StudentLogProbs, targets: TokenTargets, objective: SdpoObjective) -> Tensor:
    """Estimate times importance weights [N]. The clipped surrogate corrects its bins itself (eq. 13): for staleness
    always, for the engine where the engine's own bins are at hand."""
    loss_N = estimate(student, targets, objective)
    surrogate = objective.estimator == "clipped_surrogate"
    if not surrogate:
        loss_N = loss_N * staleness_weight(student.sampled, targets.old, objective.is_clip)
    if surrogate and objective.support == "rollout":
        return loss_N
    return loss_N * engine_weight(student.sampled, targets.old, targets.behaviour, objective.tis_clip)


def _group_relative(
    student: StudentLogProbs, targets: TokenTargets, clips: ClippedPolicyGradient, tis_clip: float | None
) -> Tensor:
    loss_N = clipped_policy_gradient(student.sampled, targets.old, targets.advantage, clips)
    return loss_N * engine_weight(student.sampled, targets.old, targets.behaviour, tis_clip)


def _anchored(
    loss_N: Tensor, student: StudentLogProbs, targets: TokenTargets, objective: SdpoObjective | GrpoObjective
) -> Tensor:
    """The loss plus the weighted KL to the initial model."""
    if objective.reference_kl == 0:
        return loss_N
    anchor_N = reference_kl(student.sampled, required(targets.reference, "reference"))
    return loss_N + objective.reference_kl * anchor_N


def token_mean(loss: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the losses where `mask` (same shape, bool or 0/1) and the number of those tokens, as two scalars.

    Values outside the mask do not matter, not even NaN. With nothing in the mask the numerator is 0 and still
    attached to the graph: divide by the count (at least 1) of the whole optimizer step.
    """
    inside = mask.bool()
    return torch.where(inside, loss, 0.0).sum(), inside.sum()
