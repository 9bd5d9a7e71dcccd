"""What an objective is to the rest of the run: a declaration of its needs, and per-token losses.

Learner, pipeline, doctor, model card and report ask the declaration and never the class. The module of an objective is
read together with the run file, where neither torch nor numpy needs to be installed: both are imported inside the
functions that use them.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from sdpo.section import Section

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from sdpo.token_targets import StudentLogProbs, TokenTargets

SupportSource = Literal["rollout", "student", "teacher", "full"]
"""Whose most likely tokens are the support: the engine's, the learner's, the teacher's; or the whole vocabulary."""
TokenMetrics = dict[str, tuple["Tensor", "Tensor | None"]]
"""By name: values [N], and where they count (bool [N]; None: everywhere)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What an objective asks of a run."""

    teacher: bool = False
    """Teachers score every attempt that has a hindsight signal."""
    unscored: bool = True
    """Attempts without teacher scores are trained, too."""
    advantage: bool = False
    """The loss looks at the group-relative advantage."""
    reference: bool = False
    """The loss looks at the initial model's log-probs of the sampled tokens."""
    support: SupportSource | None = None
    """The bins over which student and teacher are compared; None: sampled tokens only."""
    support_size: int = 0
    """Tokens of the support (K); 0 without a support and with the whole vocabulary."""
    tail: bool = True
    """One more bin holds the mass outside the support; False: both sides are renormalised over the support."""
    full_support_mib: float = math.inf
    """With the whole vocabulary as support: most memory in MiB for the teacher's distributions of one batch."""
    old_policy: bool = False
    """The policy before the batch's first step is recorded even if the batch is one optimizer step."""
    old_bins: bool = False
    """The loss looks at that policy's bins and at the engine's (with the engine's support) as well."""
    sequence_advantage: bool = False
    """The loss looks at `Objective.sequence_advantage`."""


class Objective(Section):
    """Base of an objective's section. N tokens, packed over attempts in any order; T tokens of one attempt."""

    label: ClassVar[str]
    """The method's name in titles."""
    metric_names: ClassVar[tuple[str, ...]] = ()
    """The names that `token_metrics` may use."""

    @property
    def needs(self) -> Needs:
        """Return what the run has to provide."""
        raise NotImplementedError

    def describe(self) -> str:
        """Return the objective in one phrase, for the model card."""
        raise NotImplementedError

    def summary(self) -> str:
        """Return the objective in a few words, for the report's table of facts."""
        raise NotImplementedError

    def token_losses(self, student: "StudentLogProbs", targets: "TokenTargets") -> "Tensor":
        """Return the loss of each token [N], importance weights included; only the student gets a gradient.

        Raises `ValueError` if a tensor that the objective needs is None.
        """
        raise NotImplementedError

    def token_metrics(self, student: "StudentLogProbs", targets: "TokenTargets") -> TokenMetrics:
        """Return what is measured per token besides what every objective has (see `learner.tally`)."""
        return {}

    def sequence_advantage(
        self, teacher_log_probs_T: "NDArray[Any]", old_log_probs_T: "NDArray[Any]", model_mask_T: "NDArray[np.bool_]"
    ) -> "NDArray[Any]":
        """Return an advantage [T] that depends on the whole attempt, from log-probs of its sampled tokens."""
        raise NotImplementedError
