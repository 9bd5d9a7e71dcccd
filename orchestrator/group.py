"""What a batch is made of: groups of attempts at one task, with everything that became of each attempt."""

from dataclasses import dataclass, field
from typing import Any

from learner.messages import Attachment
from sdpo.types import HindsightPrompt, RolloutHeader, Task, Verdict


@dataclass(slots=True, kw_only=True)
class AttemptRecord:
    """One judged attempt at `task`, in training, in an evaluation and in a preview.

    The arrays stay in the object store: `rollout`, `scores`, `policy` and `reference` are references. `hindsight` and
    the fields after it are filled in on the way to the learner; an evaluation leaves them as they are.
    """

    task: Task
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
        """Number of tokens of prompt and response."""
        return self.header.num_prompt_tokens + self.header.num_response_tokens

    @property
    def reward(self) -> float:
        """The verdict's reward; 0 for an attempt that infrastructure lost."""
        return self.verdict.reward or 0.0

    @property
    def is_lost(self) -> bool:
        """Whether infrastructure lost the attempt: it has no verdict to learn from or to count."""
        return self.verdict.infrastructure_error is not None

    @property
    def has_signal(self) -> bool:
        """Whether there is something to show to the teacher: a demonstration or feedback."""
        return self.hindsight is not None and self.hindsight.mask

    @property
    def attached(self) -> dict[Attachment, Any]:
        """The references that travel to the learner with the rollout."""
        optional: dict[Attachment, Any] = {"scores": self.scores, "policy": self.policy, "reference": self.reference}
        return {name: reference for name, reference in optional.items() if reference is not None}


@dataclass(slots=True, kw_only=True)
class Group:
    """The attempts at one task in batch `batch_index`; `index` is the task's position in the batch.

    `attempts` were judged; `dropped` were lost to infrastructure, or belong to a group that shrank too far. Every
    attempt that was sampled is in exactly one of the two. `seconds` holds the time that each stage took.
    """

    batch_index: int
    index: int
    task: Task
    attempts: list[AttemptRecord]
    dropped: list[AttemptRecord] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def trained(self, unscored_too: bool) -> list[AttemptRecord]:
        """Return the attempts that the learner gets: those with a signal, or all (`RunConfig.trains_on_unscored`)."""
        return [a for a in self.attempts if unscored_too or a.has_signal]
