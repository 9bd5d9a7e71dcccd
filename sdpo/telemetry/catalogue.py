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


def _counter(name: str, meaning: str, *labels: str, unit: Unit = "", per_actor: bool = False) -> Metric:
    return Metric(name, "counter", unit, meaning, labels, per_actor=per_actor)


def _gauge(name: str, meaning: str, *labels: str, unit: Unit = "", per_actor: bool = False) -> Metric:
    return Metric(name, "gauge", unit, meaning, labels, per_actor=per_actor)


def _histogram(name: str, meaning: str, *labels: str, unit: Unit = "seconds", buckets: tuple[float, ...]) -> Metric:
    return Metric(name, "histogram", unit, meaning, labels, buckets)


def _of_env(name: str, meaning: str, label: str) -> Metric:
    return Metric(name, "counter", "", meaning, (label,), per_actor=True, emitter="env")


RUN = (
    _gauge("sdpo_run_active", "1 while this incarnation of the run goes on, 0 as it ends."),
    _gauge("sdpo_run_start_timestamp_seconds", "When this incarnation began.", unit="unix seconds"),
    _gauge(
        "sdpo_last_progress_timestamp_seconds",
        "When a call of an actor last ended well.",
        unit="unix seconds",
    ),
    _gauge("sdpo_step", "Steps that are done: rollout batches that were trained on."),
    _gauge("sdpo_steps_planned", "Steps after which the run ends."),
    _histogram("sdpo_step_seconds", "A whole step.", buckets=STAGE_S),
    _counter("sdpo_stage_seconds_total", "Time in which a stage was under way anywhere.", "stage", unit="seconds"),
    _gauge("sdpo_stage_running", "Calls of actors that are under way, by stage.", "stage"),
    _gauge("sdpo_run_dir_free_bytes", "Free on the disk of the run directory.", unit="bytes"),
    _gauge("sdpo_run_dir_size_bytes", "Size of the disk of the run directory.", unit="bytes"),
)
LEARNING = (
    _counter("sdpo_attempts_total", "Attempts of finished steps; dropped: lost to infrastructure.", "outcome"),
    _counter("sdpo_attempts_trained_total", "Attempts that were given to the learner."),
    _gauge("sdpo_reward", "Mean over the judged attempts of the last step.", unit="reward"),
    _gauge(
        "sdpo_pass_rate", "Of the last step's attempts; pass@1 of the last held-out evaluation.", "split", unit="share"
    ),
    _histogram(
        "sdpo_response_length_tokens",
        "What the model wrote in an attempt.",
        unit="tokens",
        buckets=LENGTH_TOKENS,
    ),
    _counter(
        "sdpo_tokens_total",
        "Tokens that the model wrote (evaluations included), that teachers scored, that the learner trained on.",
        "work",
        unit="tokens",
    ),
    _gauge("sdpo_signal", "Values of the last step in metrics.jsonl, by their name there.", "signal"),
    _gauge("sdpo_alarm", "1 while this alarm is on.", "alarm"),
    _counter("sdpo_alarms_total", "Episodes of this alarm that began.", "alarm"),
)
ACTORS = (
    _gauge("sdpo_actors", "Actors of a role by state; pending: without room or starting.", "role", "pool"),
    _counter(
        "sdpo_actor_seconds_total",
        "Time of an actor: busy, or idle by the stage that it waits for.",
        "role",
        "state",
        unit="seconds",
        per_actor=True,
    ),
    _gauge("sdpo_queue_length", "Who waits for a free actor of this role; learner: finished groups.", "role"),
    _histogram("sdpo_queue_wait_seconds", "Wait for a free actor of this role.", "role", buckets=LATENCY_S),
    _counter("sdpo_restarts_total", "Actors that were replaced, by what had failed.", "role", "failure"),
    _gauge(
        "sdpo_actor_memory_bytes",
        "Resident, of an actor and the processes under it.",
        "role",
        unit="bytes",
        per_actor=True,
    ),
)
WEIGHTS = (
    _gauge(
        "sdpo_weight_version",
        "Batch whose weights an actor holds; learner: has made.",
        "role",
        "stream",
        per_actor=True,
    ),
    _histogram(
        "sdpo_staleness_batches",
        "Batches between the oldest weights that an attempt was sampled with and those that it trained.",
        unit="",
        buckets=STALENESS_BATCHES,
    ),
    _histogram("sdpo_sync_seconds", "One publication of weights.", "stream", buckets=STAGE_S),
    _counter("sdpo_sync_bytes_total", "Published weights, counted once for all receivers.", "stream", unit="bytes"),
    _counter("sdpo_sync_failures_total", "Receivers whose update failed.", "stream"),
    _histogram("sdpo_checkpoint_seconds", "One checkpoint.", buckets=STAGE_S),
    _gauge("sdpo_checkpoint_step", "Steps in the newest checkpoint of this incarnation."),
)
SANDBOXES = (
    Metric(
        "sdpo_env_execution_seconds",
        "histogram",
        "seconds",
        "An env worker's answer to one turn of an attempt.",
        (),
        LATENCY_S,
        per_actor=True,
        emitter="env",
    ),
    _of_env("sdpo_env_judged_total", "Attempts judged.", "verdict"),
    _of_env("sdpo_env_sandboxes_recycled_total", "Sandboxes thrown away.", "reason"),
    _of_env("sdpo_infrastructure_errors_total", "What broke under an env worker, by class of the error.", "error"),
)
SECTIONS = {"Run": RUN, "Learning": LEARNING, "Actors": ACTORS, "Weights": WEIGHTS, "Sandboxes": SANDBOXES}
CATALOGUE: dict[str, Metric] = {m.name: m for section in SECTIONS.values() for m in section}
"""Every metric by name."""
