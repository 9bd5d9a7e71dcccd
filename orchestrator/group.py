"""A group: the attempts at one task in one rollout batch, with all that became of them."""

from dataclasses import dataclass, field
from typing import Any

from sdpo.types import HindsightPrompt, RolloutHeader, Task, Verdict


@dataclass(slots=True, kw_only=True)
class AttemptRecord:
    """One attempt. The arrays stay in the object store: `rollout` and `scores` are references."""

    header: RolloutHeader
    rollout: Any
    verdict: Verdict
    hindsight: HindsightPrompt | None = None
    scores: Any = None
    advantage: float = 0.0


@dataclass(slots=True, kw_only=True)
class Group:
    """`attempts` were judged; `dropped` were not (infrastructure), or belong to a group that shrank too far.

    Every attempt that was sampled is in exactly one of the two.
    """

    step: int
    task: Task
    attempts: list[AttemptRecord]
    dropped: list[AttemptRecord] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
