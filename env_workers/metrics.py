"""Metrics of an env worker, for Prometheus through Ray: executions, discarded sandboxes, judged attempts, errors.

The names are in `sdpo.telemetry.catalogue`. Outside a Ray process the calls cost nothing and go nowhere.
"""

from collections import Counter as Tally
from collections.abc import Mapping
from threading import Lock

from ray.util import metrics

from sdpo.telemetry.meters import Meters


class EnvMetrics:
    """The metrics of one env worker.

    `run` and `actor` label every series; `counts` are the same figures for the orchestrator. Thread-safe; `counts` may
    miss an event that happens while it is read.
    """

    def __init__(self, run: str, actor: str) -> None:
        self._meters = Meters(metrics, run, actor=actor, emitter="env")
        self._tally, self._recycled_so_far = Tally[str](), Tally[str]()
        self._lock = Lock()

    def executed(self, seconds: float) -> None:
        """Count one step of an attempt, which took `seconds`, whatever its result."""
        self._meters.observe("sdpo_env_execution_seconds", seconds)
        self._count("executed")

    def recycled(self, totals: Mapping[str, int]) -> None:
        """Update the number of discarded sandboxes.

        `totals` are those since the start by reason, such as memory_limit.
        """
        with self._lock:
            for reason, total in totals.items():
                self._meters.add(
                    "sdpo_env_sandboxes_recycled_total", total - self._recycled_so_far[reason], reason=reason
                )
                self._recycled_so_far[reason] = max(total, self._recycled_so_far[reason])

    def infrastructure_error(self, kind: str) -> None:
        """Count an error of a sandbox or engine; `kind` is the class of the error."""
        self._meters.add("sdpo_infrastructure_errors_total", error=kind)
        self._count("infrastructure_errors")

    def judged(self, kind: str) -> None:
        """Count an attempt that ended with a verdict of this kind."""
        self._meters.add("sdpo_env_judged_total", verdict=kind)
        self._count("judged")

    @property
    def counts(self) -> dict[str, int]:
        """Events since the worker started: executed, infrastructure_errors, judged, recycled."""
        named = {name: self._tally[name] for name in ("executed", "infrastructure_errors", "judged")}
        return {**named, "recycled": self._recycled_so_far.total()}

    def _count(self, name: str) -> None:
        with self._lock:
            self._tally[name] += 1
