"""The objectives written for reading: one token at a time, in probabilities, from full logits. The oracle of the tests.

p is the student, q the teacher, y the sampled token; pi_old is the learner before the batch's first step, pi_roll the
engine that sampled. `Objective.token_losses` computes the same from gathered log-probs of packed tokens; the
divergences have their formulas in `sdpo.divergence`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdpo.divergence import DIVERGENCES
from sdpo.objectives.grpo import ClippedPolicyGradient, GrpoObjective
from sdpo.objectives.registry import ObjectiveConfig
from sdpo.objectives.sdpo import SdpoObjective


@dataclass(frozen=True, slots=True, kw_only=True)
class FullBatch:
    """B attempts of T tokens over a vocabulary of V. Logits at position t are those that predict token t.

    Optional: `old_*` is None on the first step on these weights, where pi_old is the student without gradient.
    """

    student_logits: Tensor
    """[B, T, V]."""
    teacher_logits: Tensor
    """[B, T, V], reading the hindsight prompt."""
    response_ids: Tensor
    """int64 [B, T]."""
    response_mask: Tensor
    """bool [B, T]: tokens that the model wrote (no padding, none of the environment's)."""
    has_teacher: Tensor
    """bool [B]: the teacher had something to tell about this attempt."""
    rollout_log_probs: Tensor
    """[B, T] log pi_roll of the sampled tokens."""
    advantages: Tensor
    """[B] group-relative advantage."""
    old_log_probs: Tensor | None = None
    """[B, T] log pi_old of the sampled tokens."""
    support_ids: Tensor | None = None
    """int64 [B, T, K], the engine's most likely tokens, for `support: rollout`."""
    old_logits: Tensor | None = None
    """[B, T, V] for `support: student` and the clipped surrogate."""
    rollout_logits: Tensor | None = None
    """[B, T, V] for the clipped surrogate with `support: rollout`."""
    reference_log_probs: Tensor | None = None
    """[B, T] log-probs of the sampled tokens under the initial model, for `reference_kl`."""
    initial_teacher_logits: Tensor | None = None
    """[B, T, V] for the trust-region teacher: the initial model, reading the hindsight prompt too."""
    trust_region_rate: float = 1.0
    """Weight of `teacher_logits` beside those."""


def loss_from_logits(batch: FullBatch, objective: ObjectiveConfig, temperature: float) -> Tensor:
    """Return the mean loss over the tokens that count (0 if none), a scalar. Only the student's logits get a gradient.

    Tokens of the model count; with pure self-distillation only those of attempts that have a teacher.
    """
    total, count = 0.0 * batch.student_logits.sum(), 0
    for b, t in torch.nonzero(batch.response_mask).tolist():
        if batch.has_teacher[b] or objective.needs.unscored:
            loss = LOSSES[objective.kind](_Token(batch, b, t, temperature), objective)
            total, count = total + loss, count + 1
    return total / max(count, 1)


class _Token:
    """What one token's loss sees: distributions [V], and probabilities of y. All but the student without gradient."""

    def __init__(self, batch: FullBatch, b: int, t: int, temperature: float) -> None:
        def distribution(logits_BTV: Tensor) -> Tensor:
            return torch.softmax(logits_BTV[b, t] / temperature, -1)

        def constant(log_probs_BT: Tensor) -> Tensor:
            return log_probs_BT[b, t].detach().exp()

        self.batch, self.b, self.t, self.temperature = batch, b, t, temperature
        self.y = int(batch.response_ids[b, t])
        self.p = distribution(batch.student_logits)
        self.q = distribution(batch.teacher_logits).detach()
        if batch.initial_teacher_logits is not None:
            q = distribution(batch.initial_teacher_logits).detach() ** (1 - batch.trust_region_rate)
            q = q * self.q**batch.trust_region_rate
            self.q = q / q.sum()
        self.first_step = batch.old_log_probs is None
        self.old_y = self.p[self.y].detach() if batch.old_log_probs is None else constant(batch.old_log_probs)
        self.rollout_y = constant(batch.rollout_log_probs)
        self.reference_y = None if batch.reference_log_probs is None else constant(batch.reference_log_probs)
        self.old = self.p.detach() if batch.old_logits is None else distribution(batch.old_logits).detach()
        self.rollout = None if batch.rollout_logits is None else distribution(batch.rollout_logits).detach()
        self.given_support = None if batch.support_ids is None else batch.support_ids[b, t]
        self.advantage = float(batch.advantages[b])
        self.has_teacher = bool(batch.has_teacher[b])


def _sdpo(token: _Token, objective: SdpoObjective) -> Tensor:
    """Return lambda GRPO + (1 - lambda) SDPO + beta KL to the initial model (eq. 3)."""
    loss = objective.grpo_weight * _group_relative(token, objective.grpo, objective.tis_clip)
    if token.has_teacher:
        loss = loss + (1 - objective.grpo_weight) * _self_distillation(token, objective)
    return loss + objective.reference_kl * _reference_kl(token)


def _grpo(token: _Token, objective: GrpoObjective) -> Tensor:
    """Return GRPO + beta KL to the initial model."""
    return _group_relative(token, objective, objective.tis_clip) + objective.reference_kl * _reference_kl(token)


LOSSES: dict[str, Callable[[_Token, Any], Tensor]] = {"sdpo": _sdpo, "grpo": _grpo}
"""By `objective.kind`."""


def _reference_kl(token: _Token) -> Tensor | float:
    """Return estimator k3 of the KL to the initial model; 0 without its log-probs."""
    if token.reference_y is None:
        return 0.0
    ratio = token.reference_y / token.p[token.y]
    return ratio - 1 - torch.log(ratio)


def _group_relative(token: _Token, clips: ClippedPolicyGradient, tis_clip: float | None) -> Tensor:
    """Return the clipped policy gradient: an attempt that did well is pushed up to a bound, one that did badly down to
    another.
    """
    ratio = token.p[token.y] / token.old_y
    if token.advantage >= 0:
        bounded = ratio.clamp(max=1 + clips.clip_high)
    else:
        bounded = ratio.clamp(min=1 - clips.clip_low, max=clips.dual_clip)
    return -token.advantage * bounded * _capped(token.old_y / token.rollout_y, tis_clip)


def _self_distillation(token: _Token, objective: SdpoObjective) -> Tensor:
    """Return one of the four estimates, times the two importance weights."""
    staleness = 1.0 if token.first_step else _capped(token.p[token.y].detach() / token.old_y, objective.is_clip)
    engine = _capped(token.old_y / token.rollout_y, objective.tis_clip)
    if objective.estimator == "support":
        return _support_divergence(token, objective) * staleness * engine
    if objective.estimator == "sampled_token":
        advantage = _advantage(token.p[token.y], token.q[token.y], objective)
        return -advantage * torch.log(token.p[token.y]) * staleness * engine
    if objective.estimator == "sequence":
        return -_mean_advantage(token, objective) * torch.log(token.p[token.y]) * staleness * engine
    return _clipped_surrogate(token, objective) * (1.0 if objective.support == "rollout" else engine)


def _capped(ratio: Tensor, cap: float | None) -> Tensor | float:
    return 1.0 if cap is None else ratio.clamp(max=cap)


def _advantage(p: Tensor, q: Tensor, objective: SdpoObjective) -> Tensor:
    """Return log(q / p) as a number, bounded by `advantage_clip`."""
    bound = float("inf") if objective.advantage_clip is None else objective.advantage_clip
    return torch.log(q / p).detach().clamp(-bound, bound)


def _mean_advantage(token: _Token, objective: SdpoObjective) -> Tensor:
    """Return the mean of log(q / pi_old) over the sampled tokens of the attempt."""
    written = torch.nonzero(token.batch.response_mask[token.b]).flatten().tolist()
    others = [_Token(token.batch, token.b, t, token.temperature) for t in written]
    return torch.stack([_advantage(o.old_y, o.q[o.y], objective) for o in others]).mean()


def _support_divergence(token: _Token, objective: SdpoObjective) -> Tensor:
    p, q = (_bins(x, token, objective) for x in (token.p, token.q))
    if objective.advantage_clip is not None:
        return -(p * _advantage(p, q, objective)).sum()
    return DIVERGENCES[objective.divergence].formula(p, q, objective.js_teacher_weight)


def _clipped_surrogate(token: _Token, objective: SdpoObjective) -> Tensor:
    """Return the surrogate of the paper's eq. 13: the policy gradient of every bin, with the ratio to pi_old clipped as
    PPO does.
    """
    p, q, old = (_bins(x, token, objective) for x in (token.p, token.q, token.old))
    weight = old
    if objective.support == "rollout" and objective.tis_clip is not None:
        assert token.rollout is not None
        weight = torch.minimum(old, objective.tis_clip * _bins(token.rollout, token, objective))
    loss = torch.zeros((), dtype=p.dtype)
    for v in range(len(p)):
        advantage, ratio = _advantage(p[v], q[v], objective), p[v] / old[v]
        if advantage >= 0:
            bounded = ratio.clamp(max=1 + objective.surrogate_clip_high)
        else:
            bounded = ratio.clamp(min=1 - objective.surrogate_clip_low)
        loss = loss - weight[v] * bounded * advantage
    return loss


def _bins(probs_V: Tensor, token: _Token, objective: SdpoObjective) -> Tensor:
    """Return the probabilities of the support's tokens and of all others together; or of the support alone,
    renormalised.
    """
    if objective.support == "full":
        return probs_V
    support = token.given_support
    if objective.support != "rollout":
        support = (token.old if objective.support == "student" else token.q).topk(objective.top_k).indices
    assert support is not None
    inside = probs_V[support]
    if not objective.tail:
        return inside / inside.sum()
    outside = [v for v in range(len(probs_V)) if v not in support.tolist()]
    return torch.cat([inside, probs_V[outside].sum().unsqueeze(0)])
