"""What an env worker tells Prometheus through Ray: executions, sandboxes thrown away, attempts judged, what broke.

Ray exports every name with the prefix `ray_`. Outside a Ray process the calls cost nothing and go nowhere.
"""

from collections import Counter as Tally
from collections.abc import Mapping
from threading import Lock

from ray.util.metrics import Counter, Histogram

EXECUTION_BOUNDARIES_S = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0]
TAGS = ("run", "worker")


class EnvMetrics:
    """Of one env worker. `run` and `worker` tag every series; `counts` are the same figures for the orchestrator.

    Thread-safe; `counts` may miss an event that happens while it is read.
    """

    def __init__(self, run: str, worker: str) -> None:
        self._tags = {"run": run, "worker": worker}
        self._tally, self._recycled_so_far = Tally[str](), Tally[str]()
        self._lock = Lock()
        self._executions = Histogram(
            "sdpo_env_execution_s",
            description="Seconds that an env worker took for one step of an attempt.",
            boundaries=EXECUTION_BOUNDARIES_S,
            tag_keys=TAGS,
        )
        self._recycled = _counter("sdpo_env_sandboxes_recycled_total", "Sandboxes thrown away, by reason.", "reason")
        self._errors = _counter("sdpo_env_infrastructure_errors_total", "What broke in env workers, by kind.", "kind")
        self._judged = _counter("sdpo_env_attempts_judged_total", "Attempts judged, by kind of verdict.", "kind")

    def executed(self, seconds: float) -> None:
        """One step of an attempt took `seconds`, whatever came out."""
        self._executions.observe(seconds, tags=self._tags)
        self._count("executed")

    def recycled(self, totals: Mapping[str, int]) -> None:
        """So many sandboxes were thrown away since the worker started, by reason, for example memory_limit."""
        with self._lock:
            for reason, total in totals.items():
                if (new := total - self._recycled_so_far[reason]) > 0:
                    self._recycled.inc(new, tags={**self._tags, "reason": reason})
                    self._recycled_so_far[reason] = total

    def infrastructure_error(self, kind: str) -> None:
        """A sandbox or engine broke; `kind` is the class of the error."""
        self._errors.inc(1, tags={**self._tags, "kind": kind})
        self._count("infrastructure_errors")

    def judged(self, kind: str) -> None:
        """An attempt ended with a verdict of this kind."""
        self._judged.inc(1, tags={**self._tags, "kind": kind})
        self._count("judged")

    @property
    def counts(self) -> dict[str, int]:
        """Events since the worker started: executed, infrastructure_errors, judged, recycled."""
        named = {name: self._tally[name] for name in ("executed", "infrastructure_errors", "judged")}
        return {**named, "recycled": self._recycled_so_far.total()}

    def _count(self, name: str) -> None:
        with self._lock:
            self._tally[name] += 1


def _counter(name: str, description: str, key: str) -> Counter:
    return Counter(name, description=description, tag_keys=(*TAGS, key))
