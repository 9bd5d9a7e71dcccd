"""Per-token losses of the objectives, and their reduction (paper, section 3, equations 1, 3 and 11).

N counts tokens, packed over attempts in any order. Losses are per token; the reduction is a token mean whose
numerator and count are returned apart, so that micro-batches and ranks can be added before dividing.
"""

import torch
from torch import Tensor

from sdpo.config import GrpoObjective, SdpoObjective
from sdpo.divergence import append_tail, divergence, renormalise
from sdpo.reference import sdpo_loss_reference

__all__ = ["grpo_token_loss", "sdpo_loss_reference", "sdpo_token_loss", "token_mean", "truncated_weight"]

LARGEST_LOG_RATIO = 20.0


def _ratio(log_prob_N: Tensor, reference_N: Tensor) -> Tensor:
    """exp of the log-prob difference, clamped so that it cannot overflow."""
    return (log_prob_N - reference_N).clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO).exp()


def truncated_weight(log_prob_N: Tensor, behaviour_N: Tensor, cap: float) -> Tensor:
    """One-sided importance weight min(ratio, cap) [N], detached. Ratios below 1 are kept."""
    return _ratio(log_prob_N.detach(), behaviour_N.detach()).clamp(max=cap)


def sdpo_token_loss(
    student_support_NK: Tensor,
    student_tail_N: Tensor,
    teacher_support_NK: Tensor,
    teacher_tail_N: Tensor,
    student_sampled_N: Tensor,
    behaviour_sampled_N: Tensor,
    objective: SdpoObjective,
) -> Tensor:
    """Divergence of student and teacher over the support's bins, times the importance weight -> loss [N].

    Log-probs are normalised over the whole vocabulary, at the run's temperature. The tails are used only if
    `objective.tail`. Neither the teacher nor the weight passes a gradient on.
    """
    teacher_support_NK, teacher_tail_N = teacher_support_NK.detach(), teacher_tail_N.detach()
    if objective.tail:
        student_bins = append_tail(student_support_NK, student_tail_N)
        teacher_bins = append_tail(teacher_support_NK, teacher_tail_N)
    else:
        student_bins, teacher_bins = renormalise(student_support_NK), renormalise(teacher_support_NK)
    loss_N = divergence(student_bins, teacher_bins, objective.divergence, objective.js_teacher_weight)
    if objective.is_clip is None:
        return loss_N
    return loss_N * truncated_weight(student_sampled_N, behaviour_sampled_N, objective.is_clip)


def grpo_token_loss(
    student_sampled_N: Tensor,
    old_sampled_N: Tensor,
    behaviour_sampled_N: Tensor,
    advantage_N: Tensor,
    objective: GrpoObjective,
) -> Tensor:
    """Clipped policy-gradient surrogate -> loss [N].

    The ratio to the old policy is clipped to [1 - clip_low, 1 + clip_high]; with a negative advantage the loss is
    bounded by dual_clip * |advantage|. The truncated weight old/behaviour corrects for the engine that sampled.
    """
    old_N = old_sampled_N.detach()
    ratio_N = _ratio(student_sampled_N, old_N)
    clipped_N = ratio_N.clamp(1.0 - objective.clip_low, 1.0 + objective.clip_high)
    loss_N = torch.maximum(-advantage_N * ratio_N, -advantage_N * clipped_N)
    bounded_N = torch.minimum(loss_N, -advantage_N * objective.dual_clip)
    loss_N = torch.where(advantage_N < 0, bounded_N, loss_N)
    if objective.tis_clip is None:
        return loss_N
    return loss_N * truncated_weight(old_N, behaviour_sampled_N, objective.tis_clip)


def token_mean(loss: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the losses where `mask` (same shape, bool or 0/1) and the number of those tokens, as two scalars.

    Values outside the mask do not matter, not even NaN. With nothing in the mask the numerator is 0 and still
    attached to the graph: divide by the count (at least 1) of the whole optimizer step.
    """
    inside = mask.bool()
    return torch.where(inside, loss, 0.0).sum(), inside.sum()
