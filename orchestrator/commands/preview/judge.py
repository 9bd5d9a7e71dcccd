"""Judges many answers: one tokenizer and one env worker for all of them, `env.sandboxes_per_worker` at the same time.

Each answer is played as `sdpo preview --answer` plays it, by the code that plays attempts in a run. No engine, no Ray.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from env_workers.worker import EnvWorker
from orchestrator.batch.requests import AttemptRequest, evaluation_request
from orchestrator.commands.preview.play import PlayedAnswers, play, with_tokenizer
from orchestrator.inputs.conversations import check_conversations
from orchestrator.inputs.inputs import TaskSets
from orchestrator.inputs.prompts import task_prompt
from sdpo.config import RunConfig
from sdpo.errors import ConfigError, EnvironmentFault
from sdpo.types import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer to judge: `turns` are the model's, at least one; `where` begins the errors about it."""

    where: str
    task: Task
    turns: tuple[str, ...]


def judge_answers(
    config: RunConfig,
    sets: TaskSets,
    answers: Sequence[Answer],
    on_judged: Callable[[int, PlayedAnswers], None],
    *,
    plain: bool = False,
) -> None:
    """Judge `answers` and call `on_judged` with the index and the played answer of each, in the order of `answers`.

    It also works where an event loop is running. `plain`: without a tokenizer, see `with_tokenizer`. A sandbox that
    broke is a verdict without a reward. Raises `UserError` for bad input, `EnvironmentFault` for a judge that fails.
    """
    for answer in answers:
        if len(answer.turns) > config.env.max_turns:
            allowed = f"allowed: at most env.max_turns={config.env.max_turns}"
            raise ConfigError(f"{answer.where}: answer has {len(answer.turns)} turns; {allowed}")
    config, tokenizer = with_tokenizer(config, plain=plain)
    requests = list(_requests(config, tokenizer, answers))
    threshold = config.hindsight.success_threshold
    worker = EnvWorker(config.env, "preview", "sdpo-preview", sets.code_bundle, threshold)
    plays = [partial(play, config, tokenizer, worker, r, a.turns) for r, a in zip(requests, answers, strict=True)]
    try:
        with ThreadPoolExecutor(1, thread_name_prefix="sdpo-judge") as pool:
            pool.submit(asyncio.run, _play_all(plays, answers, config.env.sandboxes_per_worker, on_judged)).result()
    finally:
        worker.close()


def _requests(config: RunConfig, tokenizer: Any, answers: Sequence[Answer]) -> Iterator[AttemptRequest]:
    """Yield a request for each answer; the prompt of a task is made once."""
    tasks = {id(answer.task): answer.task for answer in answers}  # two tasks of a caller's may have the same id
    check_conversations(config, tokenizer, list(tasks.values()))
    prompts = {key: task_prompt(config, tokenizer, task) for key, task in tasks.items()}
    for index, answer in enumerate(answers):
        ids = prompts[id(answer.task)]
        yield evaluation_request(config, answer.task, ids, [0], f"judge-{index}")


async def _play_all(
    plays: Sequence[Callable[[], Coroutine[Any, Any, PlayedAnswers]]],
    answers: Sequence[Answer],
    num_side_by_side: int,
    on_judged: Callable[[int, PlayedAnswers], None],
) -> None:
    free = asyncio.Semaphore(num_side_by_side)

    async def one(index: int) -> PlayedAnswers:
        async with free:
            try:
                return await plays[index]()
            except EnvironmentFault as error:
                raise EnvironmentFault(f"{answers[index].where}: {error}") from error

    running = [asyncio.ensure_future(one(index)) for index in range(len(plays))]
    try:
        for index, judged in enumerate(running):
            on_judged(index, await judged)
    finally:
        for judged in running:
            judged.cancel()
        await asyncio.gather(*running, return_exceptions=True)
