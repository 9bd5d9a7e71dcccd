"""Importance weights of sampled tokens (paper, section 3; the two factors are capped apart, their product is not).

N tokens; log-probs [N] of the sampled token under three policies: the student pi_theta, the learner before the
batch's first step pi_old, and the engine that sampled pi_roll.
"""

import math

from torch import Tensor

from sdpo.objectives.base import TokenMetrics
from sdpo.token_targets import StudentLogProbs, TokenTargets, log_old

LARGEST_LOG_RATIO = 20.0


def clamped_ratio(log_a: Tensor, log_b: Tensor) -> Tensor:
    """Return exp(log a - log b), with the difference kept within 20 so that it cannot overflow; flat beyond."""
    return (log_a - log_b).clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO).exp()


def truncated_weight(log_a: Tensor, log_b: Tensor, cap: float) -> Tensor:
    """Return the one-sided importance weight min(a / b, cap), detached. Ratios below 1 are kept."""
    return clamped_ratio(log_a.detach(), log_b.detach()).clamp(max=cap)


def staleness_weight(student_N: Tensor, old_N: Tensor | None, is_clip: float | None) -> Tensor | float:
    """Return w = min(pi_theta / pi_old, is_clip), detached; 1 on the batch's first step and without a cap."""
    if old_N is None or is_clip is None:
        return 1.0
    return truncated_weight(student_N, old_N, is_clip)


def engine_weight(
    student_N: Tensor, old_N: Tensor | None, behaviour_N: Tensor, tis_clip: float | None
) -> Tensor | float:
    """Return u = min(pi_old / pi_roll, tis_clip), detached, pi_old = pi_theta on the first step; 1 without a cap."""
    if tis_clip is None:
        return 1.0
    return truncated_weight(student_N if old_N is None else old_N, behaviour_N, tis_clip)


def engine_metrics(student: StudentLogProbs, targets: TokenTargets, tis_clip: float | None) -> TokenMetrics:
    """Return where pi_old's ratio to the engine lies above its cap; nothing without a cap."""
    if tis_clip is None:
        return {}
    return {"tis_clipped_fraction": (log_old(student, targets) - targets.behaviour > math.log(tis_clip), None)}


def staleness_metrics(student: StudentLogProbs, targets: TokenTargets, is_clip: float | None) -> TokenMetrics:
    """Return where the ratio to pi_old lies above its cap, of tokens that a teacher scored; nothing without a cap."""
    if is_clip is None:
        return {}
    above_N = student.sampled - log_old(student, targets) > math.log(is_clip)
    return {"is_clipped_fraction": (above_N, targets.has_teacher)}
