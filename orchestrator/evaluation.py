"""Held-out evaluation, and the base model's ability to use feedback, both by the run's own actors."""

import asyncio
import contextlib
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.attempts import Attempts
from orchestrator.failures import refuse_a_broken_world, root_cause
from orchestrator.fleet import Fleet
from orchestrator.rollouts import Sampler
from orchestrator.spans import about
from sdpo.chat import ChatTokenizer, render_prompt
from sdpo.config import RunConfig
from sdpo.reprompt import Attempt, Routing, build_hindsight
from sdpo.seeds import sample_seed
from sdpo.types import GenerationRequest, Int32, RolloutHeader, SamplingParams, Task, Verdict


@dataclass(frozen=True, slots=True)
class Judged:
    """One evaluation sample."""

    task: Task
    header: RolloutHeader
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Prompt:
    """What one request samples from. (task, sample index) is unique among the prompts of an evaluation."""

    task: Task
    token_ids: Int32
    sample_indices: tuple[int, ...]


class Evaluator:
    """Samples held-out tasks and judges the answers. `on_judged` is told of each one as it ends."""

    def __init__(
        self,
        config: RunConfig,
        tokenizer: ChatTokenizer,
        sampler: Sampler,
        envs: Fleet,
        on_judged: Callable[[Judged], None] = lambda judged: None,
    ) -> None:
        self._config, self._tokenizer, self._sampler = config, tokenizer, sampler
        self._attempts = Attempts(config, tokenizer, sampler, envs)
        self._on_judged = on_judged

    async def evaluate(self, tasks: Sequence[Task]) -> list[Judged]:
        """`evaluation.samples_per_task` samples of each task. Seeds are the same at every evaluation."""
        indices = tuple(range(self._config.evaluation.samples_per_task))
        prompts = [
            Prompt(t, render_prompt(self._tokenizer, t.messages, enable_thinking=self._thinking), indices)
            for t in tasks
        ]
        return await self._run("heldout", prompts)

    async def repair(self, judged: Sequence[Judged]) -> list[Judged]:
        """Sample each failure once more, shown only its own feedback (no demonstration)."""
        prompts = []
        for failure in judged:
            attempt = Attempt(
                sample_index=failure.header.sample_index,
                text=failure.header.text,
                reward=failure.verdict.reward or 0.0,
                feedback=failure.verdict.feedback,
            )
            if failure.verdict.success or not attempt.feedback.strip():
                continue
            hindsight = build_hindsight(
                failure.task,
                [attempt],
                0,
                Routing(demo_from=None, use_feedback=True),
                self._tokenizer,
                self._config.hindsight,
                enable_thinking=self._thinking,
            )
            prompts.append(Prompt(failure.task, hindsight.token_ids, (attempt.sample_index,)))
        return await self._run("repair", prompts)

    @property
    def _thinking(self) -> bool:
        return self._config.model.enable_thinking

    async def _run(self, purpose: str, prompts: Sequence[Prompt]) -> list[Judged]:
        """By prompt and sample index, in whatever order the samples end; too many lost ones end it at once."""
        losses = Losses(self._config, sum(len(prompt.sample_indices) for prompt in prompts))
        admission = self._admission(prompts)
        self._sampler.expect([prompt.task.id for prompt in prompts])
        try:
            async with asyncio.TaskGroup() as group:
                running = [
                    group.create_task(self._one(f"{purpose}-{i}", prompt, admission, losses))
                    for i, prompt in enumerate(prompts)
                ]
        except BaseExceptionGroup as errors:
            raise root_cause(errors) from errors
        return [judged for task in running for judged in task.result()]

    def _admission(self, prompts: Sequence[Prompt]) -> contextlib.AbstractAsyncContextManager[Any]:
        """Lets in twice what the engines decode at once: waiting in a line has a deadline, which is not for whoever
        waits for a long evaluation's turn. A deterministic run needs all requests at once, and waits without one.
        """
        if self._config.deterministic:
            return contextlib.nullcontext()
        rollout, most = self._config.rollout, max((len(p.sample_indices) for p in prompts), default=1)
        engines = self._config.placement.rollout.workers
        return asyncio.Semaphore(math.ceil(2 * engines * rollout.max_num_seqs / most))

    async def _one(
        self, purpose: str, prompt: Prompt, admission: contextlib.AbstractAsyncContextManager[Any], losses: "Losses"
    ) -> list[Judged]:
        task, request = prompt.task, self._request(purpose, prompt)
        about(task=task.id)

        async def finish(header: RolloutHeader, rollout: Any) -> Judged:
            played = await self._attempts.play(purpose, task, request, header, rollout)
            judged = Judged(task, played.header, played.verdict)
            self._on_judged(judged)
            losses.count(judged)
            return judged

        async with admission, asyncio.TaskGroup() as group:
            running = [group.create_task(finish(*sample)) async for sample in self._sampler.sample(request)]
        return sorted((r.result() for r in running), key=lambda judged: judged.header.sample_index)

    def _request(self, purpose: str, prompt: Prompt) -> GenerationRequest:
        config, task = self._config, prompt.task
        return GenerationRequest(
            task_id=task.id,
            prompt_ids=prompt.token_ids,
            sample_indices=prompt.sample_indices,
            seeds=tuple(sample_seed(config.seed, purpose, 0, task.id, i) for i in range(len(prompt.sample_indices))),
            sampling=SamplingParams(
                temperature=config.evaluation.temperature,
                top_p=config.evaluation.top_p,
                max_tokens=config.rollout.sampling.max_response_tokens,
            ),
            support_size=0,
        )


class Losses:
    """What infrastructure lost of `num_samples`; `count` raises `InfrastructureError` as soon as it is too much."""

    def __init__(self, config: RunConfig, num_samples: int) -> None:
        self._config, self._num_samples = config, num_samples
        self._errors: list[str] = []

    def count(self, judged: Judged) -> None:
        error = judged.verdict.infrastructure_error
        if error is None:
            return
        self._errors.append(error)
        share = len(self._errors) / self._num_samples
        refuse_a_broken_world(share, self._config, of="an evaluation", errors=self._errors)


def pass_rates(judged: Sequence[Judged]) -> list[float]:
    """Per task, the share of its judged samples that passed. What infrastructure lost is left out."""
    by_task: dict[str, list[float]] = {}
    for item in judged:
        if item.verdict.infrastructure_error is None:
            by_task.setdefault(item.task.id, []).append(float(item.verdict.success))
    return [statistics.fmean(passed) for passed in by_task.values()]
