"""Held-out evaluation, and the base model's ability to use feedback, both by the run's own actors."""

import asyncio
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.fleet import Fleet
from orchestrator.judging import judge
from orchestrator.rollouts import sample
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


class Evaluator:
    """Samples held-out tasks and judges the answers."""

    def __init__(self, config: RunConfig, tokenizer: ChatTokenizer, rollouts: Fleet, envs: Fleet) -> None:
        self._config, self._tokenizer, self._rollouts, self._envs = config, tokenizer, rollouts, envs

    async def evaluate(self, tasks: Sequence[Task]) -> list[Judged]:
        """`evaluation.samples_per_task` samples of each task. Seeds are the same at every evaluation."""
        prompts = [(t, render_prompt(self._tokenizer, t.messages, enable_thinking=self._thinking)) for t in tasks]
        return await self._run("heldout", prompts, self._config.evaluation.samples_per_task)

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
            prompts.append((failure.task, hindsight.token_ids))
        return await self._run("repair", prompts, 1)

    @property
    def _thinking(self) -> bool:
        return self._config.model.enable_thinking

    async def _run(self, purpose: str, prompts: Sequence[tuple[Task, Int32]], num_samples: int) -> list[Judged]:
        async with asyncio.TaskGroup() as group:
            running = [
                group.create_task(self._one(f"{purpose}-{i}", task, ids, num_samples))
                for i, (task, ids) in enumerate(prompts)
            ]
        return [judged for task in running for judged in task.result()]

    async def _one(self, purpose: str, task: Task, prompt_ids: Int32, num_samples: int) -> list[Judged]:
        config, indices = self._config, tuple(range(num_samples))
        request = GenerationRequest(
            task_id=task.id,
            prompt_ids=prompt_ids,
            sample_indices=indices,
            seeds=tuple(sample_seed(config.seed, purpose, 0, task.id, i) for i in indices),
            sampling=SamplingParams(
                temperature=config.evaluation.temperature,
                top_p=config.evaluation.top_p,
                max_tokens=config.rollout.sampling.max_response_tokens,
            ),
            support_size=0,
        )

        async def finish(header: RolloutHeader) -> Judged:
            verdict = await judge(self._envs, task, header, config)
            return Judged(task, header, verdict)

        async with asyncio.TaskGroup() as group:
            running = [
                group.create_task(finish(header))
                async for header, _ in sample(self._rollouts, request, timeout_s=config.deadlines.generate_s)
            ]
        return [r.result() for r in running]


def pass_rates(judged: Sequence[Judged]) -> list[float]:
    """Per task, the share of its judged samples that passed. What infrastructure lost is left out."""
    by_task: dict[str, list[float]] = {}
    for item in judged:
        if item.verdict.infrastructure_error is None:
            by_task.setdefault(item.task.id, []).append(float(item.verdict.success))
    return [statistics.fmean(passed) for passed in by_task.values()]
