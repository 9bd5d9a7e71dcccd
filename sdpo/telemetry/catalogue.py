"""Every Prometheus metric of this project: the one place that names them. Boards, rules and docs are held against it.

Ray exports a metric as `ray_` and its name. Every series has the labels `run` (name and incarnation, for example
`demo-1`) and `actor`; where a series is about the whole run its actor is `orchestrator`. A counter whose labels have
known values exists from the start of the run, at 0; a gauge from its first value on, a histogram from its first
observation on. Ray drops a gauge that was not set for 20 s: those of a run that is over disappear. Ray's histograms
know how many values fell into a bucket and make their sum of that: it is a rough one.
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]
Unit = Literal["", "seconds", "bytes", "tokens", "share", "reward", "unix seconds"]

UNITS: dict[str, Unit] = {
    "_timestamp_seconds": "unix seconds",
    "_seconds": "seconds",
    "_bytes": "bytes",
    "_tokens": "tokens",
    "_rate": "share",
    "_reward": "reward",
}
"""The unit of a metric by the end of its name, without `_total`."""

LATENCY_S = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)
STAGE_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
LENGTH_TOKENS = (8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32768.0)
STALENESS_BATCHES = (0.5, 1.5, 2.5, 3.5, 4.5, 8.5)


@dataclass(frozen=True, slots=True)
class Metric:
    """`labels` come after `run` and `actor`. `buckets`: upper bounds, of a histogram only.

    `per_actor`: there is a series for every actor (or role's actor) that `emitter` names, not only for the run.
    """

    name: str
    kind: Kind
    unit: Unit
    meaning: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    per_actor: bool = False
    emitter: Literal["orchestrator", "env"] = "orchestrator"

    @property
    def exported(self) -> str:
        """The name that Prometheus has."""
        return f"ray_{self.name}"


def _metric(
    name: str,
    meaning: str,
    *labels: str,
    buckets: tuple[float, ...] = (),
    per_actor: bool = False,
    emitter: Literal["orchestrator", "env"] = "orchestrator",
) -> Metric:
    """Return a metric of the kind and the unit that its name says; one with buckets is a histogram."""
    base = name.removesuffix("_total")
    kind: Kind = "counter" if base != name else "histogram" if buckets else "gauge"
    unit: Unit = next((unit for suffix, unit in UNITS.items() if base.endswith(suffix)), "")
    return Metric(name, kind, unit, meaning, labels, buckets, per_actor, emitter)


RUN = (
    _metric("sdpo_run_active", "1 while this incarnation of the run goes on, 0 as it ends."),
    _metric("sdpo_run_start_timestamp_seconds", "When this incarnation began."),
    _metric("sdpo_last_progress_timestamp_seconds", "When a call of an actor last succeeded."),
    _metric("sdpo_step", "Steps that are done: rollout batches that were trained on."),
    _metric("sdpo_steps_planned", "Steps after which the run ends."),
    _metric("sdpo_step_seconds", "Duration of a step.", buckets=STAGE_S),
    _metric("sdpo_stage_seconds_total", "Time in which a call of the stage was running anywhere.", "stage"),
    _metric("sdpo_stage_running", "Calls of actors that are running, by stage.", "stage"),
    _metric("sdpo_run_dir_free_bytes", "Free space on the disk of the run directory."),
    _metric("sdpo_run_dir_size_bytes", "Size of the disk of the run directory."),
)
LEARNING = (
    _metric("sdpo_attempts_total", "Attempts of finished steps; dropped: lost to infrastructure.", "outcome"),
    _metric("sdpo_attempts_trained_total", "Attempts that were given to the learner."),
    _metric("sdpo_reward", "Mean over the judged attempts of the last step."),
    _metric("sdpo_reward_best", "Highest of the last step's attempts."),
    _metric("sdpo_heldout_reward", "Mean reward of the last held-out evaluation."),
    _metric("sdpo_pass_rate", "Of the last step's attempts; pass@1 of the last held-out evaluation.", "split"),
    _metric("sdpo_response_length_tokens", "Tokens that the model wrote in an attempt.", buckets=LENGTH_TOKENS),
    _metric(
        "sdpo_tokens_total",
        "Tokens that the model wrote (evaluations included), that teachers scored, that the learner trained on.",
        "work",
    ),
    _metric("sdpo_signal", "Values of the last step in metrics.jsonl, by their name there.", "signal"),
    _metric("sdpo_alarm", "1 while this alarm is on.", "alarm"),
    _metric("sdpo_alarms_total", "Episodes of this alarm that began.", "alarm"),
)
ACTORS = (
    _metric("sdpo_actors", "Actors of a role by state; pending: waiting for resources or starting.", "role", "pool"),
    _metric(
        "sdpo_actor_seconds_total",
        "Time of an actor: busy, or idle by the stage that it waits for.",
        "role",
        "state",
        per_actor=True,
    ),
    _metric("sdpo_queue_length", "Callers that wait for a free actor of this role; learner: finished groups.", "role"),
    _metric(
        "sdpo_queue_wait_seconds", "Time that a caller waited for a free actor of this role.", "role", buckets=LATENCY_S
    ),
    _metric("sdpo_restarts_total", "Actors that were replaced, by what had failed.", "role", "failure"),
    _metric(
        "sdpo_actor_memory_bytes", "Resident memory of an actor and the processes under it.", "role", per_actor=True
    ),
)
WEIGHTS = (
    _metric(
        "sdpo_weight_version",
        "Batch whose weights an actor holds; learner: has made.",
        "role",
        "stream",
        per_actor=True,
    ),
    _metric(
        "sdpo_staleness_batches",
        "Batches between the oldest weights that an attempt was sampled with and those that it trained.",
        buckets=STALENESS_BATCHES,
    ),
    _metric("sdpo_sync_seconds", "Duration of one publication of weights.", "stream", buckets=STAGE_S),
    _metric("sdpo_sync_bytes_total", "Published weights, counted once for all receivers.", "stream"),
    _metric("sdpo_sync_failures_total", "Receivers whose update failed.", "stream"),
    _metric("sdpo_checkpoint_seconds", "Time to write one checkpoint.", buckets=STAGE_S),
    _metric("sdpo_checkpoint_step", "Steps in the newest checkpoint of this incarnation."),
)
SANDBOXES = (
    _metric(
        "sdpo_env_execution_seconds",
        "Time until an env worker answered one turn of an attempt.",
        buckets=LATENCY_S,
        per_actor=True,
        emitter="env",
    ),
    _metric("sdpo_env_judged_total", "Attempts judged.", "verdict", per_actor=True, emitter="env"),
    _metric(
        "sdpo_env_sandboxes_recycled_total", "Sandboxes that were discarded.", "reason", per_actor=True, emitter="env"
    ),
    _metric(
        "sdpo_infrastructure_errors_total",
        "Infrastructure errors of an env worker, by class of the error.",
        "error",
        per_actor=True,
        emitter="env",
    ),
)
SECTIONS = {"Run": RUN, "Learning": LEARNING, "Actors": ACTORS, "Weights": WEIGHTS, "Sandboxes": SANDBOXES}
CATALOGUE: dict[str, Metric] = {m.name: m for section in SECTIONS.values() for m in section}
"""Every metric by name."""
