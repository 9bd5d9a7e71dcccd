"""What the env pool tells Prometheus through Ray, and what it adds to the metrics of a step.

Ray exports every name with the prefix `ray_`.
"""

from collections.abc import Mapping

from ray.util.metrics import Counter, Gauge, Histogram

WAIT_BOUNDARIES_S = [0.01, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0]


class PoolMetrics:
    """`run` tags every series: the run's name and incarnation."""

    def __init__(self, run: str) -> None:
        self._tags = {"run": run}
        self._waits_s = list[float]()
        self._queue = Gauge(
            "sdpo_env_queue_length", description="Attempts that wait for an env worker.", tag_keys=("run",)
        )
        self._workers = Gauge(
            "sdpo_env_workers",
            description="Env workers by state: serving, pending, draining.",
            tag_keys=("run", "state"),
        )
        self._wait = Histogram(
            "sdpo_env_wait_s",
            description="Seconds that an attempt waited for an env worker.",
            boundaries=WAIT_BOUNDARIES_S,
            tag_keys=("run",),
        )
        self._lost = Counter(
            "sdpo_env_workers_lost_total",
            description="Env workers that were replaced, by kind of failure.",
            tag_keys=("run", "worker", "kind"),
        )

    def waited(self, seconds: float) -> None:
        """An attempt got an env worker after `seconds`."""
        self._waits_s.append(seconds)
        self._wait.observe(seconds, tags=self._tags)

    def pool(self, queue_length: int, workers: Mapping[str, int]) -> None:
        """The pool as it is now; `workers` counts them by state."""
        self._queue.set(queue_length, tags=self._tags)
        for state, count in workers.items():
            self._workers.set(count, tags={**self._tags, "state": state})

    def lost(self, worker: str, kind: str) -> None:
        """An env worker is replaced because of a failure of this kind, for example node_lost."""
        self._lost.inc(1, tags={**self._tags, "worker": worker, "kind": kind})

    def take_waits(self) -> dict[str, float]:
        """Mean and longest wait since the last call, in seconds; 0 when nobody asked."""
        waits_s, self._waits_s = self._waits_s or [0.0], []
        return {"time/env_wait_s": sum(waits_s) / len(waits_s), "time/env_longest_wait_s": max(waits_s)}
