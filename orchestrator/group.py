"""A group: the attempts at one task in one rollout batch, with all that became of them."""

from dataclasses import dataclass, field
from typing import Any

from learner.messages import Attachment
from sdpo.types import HindsightPrompt, RolloutHeader, Task, Verdict


@dataclass(slots=True, kw_only=True)
class AttemptRecord:
    """One attempt. The arrays stay in the object store: `rollout`, `scores`, `policy`, `reference` are references."""

    header: RolloutHeader
    rollout: Any
    verdict: Verdict
    hindsight: HindsightPrompt | None = None
    scores: Any = None
    policy: Any = None
    reference: Any = None
    advantage: float = 0.0

    @property
    def num_tokens(self) -> int:
        """Of prompt and response."""
        return self.header.num_prompt_tokens + self.header.num_response_tokens

    @property
    def has_signal(self) -> bool:
        """Whether there was something to be shown to the teacher."""
        return self.hindsight is not None and self.hindsight.mask

    @property
    def attached(self) -> dict[Attachment, Any]:
        """References that travel to the learner with the rollout."""
        found: dict[Attachment, Any] = {"scores": self.scores, "policy": self.policy, "reference": self.reference}
        return {name: reference for name, reference in found.items() if reference is not None}


@dataclass(slots=True, kw_only=True)
class Group:
    """`attempts` were judged; `dropped` were not (infrastructure), or belong to a group that shrank too far.

    Every attempt that was sampled is in exactly one of the two. `index` is the task's place in its batch.
    """

    step: int
    index: int
    task: Task
    attempts: list[AttemptRecord]
    dropped: list[AttemptRecord] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def trained(self, unscored_too: bool) -> list[AttemptRecord]:
        """The attempts that the learner gets: those with a signal, or all (see `RunConfig.trains_on_unscored`)."""
        return [a for a in self.attempts if unscored_too or a.has_signal]
