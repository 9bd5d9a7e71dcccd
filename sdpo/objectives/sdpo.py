"""Self-distillation policy optimisation: the student follows a teacher that reads the attempt's outcome (section 3)."""

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import model_validator

from sdpo.bounds import Clip, Coefficient, CountOrZero, Mib, Probability, Share
from sdpo.divergence import DIVERGENCES
from sdpo.objectives.base import Needs, Objective, SupportSource, TokenMetrics
from sdpo.objectives.grpo import ClippedPolicyGradient
from sdpo.section import OneOf

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from sdpo.token_targets import StudentLogProbs, TokenTargets

ESTIMATORS: dict[str, bool] = {"support": True, "sampled_token": False, "sequence": False, "clipped_surrogate": True}
"""By name, whether the estimate looks at more than the sampled tokens. `sdpo.estimators.ESTIMATORS` computes them."""


class SdpoObjective(Objective):
    """Self-distillation policy optimisation (paper, section 3)."""

    label: ClassVar[str] = "SDPO"
    metric_names: ClassVar[tuple[str, ...]] = ("is_clipped_fraction", "tis_clipped_fraction", "grpo_clipped_fraction")

    kind: Literal["sdpo"]
    """Self-distillation: move the student's next-token distribution towards the teacher's."""
    estimator: Annotated[str, OneOf(ESTIMATORS)] = "support"
    """support: the divergence over the support's bins; sampled_token: its single-sample gradient; sequence: as that,
    with a response's mean advantage on each of its tokens; clipped_surrogate: paper eq. 13, clipped per bin (before a
    batch's second step there is nothing to clip: it is the reverse KL)."""
    divergence: Annotated[str, OneOf(DIVERGENCES)] = "js"
    """KL(q||p), KL(p||q), or the generalised Jensen-Shannon divergence between them (p student, q teacher).
    Estimators other than support estimate reverse_kl."""
    js_teacher_weight: Share = 0.5
    """Weight of the teacher's side in the JS mixture (the paper's alpha)."""
    support: SupportSource = "rollout"
    """Whose K most likely tokens carry the divergence: the engine's while it sampled, the learner's before the first
    step of the batch, or the teacher's; full: the whole vocabulary, under full_support_mib."""
    top_k: CountOrZero = 20
    """Support size K; 0 exactly where the estimator looks at sampled tokens only, and with support=full."""
    tail: bool = True
    """Add one bucket for the mass outside the support; without it both sides are renormalised over it."""
    full_support_mib: Mib = 1024.0
    """support=full: most memory for the teacher's whole distributions of one batch; a run that could need more is
    refused."""
    is_clip: Clip | None = 2.0
    """One-sided cap of the per-token ratio of the policy to the one before the batch's first step; none: no ratio.
    clipped_surrogate has its own clips instead."""
    tis_clip: Clip | None = 2.0
    """Cap of the per-token ratio of the policy before the batch's first step to the engine; none: no ratio.
    clipped_surrogate with support=rollout caps that policy's bins at this many times the engine's."""
    advantage_clip: Clip | None = None
    """Bound of |log q - log p| per token and bin (paper, Table 12); of reverse_kl only. None: no bound."""
    surrogate_clip_low: Clip = 0.2
    """clipped_surrogate: lower clip of the ratio of each bin."""
    surrogate_clip_high: Clip = 0.28
    """clipped_surrogate: upper clip of the ratio of each bin."""
    grpo_weight: Probability = 0.0
    """Weight of the group-relative advantage in the mix (lambda of paper eq. 3); 0: self-distillation alone."""
    grpo: ClippedPolicyGradient = ClippedPolicyGradient()
    """The group-relative term of the mix."""
    reference_kl: Coefficient = 0.0
    """Weight of the KL to the initial model on the trained tokens (estimator k3); 0: no anchor."""

    @property
    def needs_support(self) -> bool:
        """Whether the loss looks at more than the sampled tokens."""
        return ESTIMATORS[self.estimator]

    @property
    def needs(self) -> Needs:
        mixed = self.grpo_weight > 0
        return Needs(
            teacher=True,
            unscored=mixed,
            advantage=mixed,
            reference=self.reference_kl > 0,
            support=self.support if self.needs_support else None,
            support_size=self.top_k,
            tail=self.tail,
            full_support_mib=self.full_support_mib,
            old_policy=self.estimator == "sequence",
            old_bins=self.estimator == "clipped_surrogate",
            sequence_advantage=self.estimator == "sequence",
        )

    def describe(self) -> str:
        support = f", support {self.support} of {self.top_k} tokens" if self.top_k else ""
        tail = " and a tail" if self.top_k and self.tail else ""
        mixed = f", mixed with GRPO at weight {self.grpo_weight:g}" if self.grpo_weight else ""
        return f"SDPO, {self.divergence} by estimator {self.estimator}{support}{tail}{mixed}"

    def summary(self) -> str:
        mixed = f", GRPO weight {self.grpo_weight:g}" if self.grpo_weight else ""
        estimator = "" if self.estimator == "support" else f", {self.estimator}"
        return f"{self.kind}, {self.divergence}{estimator}{mixed}"

    def token_losses(self, student: "StudentLogProbs", targets: "TokenTargets") -> "Tensor":
        """Return lambda GRPO + (1 - lambda) SDPO + beta KL to the initial model [N] (paper, eq. 3).

        With `grpo_weight` 0 a token without teacher scores gets 0 and belongs in no mean.
        """
        from sdpo.estimators import self_distillation
        from sdpo.policy_gradient import anchored, group_relative

        if self.grpo_weight == 0:
            loss_N = anchored(self_distillation(student, targets, self), student, targets, self.reference_kl)
            return loss_N.where(targets.has_teacher, 0.0)
        loss_N = self.grpo_weight * group_relative(student, targets, self.grpo, self.tis_clip)
        if self.grpo_weight < 1:
            distilled_N = self_distillation(student, targets, self).where(targets.has_teacher, 0.0)
            loss_N = loss_N + (1.0 - self.grpo_weight) * distilled_N
        return anchored(loss_N, student, targets, self.reference_kl)

    def token_metrics(self, student: "StudentLogProbs", targets: "TokenTargets") -> TokenMetrics:
        from sdpo.importance import engine_metrics, staleness_metrics
        from sdpo.policy_gradient import clip_metrics

        metrics = engine_metrics(student, targets, self.tis_clip)
        if self.estimator != "clipped_surrogate":
            metrics |= staleness_metrics(student, targets, self.is_clip)
        return metrics | clip_metrics(student, targets, self.grpo) if self.grpo_weight > 0 else metrics

    def sequence_advantage(
        self, teacher_log_probs_T: "NDArray[Any]", old_log_probs_T: "NDArray[Any]", model_mask_T: "NDArray[np.bool_]"
    ) -> "NDArray[Any]":
        from sdpo.advantages import sequence_advantages

        return sequence_advantages(teacher_log_probs_T, old_log_probs_T, model_mask_T, self.advantage_clip)

    @model_validator(mode="after")
    def _estimator_has_what_it_needs(self) -> Self:
        if self.estimator != "support" and self.divergence != "reverse_kl":
            raise ValueError(f"objective.divergence={self.divergence}: allowed with {self.estimator}: reverse_kl")
        if self.advantage_clip is not None and self.divergence != "reverse_kl":
            raise ValueError(f"objective.divergence={self.divergence}: allowed with advantage_clip: reverse_kl")
        if self.estimator == "clipped_surrogate" and self.support not in ("rollout", "student"):
            raise ValueError(f"objective.support={self.support}: allowed with clipped_surrogate: rollout, student")
        if not self.needs_support and self.support != "rollout":
            raise ValueError(
                f"objective.support={self.support}: allowed with {self.estimator}, which needs none: rollout"
            )
        if self.tail is False and self.estimator == "clipped_surrogate":
            raise ValueError("objective.tail=false: allowed with clipped_surrogate: true")
        sizeless = not self.needs_support or self.support == "full"
        if sizeless != (self.top_k == 0):
            allowed = "0" if sizeless else "1 and more"
            raise ValueError(
                f"objective.top_k={self.top_k}: allowed with estimator={self.estimator}, support={self.support}: "
                f"{allowed}"
            )
        return self
