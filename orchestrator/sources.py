"""Where a batch's judged attempts come from: sampled now, or recorded earlier (see `orchestrator.recording`)."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Protocol

from orchestrator.attempts import Attempts
from orchestrator.fleet import Fleet
from orchestrator.group import AttemptRecord
from orchestrator.progress import NOBODY, Progress
from orchestrator.rollouts import Sampler
from sdpo.chat import ChatTokenizer, render_prompt
from sdpo.config import RunConfig
from sdpo.seeds import sample_seed
from sdpo.types import GenerationRequest, SamplingParams, Task


class AttemptSource(Protocol):
    """Gives the attempts of any number of groups at a time."""

    def expect(self, task_ids: Sequence[str]) -> None:
        """A batch begins: one group for each of `task_ids` is asked for, and nothing else before they are there."""

    async def judged(self, step: int, task: Task, seconds: dict[str, float]) -> list[AttemptRecord]:
        """All attempts at `task` in batch `step` by sample index, judged or broken; `seconds` gets the stages' times.

        Their `rollout` is a Ray reference.
        """


class SampledAttempts:
    """Sampled by rollout workers and judged by env workers, an attempt the moment it ends."""

    def __init__(
        self, config: RunConfig, tokenizer: ChatTokenizer, sampler: Sampler, envs: Fleet, progress: Progress = NOBODY
    ) -> None:
        self._config, self._tokenizer, self._sampler, self._progress = config, tokenizer, sampler, progress
        self._attempts = Attempts(config, tokenizer, sampler, envs)

    def expect(self, task_ids: Sequence[str]) -> None:
        self._sampler.expect(task_ids)

    async def judged(self, step: int, task: Task, seconds: dict[str, float]) -> list[AttemptRecord]:
        started = time.monotonic()
        request = training_request(self._config, self._tokenizer, step, task)

        async def finish(header: Any, rollout: Any) -> AttemptRecord:
            self._progress.add("generate", step)
            played = await self._attempts.play(f"train-{step}", task, request, header, rollout)
            self._progress.add("judge", step)
            return AttemptRecord(header=played.header, rollout=played.rollout, verdict=played.verdict)

        async with asyncio.TaskGroup() as judging:
            running = [
                judging.create_task(finish(header, rollout)) async for header, rollout in self._sampler.sample(request)
            ]
            seconds["generate"] = time.monotonic() - started
        seconds["wait_environment"] = time.monotonic() - started - seconds["generate"]
        return sorted((r.result() for r in running), key=lambda r: r.header.sample_index)


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
