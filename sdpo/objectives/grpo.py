"""Group-relative policy optimisation as the paper's baseline runs it: no standard deviation, token mean."""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from annotated_types import Gt, Le

from sdpo.bounds import Clip, Coefficient
from sdpo.objectives.base import Needs, Objective, TokenMetrics
from sdpo.section import Section

if TYPE_CHECKING:
    from torch import Tensor

    from sdpo.token_targets import StudentLogProbs, TokenTargets


class ClippedPolicyGradient(Section):
    """The group-relative term: paper baseline, and the other half of the mix (paper, eq. 3)."""

    clip_low: Clip = 0.2
    """Lower clip of the ratio."""
    clip_high: Clip = 0.28
    """Upper clip of the ratio."""
    dual_clip: Annotated[float, Gt(1), Le(10**9)] = 3.0
    """Bound for negative advantages."""


class GrpoObjective(ClippedPolicyGradient, Objective):
    """The baseline: group-relative policy optimisation."""

    label: ClassVar[str] = "GRPO"
    metric_names: ClassVar[tuple[str, ...]] = ("tis_clipped_fraction", "grpo_clipped_fraction")

    kind: Literal["grpo"]
    """Group-relative policy optimisation as the paper's baseline runs it: no std, no KL, token mean."""
    tis_clip: Clip | None = 2.0
    """Cap of the truncated importance weight against the engine's log-probs; none switches it off."""
    reference_kl: Coefficient = 0.0
    """Weight of the KL to the initial model on the trained tokens (estimator k3); 0: no anchor."""
    top_k: Literal[0] = 0
    """GRPO needs no support."""

    @property
    def needs(self) -> Needs:
        return Needs(advantage=True, reference=self.reference_kl > 0)

    def describe(self) -> str:
        return f"GRPO, clipped at {self.clip_low:g} and {self.clip_high:g}"

    def summary(self) -> str:
        return self.kind

    def token_losses(self, student: "StudentLogProbs", targets: "TokenTargets") -> "Tensor":
        from sdpo.policy_gradient import anchored, group_relative

        loss_N = group_relative(student, targets, self, self.tis_clip)
        return anchored(loss_N, student, targets, self.reference_kl)

    def token_metrics(self, student: "StudentLogProbs", targets: "TokenTargets") -> TokenMetrics:
        from sdpo.importance import engine_metrics
        from sdpo.policy_gradient import clip_metrics

        return engine_metrics(student, targets, self.tis_clip) | clip_metrics(student, targets, self)
