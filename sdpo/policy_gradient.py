"""The group-relative surrogate (GRPO as the paper's baseline runs it) and the anchor to the initial model. N tokens."""

import torch
from torch import Tensor

from sdpo.importance import LARGEST_LOG_RATIO, clamped_ratio, engine_weight
from sdpo.objectives.base import TokenMetrics
from sdpo.objectives.grpo import ClippedPolicyGradient
from sdpo.token_targets import StudentLogProbs, TokenTargets, log_old, required


def group_relative(
    student: StudentLogProbs, targets: TokenTargets, clips: ClippedPolicyGradient, tis_clip: float | None
) -> Tensor:
    """Return the clipped policy gradient of the group-relative advantage times the engine's weight -> loss [N]."""
    loss_N = clipped_policy_gradient(student.sampled, targets.old, targets.advantage, clips)
    return loss_N * engine_weight(student.sampled, targets.old, targets.behaviour, tis_clip)


def anchored(loss_N: Tensor, student: StudentLogProbs, targets: TokenTargets, weight: float) -> Tensor:
    """Return the loss [N] plus `weight` times the KL to the initial model; the loss itself for weight 0."""
    if weight == 0:
        return loss_N
    return loss_N + weight * reference_kl(student.sampled, required(targets.reference, "reference"))


def clipped_policy_gradient(
    student_N: Tensor, old_N: Tensor | None, advantage_N: Tensor, clips: ClippedPolicyGradient
) -> Tensor:
    """Return -min(r A, clip(r, 1 - clip_low, 1 + clip_high) A) -> loss [N], with r = pi_theta / pi_old.

    With a negative advantage the loss is bounded by dual_clip * |A|. Without `old_N` r is 1 and carries the gradient.
    """
    advantage_N = advantage_N.detach()
    ratio_N = clamped_ratio(student_N, (student_N if old_N is None else old_N).detach())
    clipped_N = ratio_N.clamp(1.0 - clips.clip_low, 1.0 + clips.clip_high)
    loss_N = torch.maximum(-advantage_N * ratio_N, -advantage_N * clipped_N)
    bounded_N = torch.minimum(loss_N, -advantage_N * clips.dual_clip)
    return torch.where(advantage_N < 0, bounded_N, loss_N)


def reference_kl(student_N: Tensor, reference_N: Tensor) -> Tensor:
    """Return estimator k3 of KL(pi_theta||pi_ref): exp(d) - d - 1 with d = log pi_ref - log pi_theta -> [N].

    It is at least 0. d is cut at 20, beyond which it is flat. The gradient goes through the student.
    """
    log_ratio_N = (reference_N.detach() - student_N).clamp(max=LARGEST_LOG_RATIO)
    return log_ratio_N.exp() - log_ratio_N - 1.0


def clip_metrics(student: StudentLogProbs, targets: TokenTargets, clips: ClippedPolicyGradient) -> TokenMetrics:
    """Return where the group-relative term gives the token no gradient, because its ratio passed the clip."""
    ratio_N, rises_N = (student.sampled - log_old(student, targets)).exp(), targets.advantage > 0
    too_high_N = ratio_N > torch.where(rises_N, 1 + clips.clip_high, clips.dual_clip)
    too_low_N = ~rises_N & (ratio_N < 1 - clips.clip_low)
    return {"grpo_clipped_fraction": ((too_high_N | too_low_N) & (targets.advantage != 0), None)}
