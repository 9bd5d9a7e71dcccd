"""The objective and the hindsight prompt."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from sdpo.config.base import Section


class ClippedPolicyGradient(Section):
    """The group-relative term: paper baseline, and the other half of the mix (paper, eq. 3)."""

    clip_low: float = Field(default=0.2, gt=0)
    """Lower clip of the ratio."""
    clip_high: float = Field(default=0.28, gt=0)
    """Upper clip of the ratio."""
    dual_clip: float = Field(default=3.0, gt=1)
    """Bound for negative advantages."""


class SdpoObjective(Section):
    """Self-distillation policy optimisation (paper, section 3)."""

    kind: Literal["sdpo"]
    """Self-distillation: move the student's next-token distribution towards the teacher's."""
    estimator: Literal["support", "sampled_token", "sequence", "clipped_surrogate"] = "support"
    """support: the divergence over the support's bins; sampled_token: its single-sample gradient; sequence: as that,
    with a response's mean advantage on each of its tokens; clipped_surrogate: paper eq. 13, clipped per bin (before a
    batch's second step there is nothing to clip: it is the reverse KL)."""
    divergence: Literal["forward_kl", "reverse_kl", "js"] = "js"
    """KL(q||p), KL(p||q), or the generalised Jensen-Shannon divergence between them (p student, q teacher).
    Estimators other than support estimate reverse_kl."""
    js_teacher_weight: float = Field(default=0.5, gt=0, lt=1)
    """Weight of the teacher's side in the JS mixture (the paper's alpha)."""
    support: Literal["rollout", "student", "teacher", "full"] = "rollout"
    """Whose K most likely tokens carry the divergence: the engine's while it sampled, the learner's before the first
    step of the batch, or the teacher's; full: the whole vocabulary, under full_support_mib."""
    top_k: int = Field(default=20, ge=0)
    """Support size K; 0 exactly where the estimator looks at sampled tokens only, and with support=full."""
    tail: bool = True
    """Add one bucket for the mass outside the support; without it both sides are renormalised over it."""
    full_support_mib: float = Field(default=1024.0, gt=0)
    """support=full: most memory for the teacher's whole distributions of one batch; a run that could need more is
    refused."""
    is_clip: float | None = Field(default=2.0, gt=0)
    """One-sided cap of the per-token ratio of the policy to the one before the batch's first step; none: no ratio.
    clipped_surrogate has its own clips instead."""
    tis_clip: float | None = Field(default=2.0, gt=0)
    """Cap of the per-token ratio of the policy before the batch's first step to the engine; none: no ratio.
    clipped_surrogate with support=rollout caps that policy's bins at this many times the engine's."""
    advantage_clip: float | None = Field(default=None, gt=0)
    """Bound of |log q - log p| per token and bin (paper, Table 12); of reverse_kl only. None: no bound."""
    surrogate_clip_low: float = Field(default=0.2, gt=0)
    """clipped_surrogate: lower clip of the ratio of each bin."""
    surrogate_clip_high: float = Field(default=0.28, gt=0)
    """clipped_surrogate: upper clip of the ratio of each bin."""
    grpo_weight: float = Field(default=0.0, ge=0, le=1)
    """Weight of the group-relative advantage in the mix (lambda of paper eq. 3); 0: self-distillation alone."""
    grpo: ClippedPolicyGradient = ClippedPolicyGradient()
    """The group-relative term of the mix."""
    reference_kl: float = Field(default=0.0, ge=0)
    """Weight of the KL to the initial model on the trained tokens (estimator k3); 0: no anchor."""

    @property
    def needs_support(self) -> bool:
        """Whether the loss looks at more than the sampled tokens."""
        return self.estimator in ("support", "clipped_surrogate")

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


class GrpoObjective(ClippedPolicyGradient):
    """The baseline: group-relative policy optimisation."""

    kind: Literal["grpo"]
    """Group-relative policy optimisation as the paper's baseline runs it: no std, no KL, token mean."""
    tis_clip: float | None = Field(default=2.0, gt=0)
    """Cap of the truncated importance weight against the engine's log-probs; none switches it off."""
    reference_kl: float = Field(default=0.0, ge=0)
    """Weight of the KL to the initial model on the trained tokens (estimator k3); 0: no anchor."""
    top_k: Literal[0] = 0
    """GRPO needs no support."""


ObjectiveConfig = Annotated[SdpoObjective | GrpoObjective, Field(discriminator="kind")]


class HindsightConfig(Section):
    """The prompt that the teacher reads (paper, section 3 and Table 2)."""

    max_prompt_tokens: int = Field(default=512, gt=0)
    """Longest hindsight prompt; demonstration, feedback and attempt are cut to fit (head and tail kept), never the
    question."""
    success_threshold: float = 0.5
    """An attempt with at least this reward is a success and may be a demonstration."""
    exclude_own_success: bool = True
    """A successful attempt is never its own demonstration."""
    include_demo: bool = True
    """Show a successful attempt of the group."""
    include_feedback: bool = True
    """Show the environment's words."""
    feedback_only_without_demo: bool = True
    """Feedback is shown only where no demonstration is to be had (paper, Table 2)."""
    include_own_attempt: bool = False
    """Repeat the attempt itself beside its feedback or demonstration (paper, Table 6: it hurts). Alone it is no
    signal."""
    remove_thinking: bool = True
    """Cut <think> blocks out of demonstrations and repeated attempts."""
    template_version: Literal["1"] = "1"
    """Wording of the template; models that were made for one record it."""

    @model_validator(mode="after")
    def _something_to_show(self) -> Self:
        if not (self.include_demo or self.include_feedback):
            raise ValueError(
                "hindsight.include_feedback=false: allowed with hindsight.include_demo=false: true (without either no "
                "attempt carries a signal)"
            )
        return self
