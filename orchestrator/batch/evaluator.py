"""Held-out evaluation, and the base model's ability to use feedback, both by the run's own actors."""

import asyncio
import contextlib
import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from orchestrator.batch.attempts import Attempts
from orchestrator.batch.requests import AttemptRequest, evaluation_request
from orchestrator.failures import check_dropped_fraction, root_cause
from orchestrator.group import AttemptRecord
from orchestrator.inputs.prompts import hindsight_prompt, task_prompt
from orchestrator.telemetry.spans import bind_context
from sdpo.chat import ChatTokenizer
from sdpo.config import RunConfig
from sdpo.reprompt import Attempt, Routing
from sdpo.types import Task


class Evaluator:
    """Samples held-out tasks and judges the answers."""

    def __init__(self, config: RunConfig, tokenizer: ChatTokenizer, attempts: Attempts) -> None:
        self._config, self._tokenizer, self._attempts = config, tokenizer, attempts

    async def evaluate(self, tasks: Sequence[Task]) -> list[AttemptRecord]:
        """Return `evaluation.samples_per_task` attempts at each task. Seeds are the same at every evaluation."""
        indices, requests = range(self._config.evaluation.samples_per_task), list[AttemptRequest]()
        for i, task in enumerate(tasks):
            prompt_ids = task_prompt(self._config, self._tokenizer, task)
            requests.append(evaluation_request(self._config, task, prompt_ids, indices, f"heldout-{i}"))
        return await self._play(requests)

    async def repair(self, judged: Sequence[AttemptRecord]) -> list[AttemptRecord]:
        """Sample each failure once more, shown only its own feedback (no demonstration)."""
        requests = list[AttemptRequest]()
        for failure in judged:
            if failure.verdict.success or not failure.verdict.feedback.strip():
                continue
            attempt, routing = Attempt.of(failure.header, failure.verdict), Routing(demo_from=None, use_feedback=True)
            hindsight = hindsight_prompt(self._config, self._tokenizer, failure.task, [attempt], 0, routing)
            indices, label = [attempt.sample_index], f"repair-{len(requests)}"
            requests.append(evaluation_request(self._config, failure.task, hindsight.token_ids, indices, label))
        return await self._play(requests)

    async def _play(self, requests: Sequence[AttemptRequest]) -> list[AttemptRecord]:
        """Return the attempts by request and sample index, however long each of them takes.

        Raises `InfrastructureError` as soon as too many are lost to infrastructure.
        """
        num_attempts = sum(len(request.generation.sample_indices) for request in requests)
        errors: list[str] = []

        def judged(record: AttemptRecord) -> None:
            if (error := record.verdict.infrastructure_error) is not None:
                errors.append(error)
                check_dropped_fraction(len(errors) / num_attempts, self._config, of="an evaluation", errors=errors)

        async def play(request: AttemptRequest) -> list[AttemptRecord]:
            bind_context(task=request.task.id)
            async with admission:
                return await self._attempts.play_all(request, on_judged=judged)

        admission = self._admission(requests)
        self._attempts.expect([request.task.id for request in requests])
        try:
            async with asyncio.TaskGroup() as group:
                running = [group.create_task(play(request)) for request in requests]
        except BaseExceptionGroup as group_error:
            raise root_cause(group_error) from group_error
        return [record for task in running for record in task.result()]

    def _admission(self, requests: Sequence[AttemptRequest]) -> contextlib.AbstractAsyncContextManager[Any]:
        """Return a semaphore that admits twice the attempts that the engines decode at once.

        So the time that a long evaluation's requests wait does not count against the deadline of a checkout. A
        deterministic run needs all requests at once, and admits all.
        """
        if self._config.deterministic:
            return contextlib.nullcontext()
        largest = max((len(request.generation.sample_indices) for request in requests), default=1)
        engines = self._config.placement.rollout.workers
        return asyncio.Semaphore(math.ceil(2 * engines * self._config.rollout.max_num_seqs / largest))


def means_of_tasks(judged: Sequence[AttemptRecord], value: Callable[[AttemptRecord], float]) -> list[float]:
    """Return for each task the mean of `value` over its judged attempts; lost attempts are left out."""
    by_task: dict[str, list[float]] = {}
    for attempt in judged:
        if not attempt.is_lost:
            by_task.setdefault(attempt.task.id, []).append(float(value(attempt)))
    return [statistics.fmean(values) for values in by_task.values()]
