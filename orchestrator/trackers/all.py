"""The trackers of a run together: checked before anything starts, fed with every recorded step, closed at its end."""

import importlib.util
import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orchestrator.events import Event, Message, StepRecorded, emit, listening
from orchestrator.trackers.process import TrackerProcess
from orchestrator.trackers.protocol import Outcome, TrackedRun
from sdpo.config import RunConfig
from sdpo.config.trackers import TRACKERS
from sdpo.errors import ConfigError, RunInterrupted, StoppedByAlarm

CLOSE_S = 30.0
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")


def tracker_settings(config: RunConfig) -> dict[str, dict[str, Any]]:
    """Return the sections of `record.trackers` that are set, by tracker, with the address that the environment adds.

    Raises `ConfigError` for a package that is missing or an MLflow without an address.
    """
    found = {k: v for k, v in config.record.trackers.model_dump().items() if v is not None}
    for kind in found:
        if importlib.util.find_spec(kind) is None:
            extra = TRACKERS[kind].extra
            install = f"install the extra, pip install 'sdpo[{extra}]'," if extra else f"pip install {kind},"
            raise ConfigError(
                f"record.trackers.{kind}: the package {kind} is missing; allowed: {install} or leave the key out"
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
    """Feeds every tracker, and emits one message for each that was switched off."""

    def __init__(self, trackers: list[TrackerProcess]) -> None:
        self._all, self._on = trackers, list(trackers)

    def hear(self, event: Event) -> None:
        """Log the metrics of a recorded step."""
        if isinstance(event, StepRecorded):
            self.log(event.step, event.metrics)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Hand a row to every tracker, without values that are not finite. Never waits, never raises."""
        self._report()
        finite = {key: float(value) for key, value in values.items() if math.isfinite(value)}
        for tracker in self._on:
            tracker.log(step, finite)

    def close(self, outcome: Outcome) -> None:
        """Give all trackers together `CLOSE_S` to send the rest, then end their processes."""
        deadline = time.monotonic() + CLOSE_S
        for tracker in self._on:
            tracker.finish(outcome)
        for tracker in self._all:
            tracker.close(max(deadline - time.monotonic(), 0.0))
        self._report()

    def _report(self) -> None:
        for tracker in [t for t in self._on if t.failure]:
            text = f"tracker {tracker.kind} is switched off: {tracker.failure} (see trackers/{tracker.kind}.log)"
            emit(Message(text=text))
            self._on.remove(tracker)


@contextmanager
def open_trackers(config: RunConfig, settings: Mapping[str, dict[str, Any]], folder: Path) -> Iterator[None]:
    """Feed the trackers of `settings` (see `tracker_settings`) with the recorded steps of the block.

    They are closed with the run's outcome. `folder` is the run directory, which must exist.
    """
    resolved = config.model_dump(mode="json")
    runs = {
        kind: TrackedRun(name=config.name, folder=str(folder.resolve()), config=resolved, settings=section)
        for kind, section in settings.items()
    }
    trackers = Trackers([TrackerProcess(kind, run) for kind, run in runs.items()])
    outcome: Outcome = "failed"
    try:
        with listening(trackers.hear):
            yield
        outcome = "finished"
    except (RunInterrupted, StoppedByAlarm):
        outcome = "stopped"
        raise
    finally:
        trackers.close(outcome)
