"""What teachers say of a group's attempts: in hindsight, and as the initial model."""

import asyncio
import time
from typing import Any

from ray.exceptions import RayActorError

from orchestrator.fleet import Fleet
from orchestrator.group import Group
from orchestrator.telemetry import current
from orchestrator.waits import within
from sdpo.config import RunConfig
from sdpo.errors import StageTimeout
from sdpo.types import Version


class GroupScorer:
    """Fills in `AttemptRecord.scores` and `AttemptRecord.reference`, a group at a time."""

    def __init__(self, config: RunConfig, teachers: Fleet) -> None:
        self._config, self._teachers = config, teachers

    async def on_verdicts(self, group: Group, version: Version) -> None:
        """All that can be asked as soon as the group is judged: only a support that the learner chooses is waited for.

        `version` is the one that the teacher must hold.
        """
        async with asyncio.TaskGroup() as asking:
            if self._config.uses_teacher and not self._config.scores_after_recall:
                asking.create_task(self.score(group, version))
            if self._config.uses_reference:
                asking.create_task(self.reference(group))

    async def score(self, group: Group, version: Version) -> None:
        """Have the attempts that carry a signal scored under their hindsight prompts."""
        started, records = time.monotonic(), [a for a in group.attempts if a.has_signal]
        arguments = (version, self._config.rollout.sampling.temperature, [r.hindsight for r in records])
        objects = [r.rollout for r in records]
        if self._config.scores_after_recall:
            objects += [r.policy for r in records]
        for record, scores in zip(records, await self._ask("score", len(records), *arguments, *objects), strict=True):
            record.scores = scores
        current().scored(sum(len(r.hindsight.token_ids) + r.header.num_response_tokens for r in records if r.hindsight))
        group.seconds["score"] = time.monotonic() - started

    async def reference(self, group: Group) -> None:
        """Have the attempts that will be trained on scored by the initial model under their own prompts."""
        started, records = time.monotonic(), group.trained(self._config.trains_on_unscored)
        temperature, rollouts = self._config.rollout.sampling.temperature, [r.rollout for r in records]
        for record, scores in zip(
            records, await self._ask("reference", len(records), temperature, *rollouts), strict=True
        ):
            record.reference = scores
        current().scored(sum(record.num_tokens for record in records))
        group.seconds["reference"] = time.monotonic() - started

    async def _ask(self, method: str, count: int, *arguments: Any) -> list[Any]:
        """`count` references; a teacher that dies is replaced and the question asked again."""
        while count:
            async with self._teachers.lease() as member:
                handle = member.handle
                refs: list[Any]
                receipt, *refs = getattr(handle, method).options(num_returns=count + 1).remote(*arguments)
                try:
                    timeout_s = self._config.deadlines.score_s
                    await within(receipt, actor=member.name, stage=method, timeout_s=timeout_s)
                except (RayActorError, StageTimeout) as error:
                    self._teachers.report(member, handle, error)
                    continue
                return refs
        return []
