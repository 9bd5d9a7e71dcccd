"""The trackers of a run together: checked before anything starts, fed with every row, told how the run ended."""

import importlib.util
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orchestrator.trackers.process import TrackerProcess
from orchestrator.trackers.protocol import Outcome, TrackedRun
from sdpo.config import RunConfig
from sdpo.errors import ConfigError, RunInterrupted, StoppedByAlarm

CLOSE_S = 30.0
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")


def tracker_settings(config: RunConfig) -> dict[str, dict[str, Any]]:
    """The sections of `record.trackers` that are set, by tracker, with what the environment adds.

    Raises `ConfigError` for a package that is missing or an MLflow without an address.
    """
    found = {k: v for k, v in config.record.trackers.model_dump().items() if v is not None}
    for kind in found:
        if importlib.util.find_spec(kind) is None:
            raise ConfigError(
                f"record.trackers.{kind}: the package {kind} is missing; allowed: install the extra, "
                f"pip install 'sdpo[{kind}]', or leave the key out"
            )
    if "mlflow" in found:
        found["mlflow"]["tracking_uri"] = _mlflow_uri(found["mlflow"]["tracking_uri"])
    return found


def _mlflow_uri(uri: str | None) -> str:
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI")
    key = "record.trackers.mlflow.tracking_uri"
    if not uri:
        raise ConfigError(
            f"{key}=none: allowed: a URI such as http://host:5000, or MLFLOW_TRACKING_URI in the environment"
        )
    if uri.startswith(_DATABASES) and importlib.util.find_spec("sqlalchemy") is None:
        scheme = uri.partition(":")[0]
        raise ConfigError(f"{key}: {scheme} needs the whole of MLflow, pip install mlflow; allowed without: http, file")
    return uri


class Trackers:
    """Feeds every tracker; `say` tells a person, once for each, that one was switched off and why."""

    def __init__(self, trackers: list[TrackerProcess], say: Callable[[str], None]) -> None:
        self._all, self._on, self._say = trackers, list(trackers), say

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """One row for every tracker; values that are not finite are left out. Never waits, never raises."""
        self._report()
        finite = {key: float(value) for key, value in values.items() if math.isfinite(value)}
        for tracker in self._on:
            tracker.log(step, finite)

    def close(self, outcome: Outcome) -> None:
        """Give all of them together `CLOSE_S` to send the rest; no process is left, of one switched off neither."""
        deadline = time.monotonic() + CLOSE_S
        for tracker in self._on:
            tracker.finish(outcome)
        for tracker in self._all:
            tracker.close(max(deadline - time.monotonic(), 0.0))
        self._report()

    def _report(self) -> None:
        for tracker in [t for t in self._on if t.failure]:
            self._say(f"tracker {tracker.kind} is switched off: {tracker.failure} (see trackers/{tracker.kind}.log)")
            self._on.remove(tracker)


@contextmanager
def open_trackers(
    config: RunConfig, settings: Mapping[str, dict[str, Any]], folder: Path, say: Callable[[str], None]
) -> Iterator[Trackers]:
    """The trackers of `settings` (see `tracker_settings`), closed with what became of the run.

    `folder`: the run directory; it must be there.
    """
    resolved = config.model_dump(mode="json")
    runs = {
        kind: TrackedRun(name=config.name, folder=str(folder.resolve()), config=resolved, settings=section)
        for kind, section in settings.items()
    }
    trackers = Trackers([TrackerProcess(kind, run) for kind, run in runs.items()], say)
    outcome: Outcome = "failed"
    try:
        yield trackers
        outcome = "finished"
    except (RunInterrupted, StoppedByAlarm):
        outcome = "stopped"
        raise
    finally:
        trackers.close(outcome)
