"""Scores of a group's attempts by the teachers: under hindsight prompts, and by the initial model."""

import asyncio
import time
from typing import Any

from ray.exceptions import OutOfMemoryError, RayActorError

from orchestrator.actors.fleet import Fleet
from orchestrator.events import GroupScored, emit
from orchestrator.group import Group
from orchestrator.telemetry.deadlines import with_deadline
from sdpo.config import RunConfig
from sdpo.errors import StageTimeout
from sdpo.types import Version


class GroupScorer:
    """Fills in `AttemptRecord.scores` and `AttemptRecord.reference`, one group at a time."""

    def __init__(self, config: RunConfig, teachers: Fleet) -> None:
        self._config, self._teachers = config, teachers

    async def on_verdicts(self, group: Group, version: Version) -> None:
        """Have a judged group scored, except where the scores need the learner's old log-probs first.

        `version`: the version that the teacher must hold.
        """
        async with asyncio.TaskGroup() as asking:
            if self._config.uses_teacher and not self._config.scores_after_old_log_probs:
                asking.create_task(self.score(group, version))
            if self._config.uses_reference:
                asking.create_task(self.reference(group))

    async def score(self, group: Group, version: Version) -> None:
        """Have the attempts that carry a signal scored under their hindsight prompts by the teacher at `version`."""
        started, records = time.monotonic(), [a for a in group.attempts if a.has_signal]
        arguments = (version, self._config.rollout.sampling.temperature, [r.hindsight for r in records])
        objects = [r.rollout for r in records]
        if self._config.scores_after_old_log_probs:
            objects += [r.policy for r in records]
        for record, ref in zip(records, await self._ask("score", len(records), *arguments, *objects), strict=True):
            record.scores = ref
        num_tokens = sum(len(r.hindsight.token_ids) + r.header.num_response_tokens for r in records if r.hindsight)
        emit(GroupScored(batch_index=group.batch_index, by="teacher", num_tokens=num_tokens))
        group.seconds["score"] = time.monotonic() - started

    async def reference(self, group: Group) -> None:
        """Have the attempts that will be trained on scored by the initial model under their own prompts."""
        started, records = time.monotonic(), group.trained(self._config.trains_on_unscored)
        temperature, rollouts = self._config.rollout.sampling.temperature, [r.rollout for r in records]
        refs = await self._ask("reference", len(records), temperature, *rollouts)
        for record, ref in zip(records, refs, strict=True):
            record.reference = ref
        num_tokens = sum(record.num_tokens for record in records)
        emit(GroupScored(batch_index=group.batch_index, by="reference", num_tokens=num_tokens))
        group.seconds["reference"] = time.monotonic() - started

    async def _ask(self, method: str, count: int, *arguments: Any) -> list[Any]:
        """Return `count` references; a teacher that dies is replaced and the call made again on another."""
        while count:
            async with self._teachers.checkout() as member:
                handle = member.handle
                refs: list[Any]
                receipt, *refs = getattr(handle, method).options(num_returns=count + 1).remote(*arguments)
                try:
                    timeout_s = self._config.deadlines.score_s
                    await with_deadline(receipt, actor=member.name, stage=method, timeout_s=timeout_s)
                except (RayActorError, OutOfMemoryError, StageTimeout) as error:
                    self._teachers.report(member, handle, error)
                    continue
                return refs
        return []
