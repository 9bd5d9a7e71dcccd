"""Which keys to change so that a run fits, and to what. Pure: every hint is planned again and kept only if it helps."""

from collections.abc import Callable
from typing import Any

from orchestrator.inputs.model_config import kv_cache_gib, round_up_gib
from orchestrator.memory.model_shape import ModelShape
from orchestrator.memory.plan import Lengths, MemoryPlan, packed_tokens, plan_memory
from sdpo.config import RunConfig
from sdpo.config.load import make_run_config
from sdpo.show import show

Excess = Callable[[MemoryPlan], int]
"""Bytes by which a plan does not fit; 0 or less if it fits."""
SMALLEST_SHARE = 0.05
"""A hint is worth naming if it removes at least this share of the excess."""
SMALLEST_CHUNK_TOKENS = 32


def advise(config: RunConfig, model: ModelShape, lengths: Lengths, excess: Excess) -> tuple[list[str], bool]:
    """Return the hints that help, as key=value in the order of `_hints`, and whether the run fits with all of them."""
    changes: dict[str, Any] = {}
    left = excess(plan_memory(config, model, lengths))
    for hint in _hints(config, model, lengths):
        if left <= 0:
            break
        changed = make_run_config(config.model_dump(mode="json"), changes | hint)
        saved = left - excess(plan_memory(changed, model, lengths))
        if saved >= max(1, SMALLEST_SHARE * left):
            changes, left = changes | hint, left - saved
    return [f"{key}={show(value)}" for key, value in changes.items()], left <= 0


def changes(config: RunConfig, model: ModelShape, lengths: Lengths, excess: Excess) -> str:
    """Return the keys to change and what else helps, as the end of a sentence."""
    hints, is_enough = advise(config, model, lengths, excess)
    if is_enough:
        return " ".join(hints)
    more = "free memory, take a smaller model, or add machines (placement.learner.ranks over several nodes)"
    return f"{' '.join(hints)} help but are not enough; {more}" if hints else more


def _hints(config: RunConfig, model: ModelShape, lengths: Lengths) -> list[dict[str, Any]]:
    """Return the hints in order: first those that cost only speed, then those that change what is trained."""
    longest, tokens, budgets = lengths.prompt + lengths.response, packed_tokens(config, lengths), []
    while tokens > longest:
        tokens = max(longest, tokens // 2)
        budgets.append({"learner.tokens_per_micro_batch": tokens})
    trains_on_gpu = config.placement.learner.num_gpus > 0
    return [
        *budgets,
        {"learner.gradient_checkpointing": True},
        {"teacher.tokens_per_forward": lengths.hindsight + lengths.response},
        {"learner.logits_chunk_tokens": SMALLEST_CHUNK_TOKENS},
        {"rollout.kv_cache_gib": round_up_gib(kv_cache_gib(config, model, num_sequences=4))},
        {"env.sandboxes_per_worker": 1, "placement.env.max_workers": config.placement.env.min_workers},
        {"placement.teacher.workers": 1},
        {"placement.rollout.workers": 1},
        *([{"model.dtype": "bfloat16"}] if trains_on_gpu else []),
        {"learner.lora.rank": 16},
    ]
