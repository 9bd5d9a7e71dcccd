"""From a task to a judged group, streaming: an attempt goes to an env worker the moment it ends, a group to the
teachers the moment its verdicts are in."""

import time
from collections.abc import Sequence

from orchestrator.group import AttemptRecord, Group
from orchestrator.progress import NOBODY, Progress
from orchestrator.scoring import GroupScorer
from orchestrator.sources import AttemptSource
from sdpo.advantages import group_relative_advantages
from sdpo.chat import ChatTokenizer
from sdpo.config import RunConfig
from sdpo.reprompt import Attempt, build_hindsight, route_group
from sdpo.types import Task, Version


class GroupPipeline:
    """Runs one group at a time per call; any number of calls may be in flight."""

    def __init__(
        self,
        config: RunConfig,
        tokenizer: ChatTokenizer,
        source: AttemptSource,
        scorer: GroupScorer | None,
        progress: Progress = NOBODY,
    ) -> None:
        self._config, self._tokenizer, self._progress = config, tokenizer, progress
        self.source, self._scorer = source, scorer

    async def run(self, step: int, index: int, task: Task, version: Version) -> Group:
        """Get the batch's group `index` judged, and score what needs nothing of the learner.

        `version` is the one that the teacher must hold.
        """
        started = time.monotonic()
        group = Group(step=step, index=index, task=task, attempts=[])
        drop_broken(group, await self.source.judged(step, task, group.seconds), self._config.batch.min_group_size)
        if not group.attempts:
            return group
        rewards = [a.verdict.reward or 0.0 for a in group.attempts]
        for record, advantage in zip(group.attempts, group_relative_advantages(rewards), strict=True):
            record.advantage = float(advantage)
        if self._config.uses_teacher:
            self._look_back(group)
        if self._scorer is not None:
            await self._scorer.on_verdicts(group, version)
            if not self._config.scores_after_recall:
                self._progress.add("score", step)
        group.seconds["group"] = time.monotonic() - started
        return group

    def _look_back(self, group: Group) -> None:
        """Give every attempt its hindsight prompt."""
        attempts = [
            Attempt(
                sample_index=a.header.sample_index,
                text=a.header.text,
                reward=a.verdict.reward or 0.0,
                feedback=a.verdict.feedback,
            )
            for a in group.attempts
        ]
        for i, routing in enumerate(route_group(attempts, self._config.hindsight)):
            group.attempts[i].hindsight = build_hindsight(
                group.task,
                attempts,
                i,
                routing,
                self._tokenizer,
                self._config.hindsight,
                enable_thinking=self._config.model.enable_thinking,
            )


def drop_broken(group: Group, records: Sequence[AttemptRecord], min_group_size: int) -> None:
    """Keep what was judged; a group that shrank below `min_group_size` is dropped whole, since its mean says little."""
    for record in records:
        broken = record.verdict.infrastructure_error is not None
        (group.dropped if broken else group.attempts).append(record)
    if len(group.attempts) < min_group_size:
        group.dropped += group.attempts
        group.attempts = []
