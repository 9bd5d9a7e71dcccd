"""Combinations of keys that cannot work: each rule yields one line that names key, value and what is allowed."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sdpo.config.run import RunConfig

LOWEST_TEMPERATURE = 0.01
"""vLLM samples at this temperature where a lower one is asked for."""


def refusals(config: "RunConfig") -> Iterator[str]:
    """Yield why `config` cannot work, the first reason first; nothing if it can."""
    for rule in (_sampling, _support, _window, _weights_path, _colocated, _mini_batches, _recorded, _measured, _groups):
        yield from rule(config)


def _sampling(config: "RunConfig") -> Iterator[str]:
    """Training needs the log-probs of the whole distribution; the engine changes a low temperature, which is not 0."""
    for key, neutral in (("top_p", 1.0), ("top_k", -1), ("min_p", 0.0)):
        value = getattr(config.rollout.sampling, key)
        if value != neutral:
            yield f"rollout.sampling.{key}={value}: training rollouts need the whole distribution; allowed: {neutral}"
    if 0 < (value := config.evaluation.temperature) < LOWEST_TEMPERATURE:
        yield f"evaluation.temperature={value:g}: allowed: 0, or at least {LOWEST_TEMPERATURE:g}"


def _support(config: "RunConfig") -> Iterator[str]:
    if config.rollout_support_size > config.rollout.max_logprobs:
        yield (
            f"objective.top_k={config.rollout_support_size}: allowed: at most "
            f"rollout.max_logprobs={config.rollout.max_logprobs}"
        )


def _window(config: "RunConfig") -> Iterator[str]:
    """A prompt, and in hindsight as well, leaves tokens for the response."""
    longest, response = config.max_prompt_tokens, config.rollout.sampling.max_response_tokens
    if longest <= 0:
        yield (
            f"rollout.sampling.max_response_tokens={response}: "
            f"allowed: below model.max_model_len_tokens={config.model.max_model_len_tokens}"
        )
    if config.uses_teacher and config.hindsight.max_prompt_tokens > longest:
        yield (
            f"hindsight.max_prompt_tokens={config.hindsight.max_prompt_tokens}: allowed: at most {longest} "
            f"(model.max_model_len_tokens - rollout.sampling.max_response_tokens)"
        )


def _weights_path(config: "RunConfig") -> Iterator[str]:
    """NCCL refuses two processes on one GPU; IPC needs them there, and Ray shares out fractions only."""
    backend = config.weights.backend
    for role in ("rollout", "learner"):
        num_gpus = config.placement.of(role).num_gpus
        where = f"placement.{role}.num_gpus={num_gpus:g} with weights.backend={backend}"
        if backend == "nccl" and num_gpus < 1:
            yield f"{where}: allowed: at least 1, or weights.backend=ray"
        if backend == "ipc" and not 0 < num_gpus < 1:
            yield f"{where}: allowed: between 0 and 1 (a shared GPU), or weights.backend=ray"
    if backend == "ipc" and config.placement.mode != "colocated":
        yield (
            f"placement.mode={config.placement.mode} with weights.backend=ipc: allowed: colocated (both on one GPU), "
            "or weights.backend=ray"
        )


def _colocated(config: "RunConfig") -> Iterator[str]:
    """The fullest rank holds one GPU at most: engine or teacher i lives with rank i modulo ranks."""
    placement = config.placement
    if placement.mode == "separate":
        return
    shares, words = placement.learner.num_gpus, [f"placement.learner.num_gpus={placement.learner.num_gpus:g}"]
    for role in ("rollout", "teacher"):
        count = math.ceil(config.demand.get(role, (0, {}))[0] / placement.learner.ranks)
        num_gpus = placement.of(role).num_gpus if count else 0.0
        if num_gpus:
            words.append(f"{f'{count} x ' if count > 1 else ''}placement.{role}.num_gpus={num_gpus:g}")
        shares += count * num_gpus
    if shares > 1 + 1e-6:
        yield (
            f"{' + '.join(words)} on one rank is {shares:g}: allowed with placement.mode=colocated: at most 1 GPU "
            "a rank (smaller shares, fewer workers, or more ranks)"
        )


def _mini_batches(config: "RunConfig") -> Iterator[str]:
    batch = config.batch
    if (batch.mini_batch_tasks or 1) > batch.tasks:
        yield f"batch.mini_batch_tasks={batch.mini_batch_tasks}: allowed: at most batch.tasks={batch.tasks}"


def _recorded(config: "RunConfig") -> Iterator[str]:
    if config.samples:
        return
    where = f"with rollout.recorded={config.rollout.recorded}"
    if config.tasks.heldout is not None:
        yield f"tasks.heldout={config.tasks.heldout}: nothing is sampled {where}; allowed: none"
    if config.record.rollouts:
        yield f"record.rollouts=true: nothing is sampled {where}; allowed: false"


def _measured(config: "RunConfig") -> Iterator[str]:
    if config.checkpoint.keep_best and config.tasks.heldout is None:
        yield f"checkpoint.keep_best={config.checkpoint.keep_best}: allowed without tasks.heldout: 0"
    if config.deterministic and config.rollout.kv_cache_gib is None:
        yield "rollout.kv_cache_gib=none: allowed with deterministic: a size in GiB"


def _groups(config: "RunConfig") -> Iterator[str]:
    """A group is large enough, and a lone attempt, which has no peer, has feedback to learn from."""
    batch, hindsight = config.batch, config.hindsight
    if batch.min_group_size > batch.samples_per_task:
        yield (
            f"batch.min_group_size={batch.min_group_size}: allowed: at most "
            f"batch.samples_per_task={batch.samples_per_task}"
        )
    alone = batch.samples_per_task == 1 and hindsight.exclude_own_success
    if config.uses_teacher and alone and not hindsight.include_feedback:
        yield (
            "batch.samples_per_task=1: allowed with hindsight.include_feedback=false and exclude_own_success=true: "
            "at least 2 (no attempt would carry a signal)"
        )
