"""The four estimates of the self-distillation loss of a token, before importance weights (paper, section 3).

N tokens, K support bins, and one more bin for the tail. p is the student, q the teacher, y the sampled token.
Seen as a policy gradient (Proposition 2.1) a bin's advantage is A = sg(log q - log p).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from sdpo.bins import append_tail, bins
from sdpo.divergence import divergence
from sdpo.importance import clamped_ratio, engine_weight, staleness_weight
from sdpo.objectives.sdpo import SdpoObjective
from sdpo.token_targets import StudentLogProbs, TokenTargets, required


def self_distillation(student: StudentLogProbs, targets: TokenTargets, objective: SdpoObjective) -> Tensor:
    """Return the estimate that `objective.estimator` names times the importance weights -> loss [N].

    The clipped surrogate corrects its bins itself (eq. 13): for staleness always, for the engine where the engine's own
    bins are at hand. Raises `ValueError` if a tensor that the estimator needs is None.
    """
    loss_N = ESTIMATORS[objective.estimator](student, targets, objective)
    surrogate = objective.estimator == "clipped_surrogate"
    if not surrogate:
        loss_N = loss_N * staleness_weight(student.sampled, targets.old, objective.is_clip)
    if surrogate and objective.support == "rollout":
        return loss_N
    return loss_N * engine_weight(student.sampled, targets.old, targets.behaviour, objective.tis_clip)


def support_divergence(student: StudentLogProbs, targets: TokenTargets, objective: SdpoObjective) -> Tensor:
    """Return the divergence between student and teacher over the support's bins -> [N] (eq. 11).

    With `advantage_clip` the reverse KL is written as sum of p sg(log p - log q): its value and, the bins' p adding
    up to 1, its gradient are those of the KL as long as nothing is clipped.
    """
    log_p, log_q = _student_bins(student, objective), _teacher_bins(targets, objective)
    if objective.advantage_clip is None:
        return divergence(log_p, log_q, objective.divergence, objective.js_teacher_weight)
    return -(log_p.exp() * advantages(log_p, log_q, objective.advantage_clip)).sum(-1)


def sampled_token(student: StudentLogProbs, targets: TokenTargets, objective: SdpoObjective) -> Tensor:
    """Return sg(log p(y) - log q(y)) log p(y) -> [N]. Only its gradient means something: over y ~ p its mean is the
    reverse KL's. The value may be negative."""
    log_q_N = required(targets.teacher_sampled, "teacher_sampled")
    return -advantages(student.sampled, log_q_N, objective.advantage_clip) * student.sampled


def sequence(student: StudentLogProbs, targets: TokenTargets, objective: SdpoObjective) -> Tensor:
    """Return -A log p(y) with the attempt's mean advantage A on each of its tokens -> [N]."""
    return -required(targets.sequence_advantage, "sequence_advantage").detach() * student.sampled


def clipped_surrogate(student: StudentLogProbs, targets: TokenTargets, objective: SdpoObjective) -> Tensor:
    """Return -sum over bins of pi_old min(r A, clip(r, 1 - low, 1 + high) A), r = p / pi_old -> [N] (eq. 13).

    With `support: rollout` pi_old is truncated at `tis_clip` times the engine's bin. Without clips and truncation
    the value is KL(p||q) and the gradient is the KL's. A bin that p or pi_old leaves empty adds nothing.
    """
    log_p = append_tail(required(student.support, "support"), required(student.tail, "tail"))
    log_old = log_p.detach()
    if targets.old_support is not None:
        log_old = append_tail(targets.old_support, required(targets.old_tail, "old_tail")).detach()
    empty = torch.isneginf(log_p) | torch.isneginf(log_old)
    advantage = advantages(log_p, _teacher_bins(targets, objective), objective.advantage_clip)
    advantage = advantage.masked_fill(empty, 0.0)
    ratio = clamped_ratio(torch.where(empty, 0.0, log_p), torch.where(empty, 0.0, log_old))
    clipped = ratio.clamp(1.0 - objective.surrogate_clip_low, 1.0 + objective.surrogate_clip_high)
    weight = log_old.exp()
    if objective.support == "rollout" and objective.tis_clip is not None:
        weight = torch.minimum(weight, objective.tis_clip * _behaviour_bins(targets).exp())
    gain = torch.minimum(ratio * advantage, clipped * advantage)
    return -(weight * gain).sum(-1)


def advantages(log_p: Tensor, log_q: Tensor, bound: float | None) -> Tensor:
    """Return sg(log q - log p), within +-`bound`; 0 where p is 0. Any shape."""
    log_p, log_q = log_p.detach(), log_q.detach()
    gap = (log_q - log_p).masked_fill(torch.isneginf(log_p), 0.0)
    return gap if bound is None else gap.clamp(-bound, bound)


def _student_bins(student: StudentLogProbs, objective: SdpoObjective) -> Tensor:
    return bins(required(student.support, "support"), student.tail, objective.needs)


def _teacher_bins(targets: TokenTargets, objective: SdpoObjective) -> Tensor:
    return bins(required(targets.teacher_support, "teacher_support"), targets.teacher_tail, objective.needs).detach()


def _behaviour_bins(targets: TokenTargets) -> Tensor:
    support = required(targets.behaviour_support, "behaviour_support")
    return append_tail(support, required(targets.behaviour_tail, "behaviour_tail")).detach()


ESTIMATORS: dict[str, Callable[[StudentLogProbs, TokenTargets, SdpoObjective], Tensor]] = {
    "support": support_divergence,
    "sampled_token": sampled_token,
    "sequence": sequence,
    "clipped_surrogate": clipped_surrogate,
}
"""By the name that `objective.estimator` takes; `sdpo.objectives.sdpo.ESTIMATORS` declares them."""
