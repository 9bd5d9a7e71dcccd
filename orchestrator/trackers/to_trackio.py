"""Trackio. It knows runs by their names, so the name carries an id: `demo-3f9c1a2b`."""

import uuid
from collections.abc import Mapping
from typing import Any

import trackio

from orchestrator.trackers.protocol import Outcome, TrackedRun


class RunTracker:
    """The `Tracker` of Trackio."""

    def __init__(self) -> None:
        self._run: Any = None

    def start(self, run: TrackedRun) -> str:
        name = run.id or f"{run.name}-{uuid.uuid4().hex[:8]}"
        self._run = trackio.init(
            **run.settings,
            name=name,
            group=run.name,
            config=run.config,
            resume="never" if run.id is None else "must",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        return name

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def finish(self, outcome: Outcome) -> None:
        self._run.finish()
