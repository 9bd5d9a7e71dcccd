"""From a task to a judged group, streaming: an attempt goes to an env worker the moment it ends, a group to the
teachers the moment its verdicts are in."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from orchestrator.attempts import Attempts
from orchestrator.fleet import Fleet
from orchestrator.group import AttemptRecord, Group
from orchestrator.progress import NOBODY, Progress
from orchestrator.rollouts import Sampler
from orchestrator.scoring import GroupScorer
from sdpo.advantages import group_relative_advantages
from sdpo.chat import ChatTokenizer, render_prompt
from sdpo.config import RunConfig
from sdpo.reprompt import Attempt, build_hindsight, route_group
from sdpo.seeds import sample_seed
from sdpo.types import GenerationRequest, SamplingParams, Task, Version


class GroupPipeline:
    """Runs one group at a time per call; any number of calls may be in flight."""

    def __init__(
        self,
        config: RunConfig,
        tokenizer: ChatTokenizer,
        sampler: Sampler,
        envs: Fleet,
        scorer: GroupScorer | None,
        progress: Progress = NOBODY,
    ) -> None:
        self._config, self._tokenizer, self._progress = config, tokenizer, progress
        self.sampler, self._scorer = sampler, scorer
        self._attempts = Attempts(config, tokenizer, sampler, envs)

    async def run(self, step: int, index: int, task: Task, version: Version) -> Group:
        """Sample and judge the batch's group `index`, and score what needs nothing of the learner.

        `version` is the one that the teacher must hold.
        """
        started = time.monotonic()
        group = Group(step=step, index=index, task=task, attempts=[])
        drop_broken(group, await self._sample_and_judge(step, task, group.seconds), self._config.batch.min_group_size)
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

    async def _sample_and_judge(self, step: int, task: Task, seconds: dict[str, float]) -> list[AttemptRecord]:
        """All attempts of the group by sample index, judged or broken."""
        config, started = self._config, time.monotonic()
        request = training_request(config, self._tokenizer, step, task)

        async def finish(header: Any, rollout: Any) -> AttemptRecord:
            self._progress.add("generate", step)
            played = await self._attempts.play(f"train-{step}", task, request, header, rollout)
            self._progress.add("judge", step)
            return AttemptRecord(header=played.header, rollout=played.rollout, verdict=played.verdict)

        async with asyncio.TaskGroup() as judging:
            running = [
                judging.create_task(finish(header, rollout)) async for header, rollout in self.sampler.sample(request)
            ]
            seconds["generate"] = time.monotonic() - started
        seconds["wait_environment"] = time.monotonic() - started - seconds["generate"]
        return sorted((r.result() for r in running), key=lambda r: r.header.sample_index)

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


def training_request(config: RunConfig, tokenizer: ChatTokenizer, step: int, task: Task) -> GenerationRequest:
    """G attempts at `task` in batch `step`, one seed each."""
    indices = tuple(range(config.batch.samples_per_task))
    return GenerationRequest(
        task_id=task.id,
        prompt_ids=render_prompt(tokenizer, task.messages, enable_thinking=config.model.enable_thinking),
        sample_indices=indices,
        seeds=tuple(sample_seed(config.seed, "train", step, task.id, i) for i in indices),
        sampling=SamplingParams(
            temperature=config.rollout.sampling.temperature, max_tokens=config.rollout.sampling.max_response_tokens
        ),
        support_size=config.rollout_support_size,
    )
