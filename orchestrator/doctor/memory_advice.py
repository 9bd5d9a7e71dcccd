"""Which keys to change, to what, so that a run fits. Pure: every change is planned again and kept only if it helps."""

import math
from collections.abc import Callable, Iterator
from typing import Any

from orchestrator.doctor.memory_plan import Lengths, MemoryPlan, kv_bytes_per_token, packed_tokens, plan_memory
from orchestrator.doctor.model_shape import ModelShape
from orchestrator.doctor.words import GIB
from sdpo.config import RunConfig

Excess = Callable[[MemoryPlan], int]
"""Bytes by which a plan does not fit; 0 or less where it does."""
SMALLEST_SHARE = 0.05
"""A change is worth naming if it takes away at least this share of what is too much."""
SMALLEST_CHUNK = 32


def advise(config: RunConfig, model: ModelShape, lengths: Lengths, excess: Excess) -> tuple[list[str], bool]:
    """(key=value, ...) in the order in which they were tried, and whether the run fits with all of them.

    First what costs only speed, then what changes the run.
    """
    chosen: dict[str, Any] = {}
    left = excess(plan_memory(config, model, lengths))
    for changes in _candidates(config, model, lengths):
        if left <= 0:
            break
        changed = _changed(config, changes)
        saved = left - excess(plan_memory(changed, model, lengths))
        if saved >= max(1, SMALLEST_SHARE * left):
            config, left = changed, left - saved
            chosen |= changes
    return [f"{key}={_shown(value)}" for key, value in chosen.items()], left <= 0


def _candidates(config: RunConfig, model: ModelShape, lengths: Lengths) -> Iterator[dict[str, Any]]:
    longest = lengths.prompt + lengths.response
    tokens = packed_tokens(config, lengths)
    while tokens > longest:
        tokens = max(longest, tokens // 2)
        yield {"learner.tokens_per_micro_batch": tokens}
    if not config.learner.gradient_checkpointing:
        yield {"learner.gradient_checkpointing": True}
    yield {"teacher.tokens_per_forward": lengths.hindsight + lengths.response}
    chunk = config.learner.logits_chunk_tokens
    if chunk > SMALLEST_CHUNK:
        yield {"learner.logits_chunk_tokens": SMALLEST_CHUNK}
    if config.rollout.kv_cache_gib is not None:
        needed = needed_cache_gib(config, model, sequences=4)
        if needed < config.rollout.kv_cache_gib:
            yield {"rollout.kv_cache_gib": needed}
    if config.placement.env.max_workers * config.env.sandboxes_per_worker > 1:
        yield {"env.sandboxes_per_worker": 1, "placement.env.max_workers": config.placement.env.min_workers}
    if config.placement.teacher.workers > 1:
        yield {"placement.teacher.workers": 1}
    if config.placement.rollout.workers > 1:
        yield {"placement.rollout.workers": 1}
    if config.placement.learner.num_gpus and config.model.dtype == "float32":
        yield {"model.dtype": "bfloat16"}
    if config.learner.lora is None:
        yield {"learner.lora.rank": 16}


def needed_cache_gib(config: RunConfig, model: ModelShape, sequences: int) -> float:
    """KV cache in which `sequences` of the full window fit, in GiB, rounded up to hundredths."""
    num_bytes = sequences * config.model.max_model_len_tokens * kv_bytes_per_token(config, model)
    return math.ceil(100 * num_bytes / GIB) / 100


def _changed(config: RunConfig, changes: dict[str, Any]) -> RunConfig:
    data = config.model_dump(mode="json")
    for key, value in changes.items():
        *sections, name = key.split(".")
        node = data
        for section in sections:
            if node.get(section) is None:
                node[section] = {}
            node = node[section]
        node[name] = value
    return RunConfig.model_validate(data)


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
