"""Requests for attempts: what is sampled for one prompt of a training batch or of an evaluation, with its seeds."""

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.inputs.prompts import task_prompt
from sdpo.chat import ChatTokenizer
from sdpo.config import RunConfig
from sdpo.seeds import sample_seed
from sdpo.types import GenerationRequest, Int32, SamplingParams, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRequest:
    """Attempts at `task`, sampled by `generation` and judged by the task's environment.

    `label` tells batches and evaluations apart in the names of environment sessions. `batch_index` is None for an
    evaluation.
    """

    task: Task
    generation: GenerationRequest
    label: str
    batch_index: int | None = None


def training_request(config: RunConfig, tokenizer: ChatTokenizer, batch_index: int, task: Task) -> AttemptRequest:
    """Return the request for `batch.samples_per_task` attempts at `task` in batch `batch_index`."""
    generation = GenerationRequest(
        task_id=task.id,
        prompt_ids=task_prompt(config, tokenizer, task),
        sample_indices=tuple(range(config.batch.samples_per_task)),
        seeds=_seeds(config, "train", batch_index, task, config.batch.samples_per_task),
        sampling=SamplingParams(
            temperature=config.rollout.sampling.temperature, max_tokens=config.rollout.sampling.max_response_tokens
        ),
        support_size=config.rollout_support_size,
    )
    return AttemptRequest(task=task, generation=generation, label=f"train-{batch_index}", batch_index=batch_index)


def evaluation_request(
    config: RunConfig, task: Task, prompt_ids: Int32, sample_indices: Sequence[int], label: str
) -> AttemptRequest:
    """Return the request for the attempts `sample_indices` at a task of an evaluation.

    Seeds depend on `label` and the task, so they are the same at every evaluation.
    """
    generation = GenerationRequest(
        task_id=task.id,
        prompt_ids=prompt_ids,
        sample_indices=tuple(sample_indices),
        seeds=_seeds(config, label, 0, task, len(sample_indices)),
        sampling=SamplingParams(
            temperature=config.evaluation.temperature,
            top_p=config.evaluation.top_p,
            max_tokens=config.rollout.sampling.max_response_tokens,
        ),
        support_size=0,
    )
    return AttemptRequest(task=task, generation=generation, label=label)


def _seeds(config: RunConfig, purpose: str, batch_index: int, task: Task, count: int) -> tuple[int, ...]:
    return tuple(sample_seed(config.seed, purpose, batch_index, task.id, i) for i in range(count))
