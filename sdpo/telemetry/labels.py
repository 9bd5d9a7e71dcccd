"""Labels of the metrics and the values that they may take.

A value that is not in a label's list is exported as `other`, so that no text from outside makes a new series.
"""

from sdpo.health import RULES

RUN_ACTOR = "orchestrator"
"""The value of `actor` where a series is about the run and not about one of its actors."""
OTHER = "other"
MAX_ACTORS = 256
"""Names of actors that one process exports; later ones (of a pool that came and went for long) are `other`."""

ROLES = ("rollout", "env", "teacher", "learner")
STAGES = ("generate", "judge", "old_log_probs", "score", "train", "publish", "save", "evaluate", "start")
"""Stages of a run in the order of the pipeline; an idle actor waits for the first one that is under way anywhere.
`start`: an actor comes up."""
BUSY = "busy"
WAITS_FOR = (*STAGES, RUN_ACTOR)
"""What an idle actor may wait for; the orchestrator, while no stage is under way."""
SIGNALS = (
    "train/loss",
    "train/entropy",
    "train/teacher_gap",
    "train/teacher_kl",
    "train/teacher_entropy",
    "train/engine_gap_mean",
    "train/engine_gap_p99",
    "train/reference_kl",
    "train/is_clipped_fraction",
    "train/tis_clipped_fraction",
    "train/grpo_clipped_fraction",
    "train/signal_fraction",
    "train/grad_norm",
    "train/grad_norm_max",
    "train/learning_rate",
    "signal/samples_fraction",
    "signal/tokens_fraction",
    "rollout/truncated_fraction",
    "rollout/feedback_chars",
    "hindsight/with_demo_fraction",
    "hindsight/with_feedback_fraction",
    "groups/all_passed_fraction",
    "groups/none_passed_fraction",
    "attempts/dropped_fraction",
)
"""Metrics of metrics.jsonl that `sdpo_signal` carries, by the same names."""

LABELS: dict[str, tuple[str, ...]] = {
    "role": ROLES,
    "stage": STAGES,
    "state": (BUSY, *WAITS_FOR),
    "pool": ("serving", "pending", "draining"),
    "outcome": ("passed", "failed", "dropped"),
    "split": ("train", "heldout"),
    "work": ("generated", "scored", "trained"),
    "stream": ("policy", "teacher"),
    "failure": ("actor_died", "node_lost", "stage_timeout", "weight_sync", "infrastructure", OTHER),
    "error": ("InfrastructureError", "SandboxUnavailable", OTHER),
    "reason": ("executions", "age", "fault", "memory_limit", "process_limit", "unclean", "lost", OTHER),
    "verdict": (
        "passed",
        "wrong_answer",
        "wrong_format",
        "no_program",
        "truncated",
        "syntax_error",
        "runtime_error",
        "timeout",
        "cpu_limit",
        "memory_limit",
        "output_limit",
        "process_limit",
        "sandbox_violation",
        OTHER,
    ),
    "alarm": tuple(RULES),
    "signal": SIGNALS,
}
"""Every value of a label, but of `run` (one for each incarnation) and `actor` (at most `MAX_ACTORS` and `other`)."""


def bounded(label: str, value: str) -> str:
    """`value` where the label has it, else `other`. Raises `ValueError` for a label that knows no `other`."""
    if value in LABELS[label]:
        return value
    if OTHER not in LABELS[label]:
        raise ValueError(f"{label}={value}: allowed: {', '.join(LABELS[label])}")
    return OTHER
