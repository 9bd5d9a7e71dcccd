"""From a task to a judged group, streaming: an attempt goes to an env worker the moment it ends, a group to the
teachers the moment its verdicts are in."""

import time
from collections.abc import Sequence
from typing import Protocol

from orchestrator.actors.teacher_client import GroupScorer
from orchestrator.group import AttemptRecord, Group
from orchestrator.inputs.prompts import hindsight_prompt
from sdpo.advantages import group_relative_advantages
from sdpo.chat import ChatTokenizer
from sdpo.config import RunConfig
from sdpo.reprompt import Attempt, route_group
from sdpo.types import Task, Version


class AttemptSource(Protocol):
    """Gives the attempts of any number of groups at a time: sampled now (`Attempts`), or recorded (`Recording`)."""

    def expect(self, task_ids: Sequence[str]) -> None:
        """Begin a batch: one group for each of `task_ids` is asked for, and nothing else before they are there."""

    async def judged(self, batch_index: int, task: Task, seconds: dict[str, float]) -> list[AttemptRecord]:
        """Return all attempts at `task` in batch `batch_index` by sample index, judged or lost to infrastructure.

        Their `rollout` is a Ray reference. `seconds` gets the time that each stage took.
        """


class GroupPipeline:
    """Runs one group at a time per call; any number of calls may be in flight."""

    def __init__(
        self, config: RunConfig, tokenizer: ChatTokenizer, source: AttemptSource, scorer: GroupScorer | None
    ) -> None:
        self._config, self._tokenizer = config, tokenizer
        self.source, self._scorer = source, scorer

    async def run(self, batch_index: int, index: int, task: Task, version: Version) -> Group:
        """Sample, judge, look back on and score group `index` of a batch.

        Scores that need the learner's choice of a support are left to `train_and_publish`. `version` is the one that
        the teacher must hold.
        """
        started_s = time.monotonic()
        group = Group(batch_index=batch_index, index=index, task=task, attempts=[])
        judged = await self.source.judged(batch_index, task, group.seconds)
        drop_lost(group, judged, self._config.batch.min_group_size)
        if not group.attempts:
            return group
        _set_advantages(group)
        if self._config.uses_teacher:
            self._look_back(group)
        if self._scorer is not None:
            await self._scorer.on_verdicts(group, version)
        group.seconds["group"] = time.monotonic() - started_s
        return group

    def _look_back(self, group: Group) -> None:
        """Give every attempt its hindsight prompt."""
        attempts = [Attempt.of(a.header, a.verdict) for a in group.attempts]
        for i, routing in enumerate(route_group(attempts, self._config.hindsight)):
            hindsight = hindsight_prompt(self._config, self._tokenizer, group.task, attempts, i, routing)
            group.attempts[i].hindsight = hindsight


def _set_advantages(group: Group) -> None:
    """Give every attempt its advantage over the other attempts of its group."""
    advantages = group_relative_advantages([attempt.reward for attempt in group.attempts])
    for attempt, advantage in zip(group.attempts, advantages, strict=True):
        attempt.advantage = float(advantage)


def drop_lost(group: Group, attempts: Sequence[AttemptRecord], min_group_size: int) -> None:
    """Put judged attempts into `group.attempts` and those that infrastructure lost into `group.dropped`.

    A group with fewer than `min_group_size` judged attempts is dropped whole: its mean reward says little.
    """
    for attempt in attempts:
        (group.dropped if attempt.is_lost else group.attempts).append(attempt)
    if len(group.attempts) < min_group_size:
        group.dropped += group.attempts
        group.attempts = []
