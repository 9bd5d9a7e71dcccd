"""The objective and the hindsight prompt."""

from typing import Annotated, Literal

from pydantic import Field

from sdpo.config.base import Section


class SdpoObjective(Section):
    """Self-distillation policy optimisation (paper, section 3)."""

    kind: Literal["sdpo"]
    """Self-distillation: move the student's next-token distribution towards the teacher's."""
    divergence: Literal["forward_kl", "reverse_kl", "js"] = "js"
    """KL(q||p), KL(p||q), or the generalised Jensen-Shannon divergence between them (p student, q teacher)."""
    js_teacher_weight: float = Field(default=0.5, gt=0, lt=1)
    """Weight of the teacher's side in the JS mixture (the paper's alpha)."""
    support: Literal["rollout"] = "rollout"
    """Whose K most likely tokens carry the divergence: those the engine recorded while it sampled."""
    top_k: int = Field(default=20, gt=0)
    """Support size K."""
    tail: bool = True
    """Add one bucket for the mass outside the support; without it both sides are renormalised over it."""
    is_clip: float | None = Field(default=2.0, gt=0)
    """One-sided cap of the per-token importance ratio against the sampling policy; none switches it off."""


class GrpoObjective(Section):
    """The baseline: group-relative policy optimisation."""

    kind: Literal["grpo"]
    """Group-relative policy optimisation as the paper's baseline runs it: no std, no KL, token mean."""
    clip_low: float = Field(default=0.2, gt=0)
    """Lower clip of the ratio."""
    clip_high: float = Field(default=0.28, gt=0)
    """Upper clip of the ratio."""
    dual_clip: float = Field(default=3.0, gt=1)
    """Bound for negative advantages."""
    tis_clip: float | None = Field(default=2.0, gt=0)
    """Cap of the truncated importance weight against the engine's log-probs; none switches it off."""
    top_k: Literal[0] = 0
    """GRPO needs no support."""


ObjectiveConfig = Annotated[SdpoObjective | GrpoObjective, Field(discriminator="kind")]


class HindsightConfig(Section):
    """The prompt that the teacher reads (paper, section 3 and Table 2)."""

    max_prompt_tokens: int = Field(default=512, gt=0)
    """Longest hindsight prompt; demonstration and feedback are cut to fit (head and tail kept), never the question."""
    success_threshold: float = 0.5
    """An attempt with at least this reward is a success and may be a demonstration."""
    exclude_own_success: bool = True
    """A successful attempt is never its own demonstration."""
    include_feedback: bool = True
    """Show the environment's words."""
    feedback_only_without_demo: bool = True
    """Feedback is shown only where no demonstration is to be had (paper, Table 2)."""
    remove_thinking: bool = True
    """Cut <think> blocks out of demonstrations."""
    template_version: Literal["1"] = "1"
    """Wording of the template; models that were made for one record it."""
