"""The group-relative surrogate (GRPO as the paper's baseline runs it) and the anchor to the initial model. N tokens."""

import torch
from torch import Tensor

from sdpo.config import ClippedPolicyGradient
from sdpo.importance import LARGEST_LOG_RATIO, clamped_ratio


def clipped_policy_gradient(
    student_N: Tensor, old_N: Tensor | None, advantage_N: Tensor, clips: ClippedPolicyGradient
) -> Tensor:
    """-min(r A, clip(r, 1 - clip_low, 1 + clip_high) A) -> loss [N], with r = pi_theta / pi_old.

    With a negative advantage the loss is bounded by dual_clip * |A|. Without `old_N` r is 1 and carries the gradient.
    """
    advantage_N = advantage_N.detach()
    ratio_N = clamped_ratio(student_N, (student_N if old_N is None else old_N).detach())
    clipped_N = ratio_N.clamp(1.0 - clips.clip_low, 1.0 + clips.clip_high)
    loss_N = torch.maximum(-advantage_N * ratio_N, -advantage_N * clipped_N)
    bounded_N = torch.minimum(loss_N, -advantage_N * clips.dual_clip)
    return torch.where(advantage_N < 0, bounded_N, loss_N)


def reference_kl(student_N: Tensor, reference_N: Tensor) -> Tensor:
    """Estimator k3 of KL(pi_theta||pi_ref): exp(d) - d - 1 with d = log pi_ref - log pi_theta -> [N], at least 0.

    d is cut at 20, beyond which it is flat. The gradient goes through the student.
    """
    log_ratio_N = (reference_N.detach() - student_N).clamp(max=LARGEST_LOG_RATIO)
    return log_ratio_N.exp() - log_ratio_N - 1.0
