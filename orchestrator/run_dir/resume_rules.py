"""Which keys of a run's config may change when it is resumed. docs/restart.md says the same to people."""

from sdpo.backends import BACKENDS
from sdpo.config import RunConfig
from sdpo.config.keys import flat

_NO_NUMBER = ("num_cpus", "memory_gib", "resources", "label_selector")

FREE = (
    "steps",
    "name",
    "dir",
    "checkpoint",
    "record",
    "evaluation",
    "health",
    "deadlines",
    "max_learner_restarts",
    "max_worker_restarts",
    "env.target_wait_s",
    "env.idle_s",
    "env.sandboxes_per_worker",
    "env.retry_backoff_s",
    "env.max_attempts",
    "env.max_dropped_fraction",
    "rollout.recorded",
    "placement.env",
    "placement.teacher.workers",
    *(f"placement.{role}.{key}" for role in ("rollout", "teacher", "learner") for key in _NO_NUMBER),
    "weights.bucket_bytes",
    "weights.audit_tolerance",
)
"""Touch no number of the training. (A recording that was moved: what it holds is compared, see `inputs.json`.)"""

FREE_UNLESS_DETERMINISTIC = (
    "placement.mode",
    "placement.rollout.workers",
    "rollout.max_num_seqs",
    "rollout.kv_cache_gib",
    "rollout.enforce_eager",
    "placement.rollout.tensor_parallel",
    "placement.rollout.num_gpus",
    "rollout.num_threads",
    "teacher.tokens_per_forward",
    "placement.teacher.num_gpus",
    "teacher.num_threads",
    "placement.learner.ranks",
    "learner.tokens_per_micro_batch",
    "learner.logits_chunk_tokens",
    "learner.gradient_checkpointing",
    "placement.learner.num_gpus",
    "learner.num_threads",
    "weights.backend",
)
"""Change the order in which floats are added, and nothing else."""


def refused_change(before: RunConfig, now: RunConfig) -> str | None:
    """What makes resuming impossible: the first key that must not change, its values and what is allowed; or None."""
    old, new = dict(flat(before.model_dump())), dict(flat(now.model_dump()))
    for key in [*new, *(key for key in old if key not in new)]:
        if old.get(key) == new.get(key) or is_in(key, FREE):
            continue
        changed = f"{key}={new.get(key)} (was {old.get(key)})"
        if not is_in(key, FREE_UNLESS_DETERMINISTIC):
            return f"{changed}: a run cannot be resumed with another value; allowed: another `name`"
        if now.deterministic:
            return f"{changed}: a deterministic run cannot be resumed with another value; allowed: another `name`"
        if key == "placement.learner.ranks" and not BACKENDS[now.learner.backend].reshards:
            return (
                f"{changed}: checkpoints of learner.backend={now.learner.backend} need the number of ranks that wrote "
                f"them; allowed: {old[key]}, or another `name`"
            )
    return None


def is_in(key: str, allowed: tuple[str, ...]) -> bool:
    """Whether `allowed` names the key or a section that it lies in."""
    return any(key == free or key.startswith(f"{free}.") for free in allowed)
